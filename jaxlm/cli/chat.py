"""`jaxlm chat`: a conversation with a chat model in the terminal."""

from __future__ import annotations

import sys
from typing import Any

from jaxlm.cli.arguments import Step, parse
from jaxlm.cli.generation import Dtype, ModelPath, Sampling

_HELP = """/new       begin a new conversation
/again     another answer to the last message
/system    TEXT  set the system prompt and begin anew
/exit      leave (so does Ctrl-D); Ctrl-C stops an answer"""


def run(argv: list[str]) -> None:
    """Talks with the model that the arguments name."""
    parse(chat, argv, "jaxlm chat")


def chat(
    model: ModelPath,
    /,
    system: str | None = None,
    step: Step = None,
    dtype: Dtype = None,
    sampling: Sampling = Sampling(),
) -> None:
    """Talks with a chat model: answers come as they are written, Ctrl-C stops one, /help lists the commands.

    Messages come from standard input, a line each.

    Args:
        model: folder of a run or of a Hugging Face model, or a .gguf file.
        system: system prompt.
        step: of a run's checkpoint, or best (by the validation metric); default: the newest.
        dtype: of the weights while writing; bfloat16 halves what each token reads; default: as the model has them.
        sampling: how to write.
    """
    sampling.check()
    from jaxlm.run import load

    loaded = load.load(model, step=step, dtype=dtype)
    # what is wrong is said before anyone types
    loaded.chat_request([{"role": "user", "content": "a"}], loaded.settings(**sampling.fields()))
    shows = sys.stdin.isatty()
    if shows:
        print(f"{loaded.name}. /help lists the commands.", file=sys.stderr)
    begin: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    messages, answers = list(begin), 0
    while True:
        try:
            line = input("> " if shows else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            continue
        command, _, rest = line.strip().partition(" ")
        if not command:
            continue
        if command == "/exit":
            return
        if command == "/help":
            print(_HELP)
            continue
        if command in ("/new", "/system"):
            if command == "/system":
                begin = [{"role": "system", "content": rest}] if rest else []
            messages = list(begin)
            continue
        if command == "/again":
            if messages and messages[-1]["role"] == "assistant":
                messages.pop()
            if not messages or messages[-1]["role"] != "user":
                print("nothing to answer yet")
                continue
        elif command.startswith("/"):
            print(f"no command {command}; /help lists them")
            continue
        else:
            messages.append({"role": "user", "content": line})
        given = sampling.fields() | {"seed": sampling.seed + answers}
        try:
            messages.append({"role": "assistant", "content": _answer(loaded, messages, given)})
        except ValueError as e:
            # such as a conversation that has become too long
            print(f"error: {e}", file=sys.stderr)
            messages.pop()
        answers += 1


def _answer(model: Any, messages: list[dict[str, str]], settings: dict[str, Any]) -> str:
    """Prints the answer as it comes; Ctrl-C ends it."""
    text = ""
    try:
        for piece in model.chat(messages, **settings):
            print(piece, end="", flush=True)
            text += piece
    except KeyboardInterrupt:
        print(" [stopped]", end="")
    print()
    return text
