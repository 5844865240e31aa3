"""Tokens a second of greedy generation, ours against transformers with the same weights, in turn in one process.

    python benchmarks/generate.py [--models gpt2 llama t5 --folder DIR --batches 1 16 --rounds 5]

Random weights in the shapes of GPT-2 small, a Llama of 6 x 384 with 32,000 entries and T5 small, and any folder in the
Hugging Face layout or .gguf file. The last line is JSON: for each model and batch the median over rounds of ours, of
theirs and of their ratio, whether the tokens are equal, and the bytes of weights read a second as a fraction of what a
copy of memory reaches (batch 1). Needs `pip install -e .[bench]`.
"""

from __future__ import annotations

import json
import pathlib
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from typing import Any, Literal

import jax
import numpy as np
import tyro

from jaxlm import hf
from jaxlm.config import ComputeConfig
from jaxlm.generation.engine import Engine
from jaxlm.generation.requests import Request
from jaxlm.generation.settings import Settings


def shapes() -> dict[str, Any]:
    """transformers' configs of the shapes."""
    import transformers as t

    llama = dict(
        vocab_size=32_000,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
    )
    return {
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config()),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**llama)),
        "t5": lambda: t.T5ForConditionalGeneration(
            t.T5Config(vocab_size=32_128, decoder_start_token_id=0)
        ),
    }


def main(
    models: tuple[str, ...] = ("gpt2", "llama", "t5"),
    folder: tuple[pathlib.Path, ...] = (),
    batches: tuple[int, ...] = (1, 16),
    rounds: int = 5,
    prompt: int = 16,
    tokens: int = 64,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Measures and prints.

    Args:
        models: shapes with random weights.
        folder: further models.
        batches: prompts at a time.
        rounds: measurements of each.
        prompt: tokens of a prompt.
        tokens: new tokens.
        dtype: of both sides' weights and of what they compute.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    rows = {}
    for name in (*models, *folder):
        with tempfile.TemporaryDirectory() as temporary:
            path = pathlib.Path(temporary) if isinstance(name, str) else name
            if isinstance(name, str):
                torch.manual_seed(0)
                shapes()[name]().save_pretrained(path)
            theirs = _load_theirs(path, dtype)
            for batch in batches:
                label = f"{name if isinstance(name, str) else path.name} x {batch}"
                rows[label] = compare(path, theirs, batch, rounds, prompt, tokens, dtype)
                print(label, rows[label], flush=True)
    packages = ("jax", "jaxlib", "flax", "torch", "transformers")
    result = {
        "benchmark": "generate",
        "rows": rows,
        "copy_gigabytes_per_second": copy_speed(),
        "device": jax.devices()[0].device_kind,
        "theirs_on": str(_device()),
        "dtype": dtype,
        "machine": platform.processor() or platform.machine(),
        "versions": {p: version(p) for p in packages},
    }
    print(json.dumps(result))


def _device() -> Any:
    """Where PyTorch computes: on a GPU if JAX does."""
    import torch

    return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


def _load_theirs(path: pathlib.Path, dtype: str) -> Any:
    import torch
    import transformers

    where = dict(pretrained_model_name_or_path=path)
    if path.suffix == ".gguf":
        where = dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name)
    config = transformers.AutoConfig.from_pretrained(**where)
    kind = transformers.AutoModelForCausalLM
    if config.is_encoder_decoder:
        kind = transformers.AutoModelForSeq2SeqLM
    return kind.from_pretrained(**where).to(_device(), getattr(torch, dtype)).eval()


def compare(
    path: pathlib.Path, theirs: Any, batch: int, rounds: int, prompt: int, tokens: int, dtype: str
) -> dict[str, Any]:
    """Medians over the rounds, in which both generate once."""
    import torch

    loaded = hf.load(path, compute=ComputeConfig(dtype=dtype), dtype=jax.numpy.dtype(dtype))
    engine = Engine(loaded.model, loaded.params, slots=batch, vocab_size=loaded.config.vocab_size)
    rng = np.random.default_rng(0)
    ids = rng.integers(5, theirs.config.vocab_size, (batch, prompt))
    settings = Settings(max_new_tokens=tokens, temperature=0.0)
    has_source = theirs.config.is_encoder_decoder
    requests = [
        Request([0], settings, row.tolist()) if has_source else Request(row.tolist(), settings)
        for row in ids
    ]

    def run_ours() -> list[list[int]]:
        return [[token.id for token in row] for row in engine.run(requests)]

    def run_theirs() -> list[list[int]]:
        with torch.inference_mode():
            out = theirs.generate(
                torch.tensor(ids, device=_device()),
                attention_mask=torch.ones(ids.shape, dtype=torch.long, device=_device()),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        return out[:, (1 if has_source else prompt) :].tolist()

    results = run_ours(), run_theirs()
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name, run in (("ours", run_ours), ("theirs", run_theirs)):
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    weights = sum(x.nbytes for x in jax.tree.leaves(engine.params))
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["theirs"])]
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "ours_tokens_per_second": round(batch * tokens / median["ours"], 1),
        "theirs_tokens_per_second": round(batch * tokens / median["theirs"], 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "equal_tokens": float(np.mean(np.array(results[0]) == np.array(results[1]))),
        "weights_gigabytes_per_second": round(weights * tokens / median["ours"] / 1e9, 2),
    }


def copy_speed() -> float:
    """Bytes that a copy of 512 MB reads a second, in GB; the best of ten."""
    source = np.ones(2**27, np.float32)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - began)
    return round(source.nbytes / best / 1e9, 2)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
