"""Personal data in texts, replaced by placeholders: by patterns, by presidio's recognizers or by a tagger of ours."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

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
Engine = Literal["patterns", "presidio", "tagger", "tagger_alone"]
_UNREADABLE = re.compile("[\0\ud800-\udfff]")
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
    everything. A model of `TaggingConfig` finds what its labels are; one is trained in `benchmarks/personal_data.py`.
    """

    name: ClassVar[str] = "personal_data"
    source: ClassVar[str] = (
        "FineWeb (2406.17557): e-mail and IP addresses; the other kinds are ours"
    )

    # kind -> what replaces it; None, or a kind that is not here: it stays. A label of a tagger that is not here is
    # replaced by itself: person by <PERSON>
    placeholders: Mapping[str, str | None] = dataclasses.field(
        default_factory=lambda: dict(PLACEHOLDERS)
    )
    # leave addresses such as 192.168.0.1
    public_ips_only: bool = True
    # "presidio" adds what Microsoft's recognizers find in the remaining text, 10 to 20 times slower; "tagger" what a
    # model does; "tagger_alone" leaves out the patterns
    engine: Engine = "patterns"
    # of the tagger: folder of a run of tagging with spans, or one in the Hugging Face layout
    model: str | None = None
    # of the tagger: mean probability of the tags of a span, at least
    min_probability: float = 0.5

    def __post_init__(self):
        if self.engine not in get_args(Engine):
            raise ValueError(f"engine={self.engine!r} is not one of {', '.join(get_args(Engine))}")
        if self._has_tagger != (self.model is not None):
            raise ValueError(
                f"engine={self.engine!r} and model={self.model!r}: a tagger needs a model, and nothing else has one"
            )
        known = KINDS if self.engine == "presidio" else tuple(PLACEHOLDERS)
        for kind in () if self._has_tagger else self.placeholders:
            if kind not in known:
                raise ValueError(f"placeholders: unknown kind {kind!r}; known: {', '.join(known)}")

    @property
    def _has_tagger(self) -> bool:
        return self.engine in ("tagger", "tagger_alone")

    def check(self, document: Document) -> Drop | None:
        return self.check_batch([document])[0]

    def check_batch(self, documents: Sequence[Document]) -> list[Drop | None]:
        for document, found in zip(documents, self.find_all([d.text for d in documents])):
            if found:
                text = document.text
                document.text = self._without(text, found)
                document.metadata["personal_data"] = dict(sorted(_counts(found).items()))
                shown = [[kind, text[start:stop]] for start, stop, kind in found[:_SHOWN]]
                document.metadata["removed_lines"] = shown
        return [None] * len(documents)

    def replace(self, text: str) -> tuple[str, Counter[str]]:
        """The text with placeholders, and the number of replacements by kind."""
        found = self.find(text)
        return self._without(text, found), _counts(found)

    def _placeholder(self, kind: str) -> str | None:
        """What replaces a kind; None: it stays."""
        own = f"<{kind.upper()}>" if self._has_tagger and kind not in KINDS else None
        return self.placeholders.get(kind, own)

    def _without(self, text: str, found: Found) -> str:
        pieces, end = [], 0
        for start, stop, kind in found:
            pieces += [text[end:start], self._placeholder(kind) or ""]
            end = stop
        return "".join([*pieces, text[end:]])

    def find(self, text: str) -> Found:
        """Everything that is found, in order and without overlaps; checksums win over forms, and both over a model."""
        return self.find_all([text])[0]

    def find_all(self, texts: Sequence[str]) -> list[Found]:
        """`find` for each of some texts, which a model reads together."""
        tagged: Sequence[Found] = self._tagged(texts) if self._has_tagger else [[]] * len(texts)
        return [self._merged(text, spans) for text, spans in zip(texts, tagged)]

    def _merged(self, text: str, tagged: Found) -> Found:
        found: Found = []
        taken = bytearray(len(text))
        by_rule = self.engine != "tagger_alone" and _HINT.search(text)
        for start, stop, kind in (*(self._spans(text) if by_rule else ()), *tagged):
            if self._placeholder(kind) is not None and not any(taken[start:stop]):
                taken[start:stop] = b"\1" * (stop - start)
                found.append((start, stop, kind))
        return sorted(found)

    def _tagged(self, texts: Sequence[str]) -> list[Found]:
        """What the tagger finds in each text."""
        # without what models refuse, of the same length: NUL and lone surrogates
        plain = [_UNREADABLE.sub(" ", text) for text in texts]
        filled = [i for i, text in enumerate(plain) if text.strip()]
        found: list[Found] = [[] for _ in texts]
        for i, prediction in zip(filled, self._predict([plain[i] for i in filled])):
            if "spans" not in prediction:
                raise ValueError(
                    f"{self.model}: no tagger of spans; it predicts {', '.join(prediction)}"
                )
            for span in prediction["spans"]:
                if span["probability"] >= self.min_probability:
                    found[i].append((span["start"], span["end"], span["label"]))
        return found

    @functools.cached_property
    def _predict(self) -> Callable[[Sequence[str]], list[dict[str, Any]]]:
        # imported here: no other stage needs a model
        from jaxlm.run.load import load

        return load(self.model or "").predict

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
