"""Why a document was dropped, in plain words."""

from __future__ import annotations

from jaxlm.report import formats

# rule, or stage/rule where rules of several stages have the same name -> a sentence with the value and the threshold
_SENTENCES: dict[str, str] = {}


def sentence(stage: str, rule: str, value: object, threshold: object) -> str:
    """One sentence: what the document has and what the rule asks for; the names and numbers where there is none."""
    words = _SENTENCES.get(f"{stage}/{rule}") or _SENTENCES.get(rule)
    if words is None:
        return f"{rule.replace('_', ' ')}: {_shown(value)}; threshold: {_shown(threshold)}"
    return words.format(value=_Shown(value), threshold=_Shown(threshold))


class _Shown:
    """A value for a format: `{value}` as it is, `{value:%}` a fraction as percent."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __format__(self, how: str) -> str:
        if how == "%" and isinstance(self.value, (int, float)):
            return f"{self.value:.3g}" if self.value > 1 else f"{100 * self.value:.3g}%"
        return _shown(self.value)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return formats.number(int(value) if value.is_integer() else value)
    return f"{value:,}" if isinstance(value, int) else str(value)
