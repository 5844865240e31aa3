"""How many tokens a second the loader delivers, from a corpus that it makes itself.

    python benchmarks/loader.py [--seconds 3] [--workers 0]

Causal windows over joined documents, and rows of packed documents that are masked for an encoder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time

import numpy as np

from jaxlm.data import corruption, packing
from jaxlm.data.documents import TokenDocuments
from jaxlm.data.loader import Loader

VOCAB = 32_000
CLS, SEP, PAD, MASK = range(4)


def corpus(num_tokens: int) -> TokenDocuments:
    """Random ids in documents whose lengths are distributed like those of articles."""
    random = np.random.default_rng(0)
    ends = np.cumsum(random.lognormal(5.5, 1.0, num_tokens // 200).astype(np.int64) + 1)
    return TokenDocuments(random.integers(4, VOCAB, ends[-1]).astype(np.uint16), ends)


@dataclasses.dataclass
class Causal:
    """Windows for a decoder."""

    docs: TokenDocuments
    seq_len: int

    def __len__(self):
        return packing.num_windows(self.docs, self.seq_len) - 1

    def rows(self, indices, epochs):
        return packing.windows(self.docs, indices, self.seq_len, epochs % self.seq_len)


class Masked:
    """Packed rows for an encoder."""

    def __init__(self, docs: TokenDocuments, seq_len: int):
        self.pieces = packing.split_long(docs, seq_len - 2)
        self.packing = packing.pack(self.pieces.lengths + 2, seq_len)

    def __len__(self):
        return len(self.packing)

    def rows(self, indices, epochs):
        rows = packing.packed_rows(
            self.pieces, self.packing, indices, prefix_id=CLS, suffix_id=SEP, pad_id=PAD
        )
        tokens, targets, weights = corruption.mask_tokens(
            rows["tokens"],
            maskable=rows["tokens"] > MASK,
            word_starts=None,
            vocab_size=VOCAB,
            special_ids=[CLS, SEP, PAD, MASK],
            mask_id=MASK,
            rate=0.15,
            mask_share=0.8,
            random_share=0.1,
            seed=0,
            epoch=epochs,
            index=indices,
        )
        return {**rows, "tokens": tokens, "targets": targets, "weights": weights}


def tokens_per_second(dataset, batch_size: int, seconds: float, workers: int) -> float:
    """Measured over `seconds`, after the buffers have been filled and emptied once."""
    batches = Loader(dataset, batch_size=batch_size, seed=0, workers=workers)
    for _ in range(20):
        next(batches)
    begin, tokens = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        tokens += next(batches)["tokens"].size
    batches.close()
    return tokens / passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    docs = corpus(5_000_000)
    results = {}
    for seq_len, batch_size in ((1024, 32), (256, 64)):
        for kind in (Causal, Masked):
            name = f"{kind.__name__.lower()}_{seq_len}x{batch_size}"
            rate = tokens_per_second(
                kind(docs, seq_len), batch_size, options.seconds, options.workers
            )
            results[name] = round(rate)
            print(f"{name}: {rate / 1e6:.1f} million tokens a second", flush=True)
    efficiency = packing.pack(packing.split_long(docs, 510).lengths + 2, 512).efficiency
    print(
        json.dumps(
            {
                "benchmark": "loader",
                "tokens_per_second": results,
                "packing_efficiency_512": round(efficiency, 4),
                "workers": options.workers,
                "cpus": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
