"""A training step of GPT 124M in PyTorch on a GPU, to compare with `benchmarks/accelerator.py` on the same machine.

    python benchmarks/gpu_torch.py

transformers' GPT2LMHeadModel under torch.compile, with PyTorch's fused attention, bfloat16 autocast, clipping and fused
AdamW: the same sizes, batch and work as the first case of accelerator.py. The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from importlib.metadata import version

import torch
import transformers
import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark."""

    rows: int = 16
    length: int = 1024
    # number of measured groups of steps, with a synchronization after each group
    groups: int = 5
    # steps per group
    steps: int = 10
    # whether the model is compiled
    compiled: bool = True


def main(options: Options) -> None:
    """Measures and prints."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    config = transformers.GPT2Config(
        vocab_size=50_304,
        n_positions=options.length,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = transformers.GPT2LMHeadModel(config).cuda()
    forward = torch.compile(model) if options.compiled else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    shape = (options.rows, options.length)
    tokens, targets = (torch.randint(0, config.vocab_size, shape, device="cuda") for _ in range(2))

    def step() -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = forward(input_ids=tokens).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    began = time.perf_counter()
    for _ in range(3):
        loss = step()
    first = loss.item()
    compile_seconds = time.perf_counter() - began
    seconds = []
    for _ in range(options.groups):
        began = time.perf_counter()
        for _ in range(options.steps):
            loss = step()
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - began) / options.steps)
    result = {
        "benchmark": "gpu_torch",
        "device": torch.cuda.get_device_name(),
        "compiled": options.compiled,
        "tokens_per_second": round(tokens.numel() / statistics.median(seconds)),
        "spread": round((max(seconds) - min(seconds)) / statistics.median(seconds), 3),
        "compile_seconds": round(compile_seconds, 1),
        "loss": [first, loss.item()],
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "versions": {p: version(p) for p in ("torch", "transformers")},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
