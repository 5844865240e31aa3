"""A rule whose conventions and thresholds depend on the language of a document."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Self

from datatrove.data import Document

from jaxlm.refine import languages
from jaxlm.refine.default_thresholds import THRESHOLDS
from jaxlm.refine.languages import Conventions
from jaxlm.refine.rule import Drop, Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageRule(Rule):
    """A rule whose conventions and thresholds depend on the language.

    Args:
        language: of documents without `metadata["language"]`.
        by_language: the language of a document chooses conventions, and those thresholds that are left at their
            defaults. False: `language` and the thresholds hold for every document as they stand.
        thresholds: language -> field -> value, from `jaxlm refine thresholds`; they win over the fields.
    """

    language: str = "en"
    by_language: bool = True
    thresholds: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict, hash=False
    )

    def __post_init__(self) -> None:
        names = {field.name for field in dataclasses.fields(self)}
        for language, values in self.thresholds.items():
            if unknown := set(values) - names:
                raise ValueError(
                    f"thresholds[{language!r}] of {self.name}: no fields {sorted(unknown)}; "
                    f"there are {sorted(names)}"
                )

    @functools.cached_property
    def conventions(self) -> Conventions:
        return languages.conventions(self.language)

    def check(self, document: Document) -> Drop | None:
        language = document.metadata.get("language") if self.by_language else None
        rule = self.adapted(language if isinstance(language, str) else self.language)
        return rule.judge(document)

    def adapted(self, language: str) -> Self:
        """The rule for documents of one language."""
        if not self.by_language:
            return self
        language = languages.code(language)
        if language not in languages.CONVENTIONS and language not in self.thresholds:
            language = "unknown"
        if language not in self._adapted:
            given = THRESHOLDS.get(language, {}).get(self.name, {})
            defaults = {field.name: field.default for field in dataclasses.fields(self)}
            values = {k: v for k, v in given.items() if getattr(self, k) == defaults[k]}
            values |= self.thresholds.get(language, {})
            # JSON has no tuples
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            self._adapted[language] = dataclasses.replace(
                self, language=language, by_language=False, **values
            )
        return self._adapted[language]

    @functools.cached_property
    def _adapted(self) -> dict[str, Self]:
        return {}

    def judge(self, document: Document) -> Drop | None:
        """`check` by this rule's own language: the first measure beyond its threshold."""
        if not document.text:
            return Drop("empty", 0, 1)
        for field, value in self.measures(document.text):
            threshold = getattr(self, field)
            if threshold is None:
                continue
            if value < threshold if field.startswith("min_") else value > threshold:
                return Drop(field, value, threshold)
        return None

    def measures(self, text: str) -> Iterator[tuple[str, float]]:
        """Fields, in the order in which they are checked, with what the text has; lazily."""
        raise NotImplementedError
