"""Thresholds of languages for which those of the English papers do not hold."""

from __future__ import annotations

from typing import Any

THRESHOLDS: dict[str, dict[str, dict[str, Any]]] = {}
