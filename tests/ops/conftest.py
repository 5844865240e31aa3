"""Fixtures of several test files."""

import contextlib

import pytest

from jaxlm.ops import target


@pytest.fixture(params=["plain", "tuned for CPUs"])
def formulas(request):
    """The test runs with the plain formulas and with those of `ops.cpu`."""
    with target.plain_formulas() if request.param == "plain" else contextlib.nullcontext():
        yield request.param
