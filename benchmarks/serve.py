"""Measures a server with many clients: tokens per second and time to the first token, beside transformers.

    python benchmarks/serve.py FOLDER [--clients 64] [--requests 256] [--slots 64]

FOLDER is a decoder in the Hugging Face layout; `jaxlm serve` is started for it, or --url names a server that runs (of
the same model; it may be any that speaks OpenAI's protocol). Every client sends its next request when the one before
is answered; prompts and answers have mixed lengths. transformers writes the same answers in static batches of 16 in
the order of the requests: a batch takes as long as its longest answer. The time to the first token is that to the
first text (with random weights much later: the server's log and /metrics have that of the token). With
--no-transformers it is left out. Needs `pip install -e .[serve,bench]`. The last line is JSON.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import numpy as np
import tyro

STATIC_BATCH = 16


@dataclasses.dataclass
class Ask:
    """One request: a prompt of ids, and how many tokens are written."""

    prompt: list[int]
    tokens: int


def requests(count: int, prompts: tuple[int, int], tokens: tuple[int, int], ids: int) -> list[Ask]:
    """Requests whose lengths are spread evenly over their logarithms, as real ones roughly are."""
    rng = np.random.default_rng(0)

    def lengths(low: int, high: int) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high + 1), count)).astype(int)

    return [
        Ask(rng.integers(5, ids, n).tolist(), int(new))
        for n, new in zip(lengths(*prompts), lengths(*tokens))
    ]


@dataclasses.dataclass
class Result:
    """What one request got."""

    status: int = 0
    # seconds until the first token, and until the end
    first: float | None = None
    seconds: float = 0.0
    tokens: int = 0
    error: str | None = None


async def send(host: str, port: int, ask: Ask, model: str, end: int | None) -> Result:
    """Streams one answer, over a connection of its own."""
    body = {
        "model": model,
        "prompt": ask.prompt,
        "max_tokens": ask.tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if end is not None:
        body["logit_bias"] = {str(end): -100}
    data = json.dumps(body).encode()
    result, begun = Result(), time.perf_counter()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        result.status = int((await reader.readline()).split()[1])
        if result.status != 200:
            result.error = (await reader.read()).decode().partition("\r\n\r\n")[2]
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                result.error = event["error"]["message"]
            if result.first is None:
                result.first = time.perf_counter() - begun
            if event.get("usage"):
                result.tokens = event["usage"]["completion_tokens"]
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    result.seconds = time.perf_counter() - begun
    return result


async def drive(
    url: str, asks: list[Ask], clients: int, model: str, end: int | None
) -> list[Result]:
    """The results of all requests, with so many at the same time."""
    place = urllib.parse.urlsplit(url)
    assert place.hostname
    queue = collections.deque(enumerate(asks))
    results: list[Result] = [Result() for _ in asks]

    async def client() -> None:
        while queue:
            i, ask = queue.popleft()
            try:
                results[i] = await send(place.hostname or "", place.port or 80, ask, model, end)
            except OSError as e:
                results[i].error = str(e)

    await asyncio.gather(*(client() for _ in range(clients)))
    return results


@contextlib.contextmanager
def served(folder: pathlib.Path, slots: int, queue: int) -> Iterator[str]:
    """The address of a server of our own, which is warm."""
    command = [sys.executable, "-m", "jaxlm", "serve", str(folder), "--port", "0"]
    command += ["--slots", str(slots), "--limits.queue", str(queue)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if match := re.search(r"is ready at (\S+)", line):
                break
            print(line, end="", file=sys.stderr)
        else:
            raise SystemExit("the server did not start")
        # its log must not fill the pipe
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        yield match[1]
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        drain.wait(10)
    finally:
        process.kill()


def static_batches(
    folder: pathlib.Path, asks: list[Ask], dtype: str, threads: int | None = None
) -> float:
    """Seconds of transformers for all requests."""
    import torch
    import transformers

    if threads is not None:
        torch.set_num_threads(threads)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = model.to(device).eval()

    def write(batch: list[Ask]) -> None:
        longest = max(len(ask.prompt) for ask in batch)
        rows = [[0] * (longest - len(ask.prompt)) + ask.prompt for ask in batch]
        mask = [[0] * (longest - len(a.prompt)) + [1] * len(a.prompt) for a in batch]
        model.generate(
            torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            max_new_tokens=max(ask.tokens for ask in batch),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        if device == "cuda":
            torch.cuda.synchronize()

    write([Ask(ask.prompt, 4) for ask in asks[:STATIC_BATCH]])
    begun = time.perf_counter()
    for i in range(0, len(asks), STATIC_BATCH):
        write(asks[i : i + STATIC_BATCH])
    return time.perf_counter() - begun


def percentile(values: list[float], q: float) -> float:
    """A percentile, to milliseconds."""
    return round(float(np.percentile(values, q)), 3) if values else float("nan")


def main(
    folder: tyro.conf.Positional[pathlib.Path],
    url: str | None = None,
    model: str | None = None,
    clients: int = 64,
    requests_: Annotated[int, tyro.conf.arg(name="requests")] = 256,
    slots: int = 64,
    prompts: tuple[int, int] = (8, 128),
    tokens: tuple[int, int] = (16, 256),
    end: int | None = None,
    ids: int | None = None,
    transformers: bool = True,
    dtype: str = "float32",
    threads: int | None = None,
) -> None:
    """Measures.

    Args:
        folder: the model.
        url: of a server that runs, such as http://127.0.0.1:8000.
        model: its name there; default: that of the folder.
        clients: requests at the same time.
        requests_: number of requests.
        slots: of our own server.
        prompts: shortest and longest prompt.
        tokens: shortest and longest answer.
        end: id of the end token, which is not written; default: from config.json.
        ids: prompts have ids below this one; default: the vocabulary of config.json.
        transformers: measure transformers too.
        dtype: of transformers' weights.
        threads: of transformers on a CPU; default: one a core, which on a busy machine is many times slower than one.
    """
    config = json.loads((folder / "config.json").read_text())
    if end is None:
        given = config.get("eos_token_id")
        end = given[0] if isinstance(given, list) else given
    asks = requests(requests_, prompts, tokens, ids or config["vocab_size"])
    with contextlib.ExitStack() as stack:
        if url is None:
            url = stack.enter_context(served(folder, slots, 2 * clients))
        name = model or folder.resolve().name
        asyncio.run(drive(url, asks[:clients], clients, name, end))  # connections, first shapes
        begun = time.perf_counter()
        results = asyncio.run(drive(url, asks, clients, name, end))
        seconds = time.perf_counter() - begun
    statuses = collections.Counter(str(result.status) for result in results)
    for result in results:
        if result.error:
            print(result.error, file=sys.stderr)
            break
    written = sum(result.tokens for result in results)
    firsts = [result.first for result in results if result.first is not None]
    summary = {
        "benchmark": "serve",
        "model": name,
        "clients": clients,
        "requests": requests_,
        "statuses": dict(statuses),
        "seconds": round(seconds, 2),
        "tokens_per_second": round(written / seconds, 1),
        "first_token_seconds": {
            "median": percentile(firsts, 50),
            "p95": percentile(firsts, 95),
        },
        "answer_seconds": {"p95": percentile([result.seconds for result in results], 95)},
    }
    complete = written == sum(ask.tokens for ask in asks)
    if not complete:
        print("not every answer is complete: the ratio would not mean anything", file=sys.stderr)
    if transformers and complete:
        theirs = static_batches(folder, asks, dtype, threads)
        summary["transformers"] = {
            "seconds": round(theirs, 2),
            "tokens_per_second": round(written / theirs, 1),
            "static_batch": STATIC_BATCH,
        }
        summary["ratio"] = round(theirs / seconds, 2)
    versions = {}
    for package in ("jax", "torch", "transformers"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    print(json.dumps(summary | {"cores": os.cpu_count(), "versions": versions}))


if __name__ == "__main__":
    tyro.cli(main)
