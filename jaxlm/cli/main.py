"""The `jaxlm` command: the list of commands, and exit codes.

Exit codes: 0 success, 2 an error that the user can fix (one line on stderr), 143 or 130 stopped by a signal after
saving, 141 the reader of the output is gone, 1 any other error.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from jaxlm.cli import signals

# loaded if there may be several processes
_PEERS = "jaxlm.training.peers"

# command -> what it does, in a line; each is a module of this package with a function `run`
COMMANDS = {
    "train": "Pretrain a model: [CONFIG.py] [--dotted.overrides].",
    "finetune": "Fine-tune a model: [CONFIG.py] [--init RUN_DIR_OR_HF_DIR] [--dotted.overrides].",
    "evaluate": "Compute the metrics of a model: RUN_OR_MODEL_DIR [--data SOURCE ...] [--task NAME].",
    "predict": "Write predictions for new examples: RUN_OR_MODEL_DIR --data SOURCE ... --out FILE.",
    "report": "Write a page about a run: RUN_DIR [--data SOURCE ...] [--out FILE.html].",
    "audit": "What a model remembers: RUN_OR_MODEL_DIR --train FILE --heldout FILE; canaries FILE makes some.",
    "generate": "Continue prompts, or translate and summarise sources: MODEL --prompt TEXT | --prompts FILE.",
    "chat": "Talk with a chat model in the terminal: MODEL.",
    "serve": "Serve a model over HTTP, with OpenAI's protocol and a chat page: MODEL.",
    "explain": "Show why a model answers as it does: RUN_OR_MODEL_DIR --text TEXT [--method NAME ...].",
    "vae": "Use a text VAE: sample, reconstruct, interpolate, traverse, neighbours, analogy, map RUN_DIR ...",
    "convert": "Write a run as a folder that transformers loads: RUN_DIR OUT_DIR.",
    "tokenizer": "Train a tokenizer: train OUT.json [--data.train SOURCE ...].",
    "tokenize": "Write token shards: SOURCE ... OUT_DIR [--data.tokenizer.path FILE].",
    "refine": "Refine web pages to training text: RECIPE INPUT ... OUT_DIR.",
    "data": "Look at the data of a pretraining run: inspect [CONFIG.py] [--out DIR].",
    "plan": "What a run needs on pods and GPUs that are not here: [CONFIG.py] --topology v5p:4x4x4 [--mesh auto].",
    "env": "Print versions, devices, and which optional parts are missing.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    signals.raise_safely()
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # `jaxlm train --help | head`: nobody reads on, and the interpreter must not complain when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if argv[0] == "--version":
        from jaxlm import __version__

        print(f"jaxlm {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        return _fail(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    try:
        importlib.import_module(f"jaxlm.cli.{name}").run(rest)
    except ValueError as e:
        _hear_of_others()
        failed = _fail(str(e))
        _end_others(str(e), failed)
        return failed
    except KeyboardInterrupt:
        _end_others("interrupted", 130)
        return 130
    except BrokenPipeError:
        raise
    except Exception as e:
        code = getattr(e, "exit_code", None)
        if code is not None and code > 128:
            # stopped by a signal, as requested
            print(e, file=sys.stderr)
            return code
        several = _hear_of_others()
        if code is not None:
            print(f"error: {e}", file=sys.stderr)
            _end_others(str(e), code)
            return code
        if isinstance(e, OSError) and e.strerror:
            # a full disk, a folder that may not be written, too many open files
            where = f"{e.filename}: " if e.filename else ""
            print(f"error: {where}{e.strerror}", file=sys.stderr)
            return 1
        if "RESOURCE_EXHAUSTED" in str(e):
            print(
                f"error: out of memory: {_one_line(e)}; lower batch_size, raise accumulate or mesh.fsdp, or "
                "set compute.remat",
                file=sys.stderr,
            )
            return 1
        if several:
            traceback.print_exc()
            _end_others(f"{type(e).__name__}: {e}", 1)
        raise
    return 0


def _hear_of_others() -> bool:
    """Whether this is one process of several.

    Its error may follow from a lost process: then this one ends here, with that news. Gloo's errors come as ValueError
    or as JaxRuntimeError, and before or after the news.
    """
    others = sys.modules.get(_PEERS)
    if others is None or not others.is_watching():
        return False
    others.settle()
    return True


def _end_others(reason: str, code: int) -> None:
    """If this is one process of several: ends all of them, as they would wait for this one."""
    if others := sys.modules.get(_PEERS):
        others.fail(reason, code)


def _usage() -> str:
    lines = ["usage: jaxlm COMMAND [arguments]    (jaxlm COMMAND --help tells more)", ""]
    lines += [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return "\n".join([*lines, "", "  --version  Print the version."])


def _fail(message: str) -> int:
    print(f"error: {_one_line(message)}", file=sys.stderr)
    return 2


def _one_line(message: object) -> str:
    text = " ".join(str(message).split())
    # of a run in a bucket: its URL instead of the temporary copy
    mirror = sys.modules.get("jaxlm.remote.mirror")
    return text if mirror is None else mirror.shown(text)
