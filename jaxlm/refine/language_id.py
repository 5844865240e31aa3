"""The language of a document, by an identifier that needs no network, and the documents that are in another one."""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import ClassVar

from datatrove.data import Document
from datatrove.utils._import_utils import ASSETS_PATH

from jaxlm.refine.rule import Drop, Rule

# code of a text without a language, such as numbers
UNKNOWN = "und"
FASTTEXT = "fasttext:"
BACKENDS = ("pycld2", "py3langid", f"{FASTTEXT}PATH")
# characters that are looked at; a longer document is rarely of another language further on
_MAX_CHARS = {"pycld2": 200_000, "py3langid": 1_000, "fasttext": 20_000}
# CLD2 refuses control characters, and no backend takes lone surrogates; they, and noncharacters, carry no language
_REFUSED = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_LETTER = re.compile(r"[^\W\d_]")
# codes of CLD2 and older standards
_OTHER_CODES = {"iw": "he", "jw": "jv", "in": "id", "ji": "yi", "un": UNKNOWN, "zxx": UNKNOWN}

# text -> code, and score between 0 and 1
_Detect = Callable[[str], tuple[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageId(Rule):
    """Keeps documents in some languages; sets metadata "language" and "language_score".

    A language is an ISO 639-1 code such as "en" or "zh" (Chinese in any script), or 639-3 if it has none.
    The score is the backend's own and does not mean the same for each:

    - pycld2: the fraction of the text that is in the language; 0 if CLD2 calls its answer unreliable.
    - py3langid: a probability, after the first 1,000 characters. It is close to 1 for nearly every text, right or
      wrong, so that a threshold has little effect; choose this backend for its languages, not for its score.
    - fasttext:PATH: the probability of the model at that path, such as lid.176.bin, which is what RefinedWeb and
      FineWeb mean by 0.65 (needs the package fasttext-predict or fasttext).
    """

    name: ClassVar[str] = "language"
    source: ClassVar[str] = (
        "RefinedWeb (2306.01116), section 3.1; thresholds by language: FineWeb2 (2506.20920)"
    )

    backend: str = "pycld2"
    # languages that are kept; none: all, which only sets the metadata
    keep: tuple[str, ...] = ("en",)
    # documents whose score is lower are dropped
    min_score: float = 0.65
    # language -> threshold instead of `min_score`
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.backend not in BACKENDS[:2] and not self.backend.removeprefix(FASTTEXT).strip():
            raise ValueError(
                "backend='fasttext:' lacks the path of a model: fasttext:/path/lid.176.bin"
            )
        if self.backend not in BACKENDS[:2] and not self.backend.startswith(FASTTEXT):
            raise ValueError(f"backend={self.backend!r} is not one of {', '.join(BACKENDS)}")
        if isinstance(self.keep, str):
            raise ValueError(f"keep={self.keep!r} must be a tuple of codes: ({self.keep!r},)")
        for field, score in (("min_score", self.min_score), *self.scores.items()):
            if not 0 <= score <= 1:
                raise ValueError(f"threshold {field}={score} must be between 0 and 1")
        for language in (*self.keep, *self.scores):
            if language != (code := _code(language)):
                raise ValueError(f"language {language!r}: write {code!r}")
            if not re.fullmatch("[a-z]{2,3}", language):
                raise ValueError(f"language {language!r}: write a code of ISO 639 such as 'en'")

    def check(self, document: Document) -> Drop | None:
        language, score = self.detect(document.text)
        document.metadata["language"] = language
        document.metadata["language_score"] = round(score, 4)
        if self.keep and language not in self.keep:
            return Drop("other_language", language, " ".join(self.keep))
        threshold = self.scores.get(language, self.min_score)
        if self.keep and score < threshold:
            return Drop("low_score", round(score, 4), threshold)
        return None

    def detect(self, text: str) -> tuple[str, float]:
        """The language of a text and its score; `UNKNOWN` and 0 for a text without letters."""
        kind = self.backend.partition(":")[0]
        part = _REFUSED.sub(" ", text[: _MAX_CHARS[kind]])
        if not _LETTER.search(part):
            return UNKNOWN, 0.0
        language, score = self._detect(part)
        return _code(language), min(max(score, 0.0), 1.0)

    @functools.cached_property
    def _detect(self) -> _Detect:
        if self.backend == "pycld2":
            return _pycld2
        if self.backend == "py3langid":
            return _py3langid()
        return _fasttext(self.backend.removeprefix(FASTTEXT))


@functools.cache
def _code(label: str) -> str:
    """The ISO code of a backend's label: "zh" for zh-Hant, __label__zh and cmn_Hani."""
    code = re.split("[-_]", label.removeprefix("__label__"))[0]
    code = _OTHER_CODES.get(code, code)
    return _short_codes().get(code, code) if len(code) == 3 else code


@functools.cache
def _short_codes() -> Mapping[str, str]:
    """ISO 639-3 -> 639-1, from the table that datatrove assigns tokenizers by."""
    table = pathlib.Path(ASSETS_PATH) / "tokenizer_assignment.csv"
    with open(table, encoding="utf-8", newline="") as file:
        return {row["code_3"]: row["code_1"] for row in csv.DictReader(file) if row["code_1"]}


def _pycld2(text: str) -> tuple[str, float]:
    import pycld2

    try:
        reliable, _, found = pycld2.detect(text)
    except pycld2.error:
        # another character that CLD2 refuses, such as a noncharacter outside the basic plane
        printable = "".join(c if c.isprintable() else " " for c in text)
        try:
            reliable, _, found = pycld2.detect(printable)
        except pycld2.error:
            return UNKNOWN, 0.0
    _, code, percent, _ = found[0]
    return code, percent / 100 if reliable else 0.0


def _py3langid() -> _Detect:
    from py3langid import langid

    found = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)

    def detect(text: str) -> tuple[str, float]:
        code, probability = found.classify(text)
        return code, float(probability)

    return detect


def _fasttext(path: str) -> _Detect:
    try:
        import fasttext
    except ImportError:
        raise ValueError(
            f"backend={FASTTEXT}{path} needs the package fasttext-predict: pip install fasttext-predict"
        ) from None
    if not os.path.isfile(path):
        raise ValueError(f"backend={FASTTEXT}{path}: no such file; name a fastText model")
    try:
        model = fasttext.load_model(path)
    except (ValueError, RuntimeError) as e:
        raise ValueError(f"{path}: cannot be read as a fastText model: {e}") from e

    def detect(text: str) -> tuple[str, float]:
        # `model.predict` of fasttext 0.9 fails under numpy 2; one line, as the models were trained
        found = model.f.predict(" ".join(text.split()) + "\n", 1, 0.0, "replace")
        if not found:
            return UNKNOWN, 0.0
        probability, label = found[0]
        return label, float(probability)

    return detect
