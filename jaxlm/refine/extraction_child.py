"""The process that extracts text from pages, started by `extraction` as a script; it imports nothing of jaxlm.

It ends itself when a page takes too much processor time: the signal of the timer ends the process even within C code.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

# page -> text
Extractor = Callable[[str], "str | None"]


def trafilatura() -> Extractor:
    """Main text by trafilatura (Barbaresi 2021), which RefinedWeb uses; precision over recall, no comments."""
    from trafilatura import extract

    # no `deduplicate`: it remembers the pages before, so that a page's text would depend on them
    return lambda page: extract(page, favor_precision=True, include_comments=False)


def resiliparse() -> Extractor:
    """Main text by Resiliparse (Bevendorff et al. 2018), which DCLM uses; much faster, keeps more boilerplate."""
    from resiliparse.extract.html2text import extract_plain_text

    return lambda page: extract_plain_text(page, main_content=True, alt_texts=False, comments=False)


EXTRACTORS = {"trafilatura": trafilatura, "resiliparse": resiliparse}


def load(name: str) -> Extractor:
    """An extractor of `EXTRACTORS`, or the function `module:function`."""
    if name in EXTRACTORS:
        return EXTRACTORS[name]()
    module, _, function = name.partition(":")
    found = getattr(importlib.import_module(module), function)
    if not callable(found):
        raise TypeError(f"{name} is no function")
    return found


def serve(connection: Connection, extractor: str, seconds: float, memory: int | None) -> None:
    """Answers each list of pages with one message a page: ("text", text or None), or ("error", what)."""
    try:
        extract = load(extractor)
    except Exception as e:
        connection.send(("error", f"{type(e).__name__}: {e}"))
        return
    _limit(memory)
    connection.send(("ready", None))
    while True:
        try:
            pages = connection.recv()
        except EOFError:
            return
        for page in pages:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            try:
                text = extract(_valid(page))
                if not isinstance(text, str | None):
                    raise TypeError(f"the extractor returned {type(text).__name__}, not a string")
                answer = ("text", text)
            except Exception as e:  # an extractor may fail in any way on a broken page
                answer = ("error", f"{type(e).__name__}: {e}"[:200])
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send(answer)


def _valid(page: str) -> str:
    """The page without what no parser reads: NUL, and halves of surrogate pairs."""
    page = page.replace("\0", "")
    try:
        page.encode()
    except UnicodeEncodeError:
        page = page.encode("utf-8", "replace").decode()
    return page


def _limit(memory: int | None) -> None:
    """Limits memory, and lets the system end this process first when it runs out of it."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    if memory is not None:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def main() -> None:
    """Reads its settings from the connection whose number is the only argument."""
    connection = Connection(int(sys.argv[1]))
    path, extractor, seconds, memory = connection.recv()
    sys.path[:] = path
    # what extractors print and log must not mix with the worker's output
    logging.disable(logging.CRITICAL)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    # a keyboard interrupt is the worker's, which closes the connection
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(connection, extractor, seconds, memory)


if __name__ == "__main__":
    main()
