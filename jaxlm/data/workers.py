"""Worker processes end with the process that started them, however that ends: nobody else would end them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading


def end_with_parent() -> None:
    """Called in a worker process at its start."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "not in a worker process"

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
