"""Extractors that fail in the ways in which real ones do; named in the tests as module:function."""

import os
import sys
import time


def behave(page):
    """Does what a page says."""
    print("extractors may print")
    print("and complain", file=sys.stderr)
    if page == "raise":
        raise KeyError("no such tag")
    if page == "exit":
        os._exit(3)
    if page == "crash":
        os.kill(os.getpid(), 11)
    if page == "spin":
        while True:
            pass
    if page == "sleep":
        time.sleep(1000)
    if page == "eat":
        return "x" * (1 << 34)
    if page == "nothing":
        return None
    return f"text of {page} by {os.getpid()}"
