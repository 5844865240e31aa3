"""A loaded model as what the endpoints serve."""

from __future__ import annotations

from typing import Any

from jaxlm.serve.limits import Limits
from jaxlm.serve.served import Served
from jaxlm.serve.worker import Worker


def start(
    model: Any, *, name: str | None, slots: int, max_len: int | None, limits: Limits
) -> tuple[Served, Worker]:
    """The served model and its worker, which is not running yet.

    Raises:
        ValueError: the model has no tokenizer.
    """
    raise NotImplementedError
