"""A plan as one HTML file that needs no network."""

from __future__ import annotations

from typing import Any


def page(plan: dict[str, Any]) -> str:
    return ""
