"""The interface of a stage that looks at one document at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from datatrove.data import Document


@dataclasses.dataclass(frozen=True, slots=True)
class Drop:
    """Why a document is dropped.

    Args:
        rule: name within the stage, such as `stop_words`.
        value: what the document has.
        threshold: what the rule asks for.
    """

    rule: str
    value: float | str
    threshold: float | str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """A stage; its fields are its thresholds.

    `check` may change the text and the metadata of a document that it keeps. A rule is pickled to workers: what is
    expensive to make is a `functools.cached_property`, made where it is first used.
    """

    # stage in accounts and reports
    name: ClassVar[str]
    # paper and section
    source: ClassVar[str]

    def check(self, document: Document) -> Drop | None:
        """None: the document is kept."""
        raise NotImplementedError

    def check_batch(self, documents: Sequence[Document]) -> list[Drop | None]:
        """`check` for several documents, for what is faster in batches."""
        return [self.check(document) for document in documents]

    def for_task(self, task: int) -> Rule:
        """The rule for the documents of one task, where it depends on what was found about each of them."""
        del task
        return self

    def __getstate__(self) -> dict[str, Any]:
        # models, maps, automata and processes are made anew in each worker
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def close(self) -> None:
        """Ends processes that the rule started."""
