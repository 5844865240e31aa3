"""Compares greedy decoding of a real decoder with transformers, token by token.

    python benchmarks/greedy_decoding.py FOLDER [--tokens 200] [--prompt 1]

FOLDER is a model in the Hugging Face layout. Needs `pip install -e .[bench]`. The last line is JSON.
"""

from __future__ import annotations

import json
import pathlib
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxlm import hf
from jaxlm.generation import decode


def ours(folder: pathlib.Path, prompt: tuple[int, ...], count: int) -> list[int]:
    """The new tokens of jaxlm."""
    loaded = hf.load(folder)
    prompts, lengths = decode.pad_prompts([list(prompt)], 0)
    tokens = decode.generate(
        loaded.model,
        loaded.params,
        jnp.asarray(prompts),
        jnp.asarray(lengths),
        jax.random.key(0),
        max_new_tokens=count,
        temperature=0.0,
    )
    return np.asarray(tokens)[0].tolist()


def theirs(folder: pathlib.Path, prompt: tuple[int, ...], count: int) -> list[int]:
    """The new tokens of transformers; control tokens do not end the text."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).float().eval()
    tokens = model.generate(
        torch.tensor([prompt]),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return tokens[0, len(prompt) :].tolist()


def main(
    folder: tyro.conf.Positional[pathlib.Path], tokens: int = 200, prompt: tuple[int, ...] = (1,)
) -> None:
    """Decodes with both and compares.

    Args:
        folder: the model.
        tokens: number of new tokens.
        prompt: ids of the prompt.
    """
    seconds, results = {}, {}
    for name, generate in {"jaxlm": ours, "transformers": theirs}.items():
        began = time.perf_counter()
        results[name] = generate(folder, prompt, tokens)
        seconds[name] = round(time.perf_counter() - began, 2)
    same = [a == b for a, b in zip(results["jaxlm"], results["transformers"], strict=True)]
    tokenizer = hf.loading.read_tokenizer(folder)
    if tokenizer is not None:
        print(tokenizer.decode(results["jaxlm"]))
    result = {
        "benchmark": "greedy_decoding",
        "ratio": {"equal_tokens": sum(same) / len(same)},
        "first_difference": None if all(same) else same.index(False),
        "tokens": tokens,
        # loading and compilation included
        "seconds": seconds,
        "versions": {p: version(p) for p in ("jax", "flax", "torch", "transformers")},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
