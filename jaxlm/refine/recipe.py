"""Recipes: which stages pages go through, in which order, with which thresholds."""

from __future__ import annotations

import dataclasses
import pathlib

from jaxlm.config.json_text import read_object
from jaxlm.refine import thresholds as tables
from jaxlm.refine.c4 import C4
from jaxlm.refine.classifier import Classifier
from jaxlm.refine.decontamination import Decontamination
from jaxlm.refine.duplicate_urls import DuplicateUrls
from jaxlm.refine.extraction import Extraction
from jaxlm.refine.fineweb import FineWeb
from jaxlm.refine.language_id import LanguageId
from jaxlm.refine.language_rule import LanguageRule
from jaxlm.refine.lines import Lines
from jaxlm.refine.near_duplicates import NearDuplicates
from jaxlm.refine.personal_data import PersonalData
from jaxlm.refine.quality import Quality
from jaxlm.refine.repetition import Repetition
from jaxlm.refine.rule import Rule
from jaxlm.refine.substrings import Substrings
from jaxlm.refine.urls import CURATED, Urls

# stages that look at the whole corpus
Corpus = NearDuplicates | Substrings | DuplicateUrls


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Stages in the order of the fields; None leaves one out.

    Args:
        urls: block-list and words of URLs.
        extraction: text from HTML; documents that are text pass.
        language: identifies the language and keeps those that are wanted.
        repetition: Gopher's rules against repetition.
        quality: Gopher's rules of quality.
        lines: line-wise corrections of RefinedWeb.
        c4: rules of C4.
        fineweb: rules of FineWeb.
        more: stages of your own.
        near_duplicates: fuzzy deduplication by MinHash.
        substrings: exact-substring deduplication.
        duplicate_urls: one document for each URL.
        personal_data: replaces e-mail addresses, phone numbers, and the like.
        decontamination: drops documents that share text with evaluation data.
        classifier: keeps what a classifier that was fine-tuned with jaxlm likes.
        thresholds: JSON file of `jaxlm refine thresholds`, for languages other than English.
        skip: stages to leave out, by name.
    """

    urls: Urls | None = None
    extraction: Extraction | None = Extraction()
    language: LanguageId | None = None
    repetition: Repetition | None = None
    quality: Quality | None = None
    lines: Lines | None = None
    c4: C4 | None = None
    fineweb: FineWeb | None = None
    more: tuple[Rule, ...] = ()
    near_duplicates: NearDuplicates | None = None
    substrings: Substrings | None = None
    duplicate_urls: DuplicateUrls | None = None
    personal_data: PersonalData | None = None
    decontamination: Decontamination | None = None
    classifier: Classifier | None = None
    thresholds: pathlib.Path | None = None
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [name for name in _FIELDS if name not in ("thresholds", "skip")]
        for name in self.skip:
            if name not in names:
                raise ValueError(f"skip={name!r}: no such stage; there are {', '.join(names)}")
        for rule in self.more:
            if not isinstance(rule, Rule):
                raise ValueError(f"more: {rule!r} is not a jaxlm.refine.rule.Rule")
            if not all(isinstance(getattr(rule, n, None), str) for n in ("name", "source")):
                raise ValueError(f"more: {type(rule).__name__} needs a `name` and a `source`")

    def read_thresholds(self) -> tables.Thresholds:
        """The contents of the file of thresholds; nothing without one."""
        if self.thresholds is None:
            return {}
        table = read_object(self.thresholds)
        for language, stages in table.items():
            if not isinstance(stages, dict):
                raise ValueError(f"{self.thresholds}: not a file of `jaxlm refine thresholds`")
            for stage, values in stages.items():
                if stage not in _BY_LANGUAGE or not isinstance(values, dict):
                    raise ValueError(
                        f"{self.thresholds}: {language}.{stage}: no stage with thresholds by language; there are "
                        f"{', '.join(_BY_LANGUAGE)}"
                    )
                for field, value in values.items():
                    if not isinstance(value, float | int | list | None) and field != "alphabetic":
                        raise ValueError(
                            f"{self.thresholds}: {language}.{stage}.{field}: {value!r} is not a number"
                        )
        return table

    def stages(self) -> list[Rule | Corpus]:
        """The stages that are used, in order; those that depend on the language choose its thresholds."""
        table = self.read_thresholds()
        result: list[Rule | Corpus] = []
        for name in _FIELDS:
            value = getattr(self, name)
            if name in self.skip or name in ("thresholds", "skip") or value is None:
                continue
            for stage in value if name == "more" else (value,):
                if table and isinstance(stage, LanguageRule):
                    stage = tables.with_thresholds(stage, table)
                result.append(stage)
        return result


_BY_LANGUAGE = ("repetition", "quality", "lines", "c4", "fineweb")
_FIELDS = [field.name for field in dataclasses.fields(Recipe)]


def refinedweb() -> Recipe:
    """RefinedWeb (Penedo et al. 2023, 2306.01116, figure 2 and appendix G)."""
    return Recipe(
        urls=Urls(sources=CURATED),
        extraction=Extraction(),
        language=LanguageId(),
        repetition=Repetition(),
        quality=Quality(),
        lines=Lines(),
        near_duplicates=NearDuplicates(buckets=450, hashes=20),
        substrings=Substrings(),
        duplicate_urls=DuplicateUrls(),
    )


def fineweb() -> Recipe:
    """FineWeb (Penedo et al. 2024, 2406.17557, section 3); give it one dump at a time, as they do."""
    return Recipe(
        urls=Urls(),
        extraction=Extraction(),
        language=LanguageId(),
        repetition=Repetition(),
        quality=Quality(),
        c4=C4(terminal_punctuation=False),
        fineweb=FineWeb(),
        near_duplicates=NearDuplicates(),
        personal_data=PersonalData(),
    )


RECIPES = {"refinedweb": refinedweb, "fineweb": fineweb}
# stages that need no settings
ADDABLE: dict[str, type] = {
    "urls": Urls,
    "language": LanguageId,
    "repetition": Repetition,
    "quality": Quality,
    "lines": Lines,
    "c4": C4,
    "fineweb": FineWeb,
    "near_duplicates": NearDuplicates,
    "substrings": Substrings,
    "duplicate_urls": DuplicateUrls,
    "personal_data": PersonalData,
}
