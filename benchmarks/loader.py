"""Tokens per second that the loader delivers to one process, from a random corpus.

    python benchmarks/loader.py [--seconds 3] [--tokens 10000000] [--workers 0] [--only shards]

Causal windows over concatenated documents, from memory and from shards on disk; rows of packed documents, masked for an
encoder or with corrupted spans for an encoder-decoder. Memory is the private memory of the process, without mapped
files.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import tempfile
import time

import numpy as np

from jaxlm.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    TokenizerConfig,
    TrainConfig,
)
from jaxlm.data import shards, tokenizer
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Loader
from jaxlm.tasks import CausalLMConfig, MaskedLMConfig, SpanCorruptionConfig, task_class

VOCAB = 32_000


def vocabulary() -> tokenizer.Tokenizer:
    """A tokenizer with `VOCAB` entries; only their number and the control tokens matter here."""
    words = [chr(0x4E00 + i) for i in range(VOCAB - 200)]
    config = TokenizerConfig(kind="char", vocab_size=VOCAB - 100)
    trained = tokenizer.train(["".join(words)], config)
    return trained.with_tokens([f"<extra_id_{i}>" for i in range(100)])


def corpus(num_tokens: int) -> TokenDocuments:
    """About `num_tokens` random ids in documents with log-normal lengths, 404 on average, as in articles."""
    random = np.random.default_rng(0)
    ends = np.cumsum(random.lognormal(5.5, 1.0, num_tokens // 404).astype(np.int64) + 1)
    return TokenDocuments(random.integers(5, VOCAB - 300, ends[-1], dtype=np.uint16), ends)


def on_disk(docs: TokenDocuments, folder: pathlib.Path, tok: tokenizer.Tokenizer) -> TokenDocuments:
    """The same corpus as a folder of shards of 4 million tokens."""
    files = []
    for index, start in enumerate(range(0, docs.num_tokens, 1 << 22)):
        part = docs.tokens[start : start + (1 << 22)]
        files.append({"name": f"train-{index:05d}.tokens", "tokens": len(part)})
        part.tofile(folder / files[-1]["name"])
    docs.ends.tofile(folder / "train.ends")
    manifest = {
        "version": shards.VERSION,
        "tokenizer": tok.text_fingerprint,
        "vocab_size": tok.vocab_size,
        "dtype": "uint16",
        "splits": {"train": {"documents": len(docs), "tokens": docs.num_tokens, "files": files}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    loaded = shards.load(str(folder), "train")
    assert loaded is not None
    return loaded.docs


def datasets(docs: TokenDocuments, stored: TokenDocuments, seq_len: int, tok) -> dict:
    """The data sets to measure, by name."""

    def rows(settings, model, d):
        config = TrainConfig(
            model=model(vocab_size=VOCAB, max_len=seq_len),
            task=settings,
            data=DataConfig(seq_len=seq_len),
        )
        return task_class(settings)(config, tok).rows(d, "train")

    windows = lambda d: rows(CausalLMConfig(), DecoderConfig, d)
    masked = lambda d, unit: rows(MaskedLMConfig(unit=unit), EncoderConfig, d)
    corrupted = lambda d: rows(SpanCorruptionConfig(), EncoderDecoderConfig, d)
    return {
        "causal": lambda: windows(docs),
        "causal_shards": lambda: windows(stored),
        "masked": lambda: masked(docs, "token"),
        "masked_shards": lambda: masked(stored, "token"),
        "masked_spans": lambda: masked(docs, "span"),
        "span_corruption": lambda: corrupted(docs),
        "span_corruption_shards": lambda: corrupted(stored),
    }


def tokens_per_second(dataset, batch_size: int, seconds: float, workers: int) -> float:
    """Tokens per second, measured over `seconds` after a warm-up."""
    batches = Loader(dataset, batch_size=batch_size, seed=0, workers=workers)
    for _ in range(20):
        next(batches)
    begin, tokens = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        tokens += next(batches)["tokens"].size
    batches.close()
    return tokens / passed


def private_bytes() -> int:
    """Anonymous memory of this process in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--only", default="", help="only data sets whose name contains this")
    options = parser.parse_args()
    docs, tok = corpus(options.tokens), vocabulary()
    rates, seconds_to_open, efficiency = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        stored = on_disk(docs, pathlib.Path(folder), tok)
        for seq_len, batch_size in ((1024, 32), (512, 64), (256, 64)):
            for kind, make in datasets(docs, stored, seq_len, tok).items():
                if options.only not in kind:
                    continue
                name = f"{kind}_{seq_len}x{batch_size}"
                began = time.perf_counter()
                dataset = make()
                seconds_to_open[name] = round(time.perf_counter() - began, 3)
                rate = tokens_per_second(dataset, batch_size, options.seconds, options.workers)
                rates[name] = round(rate)
                rows = getattr(dataset, "packed", None)
                if rows is not None:
                    efficiency[name] = np.round(rows.efficiency, 4).tolist()
                print(f"{name}: {rate / 1e6:.1f} million tokens per second", flush=True)
    print(
        json.dumps(
            {
                "benchmark": "loader",
                "corpus_tokens": docs.num_tokens,
                "tokens_per_second": rates,
                "seconds_to_open": seconds_to_open,
                "efficiency": efficiency,
                "private_megabytes": round(private_bytes() / 1e6),
                "workers": options.workers,
                "cpus": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
