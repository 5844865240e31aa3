"""Why a request is not answered, as OpenAI's clients expect to read it."""

from __future__ import annotations

from typing import Any

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Refusal(Exception):
    """A request that gets an error: an HTTP status or, if its stream has begun, an event."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        fields = dict(message=self.message, type=kind, param=self.param, code=self.code)
        return {"error": fields}

    def headers(self) -> dict[str, str]:
        """Headers that belong to the status."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.status in (408, 413):
            # the rest of the body is not read, so that nothing may follow on this connection
            headers["connection"] = "close"
        if self.status == 504:
            # it would take as long again; the openai package reads this header
            headers["x-should-retry"] = "false"
        return headers


def bad_field(param: str, problem: str, code: str | None = None) -> Refusal:
    """A field of the body that is wrong: status 400, naming the field."""
    return Refusal(400, f"{param}: {problem}", param=param, code=code)
