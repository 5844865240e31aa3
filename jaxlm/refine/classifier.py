"""Documents that a classifier fine-tuned with jaxlm scores too low."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from datatrove.data import Document

from jaxlm.refine.rule import Drop, Rule

# characters that are tokenized: more than the tokens that any classifier reads
_MAX_CHARS = 50_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier(Rule):
    """Keeps documents that a model scores at or above a threshold; the score is metadata "quality_score".

    The model reads the beginning of a document, as many tokens as it was trained with.
    """

    name: ClassVar[str] = "classifier"
    source: ClassVar[str] = "FineWeb-Edu (2406.17557): a regression head, threshold 3"

    # the folder of a run of classification or regression, or one in the Hugging Face layout
    model: str
    # class whose probability is the score; None: the model is a regression, and its value is the score
    label: str | None = None
    threshold: float

    def check(self, document: Document) -> Drop | None:
        return self.check_batch([document])[0]

    def check_batch(self, documents: Sequence[Document]) -> list[Drop | None]:
        drops: list[Drop | None] = [None] * len(documents)
        texts = [_readable(document.text) for document in documents]
        filled = [i for i, text in enumerate(texts) if text]
        predictions = self._predict([texts[i] for i in filled]) if filled else []
        scores = {i: self._score(prediction) for i, prediction in zip(filled, predictions)}
        for i, document in enumerate(documents):
            if i not in scores:
                drops[i] = Drop("empty", 0, 1)
                continue
            document.metadata["quality_score"] = scores[i]
            if scores[i] < self.threshold:
                drops[i] = Drop("low_score", scores[i], self.threshold)
        return drops

    @functools.cached_property
    def _predict(self) -> Callable[[Sequence[str]], list[dict[str, Any]]]:
        # imported here: no other stage needs a model
        from jaxlm.run.load import load

        return load(self.model).predict

    def _score(self, prediction: Mapping[str, Any]) -> float:
        """The score of a prediction, rounded, so that it does not depend on the other documents of a batch.

        Raises:
            ValueError: the model has no such class, or `label` is missing or superfluous.
        """
        probabilities = prediction.get("probabilities")
        if isinstance(probabilities, dict):
            if self.label not in probabilities:
                raise ValueError(
                    f"{self.model}: set label to one of {', '.join(probabilities)}, not {self.label!r}"
                )
            return round(float(probabilities[self.label]), 4)
        if "value" not in prediction:
            raise ValueError(
                f"{self.model}: neither a classifier nor a regression; it predicts {', '.join(prediction)}"
            )
        if self.label is not None:
            raise ValueError(f"{self.model}: a regression has no class {self.label!r}; unset label")
        return round(float(prediction["value"]), 4)


def _readable(text: str) -> str:
    """The part of a text that is read, without what models refuse: NUL and lone surrogates."""
    return text[:_MAX_CHARS].replace("\0", " ").encode("utf-8", "replace").decode().strip()
