"""Personal data in texts, replaced by placeholders. Names of people are not recognized."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from datatrove.data import Document

from jaxlm.refine import personal_patterns, phone_numbers
from jaxlm.refine.rule import Drop, Rule

PLACEHOLDERS = {
    "chinese_id": "<ID>",
    "iban": "<IBAN>",
    "card": "<CARD>",
    "ip": "<IP>",
    "email": "<EMAIL>",
    "phone": "<PHONE>",
}
# entities of presidio -> kinds
_PRESIDIO = {
    "CREDIT_CARD": "card",
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "PHONE_NUMBER": "phone",
    "US_SSN": "us_ssn",
    "US_ITIN": "us_itin",
    "UK_NHS": "uk_nhs",
    "CRYPTO": "crypto",
}
KINDS = (*PLACEHOLDERS, *(kind for kind in _PRESIDIO.values() if kind not in PLACEHOLDERS))
# start, end and kind of each
Found = list[tuple[int, int, str]]
# of a document, in the report
_SHOWN = 50
# below it presidio itself calls a finding a guess without context
_MIN_SCORE = 0.5
# a text without these has none of the kinds
_HINT = re.compile(r"[@\d]|[\[(]\s?at\s?[\])]|::", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersonalData(Rule):
    """Replaces personal data by placeholders; metadata "personal_data" counts what was replaced, by kind.

    The patterns find e-mail addresses, phone numbers, IP addresses, payment cards, bank accounts and Chinese identity
    numbers; see `personal_patterns` and `phone_numbers`. They find no names or street addresses, and no pattern finds
    everything.
    """

    name: ClassVar[str] = "personal_data"
    source: ClassVar[str] = (
        "FineWeb (2406.17557): e-mail and IP addresses; the other kinds are ours"
    )

    # kind -> what replaces it; kinds that are not here stay
    placeholders: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(PLACEHOLDERS))
    # leave addresses such as 192.168.0.1
    public_ips_only: bool = True
    # "presidio" adds what Microsoft's recognizers find in the remaining text, 10 to 20 times slower
    engine: Literal["patterns", "presidio"] = "patterns"

    def __post_init__(self):
        if self.engine not in ("patterns", "presidio"):
            raise ValueError(f"engine={self.engine!r} is not one of patterns, presidio")
        known = KINDS if self.engine == "presidio" else tuple(PLACEHOLDERS)
        for kind in self.placeholders:
            if kind not in known:
                raise ValueError(f"placeholders: unknown kind {kind!r}; known: {', '.join(known)}")

    def check(self, document: Document) -> Drop | None:
        text = document.text
        if found := self.find(text):
            document.text = self._without(text, found)
            document.metadata["personal_data"] = dict(sorted(_counts(found).items()))
            shown = [[kind, text[start:stop]] for start, stop, kind in found[:_SHOWN]]
            document.metadata["removed_lines"] = shown
        return None

    def replace(self, text: str) -> tuple[str, Counter[str]]:
        """The text with placeholders, and the number of replacements by kind."""
        found = self.find(text)
        return self._without(text, found), _counts(found)

    def _without(self, text: str, found: Found) -> str:
        pieces, end = [], 0
        for start, stop, kind in found:
            pieces += [text[end:start], self.placeholders[kind]]
            end = stop
        return "".join([*pieces, text[end:]])

    def find(self, text: str) -> Found:
        """Everything that is found, in order and without overlaps; checksums win over forms."""
        if not _HINT.search(text):
            return []
        found: Found = []
        taken = bytearray(len(text))
        for start, stop, kind in self._spans(text):
            if kind in self.placeholders and not any(taken[start:stop]):
                taken[start:stop] = b"\1" * (stop - start)
                found.append((start, stop, kind))
        return sorted(found)

    def _spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        plain = personal_patterns.plain(text)
        numbers = list(personal_patterns.long_numbers(plain))
        spans = {
            "chinese_id": personal_patterns.chinese_ids(plain, numbers),
            "iban": personal_patterns.ibans(plain),
            "card": personal_patterns.cards(plain, numbers),
            "ip": personal_patterns.ips(plain, public_only=self.public_ips_only),
            "email": personal_patterns.emails(plain),
            "phone": phone_numbers.phones(plain, numbers),
        }
        for kind, each in spans.items():
            for start, stop in each:
                yield start, stop, kind
        if self.engine == "presidio":
            entities = [name for name, kind in _PRESIDIO.items() if kind in self.placeholders]
            found = self._analyzer.analyze(plain, "en", entities, score_threshold=_MIN_SCORE)
            for each in sorted(found, key=lambda result: -result.score):
                yield each.start, each.end, _PRESIDIO[each.entity_type]

    @functools.cached_property
    def _analyzer(self) -> Any:
        try:
            from presidio_analyzer import AnalyzerEngine
            from presidio_analyzer.nlp_engine import NoOpNlpEngine
        except ImportError:
            raise ValueError(
                "engine='presidio' needs the package presidio-analyzer: pip install presidio-analyzer"
            ) from None
        # patterns and checksums only: no model of names, which would be downloaded
        nothing = NoOpNlpEngine(models=[{"lang_code": "en", "model_name": "none"}])
        return AnalyzerEngine(nlp_engine=nothing, supported_languages=["en"])


def _counts(found: Found) -> Counter[str]:
    return Counter(kind for _, _, kind in found)
