"""Memory of a process that reads shards, for a small corpus and for one a hundred times as large.

    python benchmarks/loader_memory.py [--megabytes 10 1000]

For each size, shards of random tokens are written. For each data set two processes, one after the other, open them and
read batches in random order: the first from the start, the second, as after a restart, from the middle. Measured are
the growth of each process's memory since its imports, without mapped files, and the time until the first batch.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pathlib
import tempfile
import time

from loader import corpus, datasets, on_disk, private_bytes, vocabulary

SEQ_LEN, BATCH_SIZE, BATCHES = 512, 64, 300
KINDS = ("causal_shards", "masked_shards", "span_corruption_shards")


def measure(connection, folder: str, kind: str, fraction: float) -> None:
    """Runs in a new process: skips a fraction of the rows; sends memory in MB, and seconds to the first batch."""
    from jaxlm.data import shards
    from jaxlm.data.loader import Loader

    tok = vocabulary()
    before = private_bytes()
    began = time.perf_counter()
    stored = shards.load(folder, "train").docs
    dataset = datasets(stored, stored, SEQ_LEN, tok)[kind]()
    start = round(fraction * len(dataset))
    batches = Loader(dataset, batch_size=BATCH_SIZE, seed=0, workers=0, start=start)
    next(batches)
    seconds = time.perf_counter() - began
    for _ in range(BATCHES):
        next(batches)
    connection.send((round((private_bytes() - before) / 1e6), round(seconds, 2)))
    batches.close()


def measured(*arguments) -> dict[str, float]:
    """The result of `measure` in a new process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(sender, *arguments))
    process.start()
    sender.close()
    held, seconds = receiver.recv()
    process.join()
    return {"held_megabytes": held, "seconds_to_first_batch": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10.0, 1000.0])
    options = parser.parse_args()
    results: dict[str, dict] = {}
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory() as name:
            on_disk(corpus(round(megabytes * 1e6 / 2)), pathlib.Path(name), vocabulary())
            for kind in KINDS:
                result = {"first": measured(name, kind, 0.0), "again": measured(name, kind, 0.5)}
                results.setdefault(kind, {})[f"{megabytes:g} MB"] = result
                print(f"{kind}, {megabytes:g} MB: {result}", flush=True)
    print(json.dumps({"benchmark": "loader_memory", "ratio": {}, "results": results}))


if __name__ == "__main__":
    main()
