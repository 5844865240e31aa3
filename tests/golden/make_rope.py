"""Makes rope.json: rotary frequencies as transformers computes them. Run where torch and transformers are installed:

python tests/golden/make_rope.py
"""

import json
import pathlib

import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HEAD_DIM, THETA = 64, 500_000.0
LONGROPE = dict(
    kind="longrope",
    factor=8.0,
    original_max_len=512,
    short_factor=[1 + i / 64 for i in range(HEAD_DIM // 2)],
    long_factor=[1.5 * i + 1 for i in range(HEAD_DIM // 2)],
)
CASES = {
    "linear": dict(kind="linear", factor=4.0),
    "llama3": dict(
        kind="llama3", factor=8.0, original_max_len=512, low_freq_factor=1.0, high_freq_factor=4.0
    ),
    "yarn": dict(kind="yarn", factor=4.0, original_max_len=256),
    "yarn with other betas": dict(
        kind="yarn", factor=16.0, original_max_len=4096, beta_fast=16.0, beta_slow=2.0
    ),
    "yarn with its own factor": dict(
        kind="yarn", factor=4.0, original_max_len=256, attention_factor=1.5, whole_pairs=False
    ),
    "longrope": LONGROPE,
    "longrope in a long row": LONGROPE | dict(length=513),
    "dynamic": dict(kind="dynamic", factor=4.0, original_max_len=512),
    "dynamic in a long row": dict(kind="dynamic", factor=4.0, original_max_len=512, length=1300),
}
THEIR_NAMES = {
    "kind": "rope_type",
    "original_max_len": "original_max_position_embeddings",
    "whole_pairs": "truncate",
}


def main():
    found = {}
    for name, scaling in CASES.items():
        length = scaling.pop("length", None)
        parameters = {THEIR_NAMES.get(k, k): v for k, v in scaling.items()}
        longest = int(scaling.get("original_max_len", 512) * scaling["factor"])
        if scaling["kind"] == "dynamic":
            longest = parameters.pop("original_max_position_embeddings")
        config = transformers.LlamaConfig(
            hidden_size=HEAD_DIM,
            num_attention_heads=1,
            max_position_embeddings=longest,
            rope_parameters={"rope_theta": THETA, **parameters},
        )
        frequencies, factor = ROPE_INIT_FUNCTIONS[scaling["kind"]](config, "cpu", length)
        found[name] = dict(
            head_dim=HEAD_DIM,
            theta=THETA,
            scaling=scaling,
            **({} if length is None else {"length": length}),
            frequencies=frequencies.double().tolist(),
            factor=factor,
        )
    path = pathlib.Path(__file__).with_name("rope.json")
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(path, transformers.__version__)


if __name__ == "__main__":
    main()
