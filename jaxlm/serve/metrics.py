"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The metrics of one server."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, model: str, running: Callable[[], int], waiting: Callable[[], int]):
        self._registry = CollectorRegistry()
        common: Any = dict(registry=self._registry)
        self._requests = Counter(
            "jaxlm_requests", "Requests by route and status.", ["route", "status"], **common
        )
        self._seconds = Histogram(
            "jaxlm_request_seconds",
            "From a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            **common,
        )
        self._first = Histogram(
            "jaxlm_first_token_seconds",
            "From a request to its first token.",
            buckets=_SECONDS,
            **common,
        )
        self._prompt = Counter("jaxlm_prompt_tokens", "Tokens of prompts and texts.", **common)
        self._generated = Counter("jaxlm_generated_tokens", "Generated tokens.", **common)
        self._dropped = Counter("jaxlm_disconnected", "Requests whose client went.", **common)
        Gauge("jaxlm_running", "Answers being generated.", **common).set_function(running)
        Gauge("jaxlm_waiting", "Answers in the queue.", **common).set_function(waiting)
        Gauge("jaxlm_model", "The model that is served.", ["name"], **common).labels(model).set(1)

    def count(
        self,
        *,
        route: str,
        status: int,
        seconds: float,
        first: float | None,
        prompt: int,
        generated: int,
        dropped: bool,
    ) -> None:
        """Adds one request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if first is not None:
            self._first.observe(first)
        self._prompt.inc(prompt)
        self._generated.inc(generated)
        if dropped:
            self._dropped.inc()

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
