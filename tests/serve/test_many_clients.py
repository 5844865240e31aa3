"""A thousand clients at once: everybody is answered or refused by the rules, nobody gets another's answer."""

import asyncio
import collections
import contextlib
import json
import pathlib
import re

import calls
import pytest
import stub

CLIENTS, QUEUE, SLOTS = 1000, 1000, 16


def memory(process):
    """Resident megabytes of a process."""
    status = pathlib.Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("no /proc")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) / 1024


async def ask(port, i, stream):
    """The status of one client's request, and the text of the answer."""
    text = f"client {i} says {i * 7919}"
    body = json.dumps(
        dict(messages=[dict(role="user", content=stub.SAY + text)], stream=stream, n=1 + i % 2)
    ).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        writer.write(body)
        answer = (await reader.read()).decode()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    head, _, rest = answer.partition("\r\n\r\n")
    status = int(head.split(" ")[1])
    if status != 200:
        return status, "retry-after: " in head, None
    texts = collections.Counter()
    if stream:
        # chunked: each event is a chunk
        assert "data: [DONE]\n\n" in rest
        for event in re.findall(r"^data: (\{.*\})$", rest, re.MULTILINE):
            for choice in json.loads(event)["choices"]:
                texts.setdefault(choice["index"], "")
                texts[choice["index"]] += choice["delta"].get("content", "")
    else:
        for choice in json.loads(rest)["choices"]:
            texts[choice["index"]] = choice["message"]["content"]
    return status, False, dict(texts) == dict.fromkeys(range(1 + i % 2), text)


async def wave(port):
    """All clients at once."""
    return await asyncio.gather(*(ask(port, i, stream=i % 3 == 0) for i in range(CLIENTS)))


@pytest.mark.slow
def test_a_thousand_clients():
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with calls.server(slots=SLOTS, limits=dict(queue=QUEUE, receive_seconds=60)) as running:
        used = []
        for _ in range(4):
            results = asyncio.run(wave(running.port))
            statuses = collections.Counter(status for status, _, _ in results)
            # 1,500 answers for 16 slots and 1,000 places: those that are refused are told when to come again
            assert set(statuses) <= {200, 429}
            assert all(right for status, _, right in results if status == 200)
            assert all(told for status, told, _ in results if status == 429)
            health = calls.call(running.port, "/health").body
            assert (health["running"], health["waiting"]) == (0, 0)
            used.append(memory(running.process))
        assert used[-1] < used[1] * 1.1 + 5, used
        lines = [line for line in running.log().splitlines() if "POST /v1/chat" in line]
        assert len(lines) == 4 * CLIENTS
        assert "Traceback" not in running.log()


@pytest.mark.slow
def test_a_queue_of_a_thousand_answers_nearly_all():
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))

    async def one_each(port):
        return await asyncio.gather(*(ask(port, 2 * i, stream=i % 2 == 0) for i in range(CLIENTS)))

    with calls.server(slots=SLOTS, limits=dict(queue=QUEUE, receive_seconds=60)) as running:
        results = asyncio.run(one_each(running.port))
        statuses = collections.Counter(status for status, _, _ in results)
        assert statuses[200] >= 0.95 * CLIENTS
        assert statuses[200] + statuses[429] == CLIENTS
        assert all(right for status, _, right in results if status == 200)
