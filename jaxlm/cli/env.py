"""`jaxlm env`: versions and devices."""

from __future__ import annotations

from jaxlm.cli.arguments import parse


def run(argv: list[str]) -> None:
    """Prints them; there are no options."""
    parse(env, argv, "jaxlm env")


def env() -> None:
    """Prints versions of everything that matters, the devices, and what is not installed."""
    from jaxlm.run import environment

    print(environment.describe())
