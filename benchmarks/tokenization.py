"""Tokens per second of `jaxlm tokenize`, compared with the tokenizers library alone, on the same text in one run.

    python benchmarks/tokenization.py [SOURCE ...] [--processes 0] [--megabytes 20]

Default source: the built-in corpus, repeated up to --megabytes. jaxlm reads, encodes, and writes shards with checksums;
the library encodes strings in memory on all cores, and its ids are accessed once, as any use of them must.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import tempfile
import time

from jaxlm.config import DataConfig, TokenizerConfig
from jaxlm.data import shard_writer, sources, tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="*", default=["builtin:python-docs"])
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--vocab-size", type=int, default=16_384)
    options = parser.parse_args()
    data = DataConfig(train=tuple(options.source), validation_fraction=0.0)
    texts = sources.load_texts(data, "train").texts
    size = sum(map(len, texts))
    repeats = max(1, round(options.megabytes * 1e6 / size))
    tok = tokenizer.train(texts, TokenizerConfig(vocab_size=options.vocab_size))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
            for text in texts * repeats:
                file.write(json.dumps({"text": text}) + "\n")

        began = time.perf_counter()
        manifest = shard_writer.write(
            folder / "shards",
            DataConfig(train=(str(folder / "corpus.jsonl"),), validation_fraction=0.0),
            tok,
            command="benchmark",
            processes=options.processes,
        )
        ours = time.perf_counter() - began
    tokens = manifest["splits"]["train"]["tokens"]

    began, count = time.perf_counter(), 0
    everything = texts * repeats
    for start in range(0, len(everything), 1000):
        chunk = everything[start : start + 1000]
        for encoding in tok.backend.encode_batch_fast(chunk, add_special_tokens=False):
            count += len(encoding.ids)
    library = time.perf_counter() - began
    assert count == tokens, "the two encodings differ"
    print(
        json.dumps(
            {
                "benchmark": "tokenize",
                "characters": size * repeats,
                "tokens": tokens,
                "ours_tokens_per_second": round(tokens / ours),
                "library_tokens_per_second": round(tokens / library),
                "processes": options.processes,
                "cpus": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
