"""A model to explain: a run, a folder in the Hugging Face layout or a .gguf file, and its texts as rows of a question.

Letters: B rows, T positions.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import sharding
from jaxlm.config import ComputeConfig, DecoderConfig, MeshConfig
from jaxlm.data import frames
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.explain.reading import LANGUAGE_MODELS, Kind, Reading, Rows
from jaxlm.models import lora
from jaxlm.models.heads import CausalLM, Classifier, MaskedLM, Seq2SeqLM, init_params
from jaxlm.run import adapters, restore
from jaxlm.run.folder import Step
from jaxlm.tasks.downstream.multi_label import MultiLabelConfig
from jaxlm.tasks.downstream.regression import RegressionConfig
from jaxlm.tasks.downstream.texts import hint
from jaxlm.tasks.pretraining.decoder import bos_before

_KINDS: dict[type, Kind] = {
    CausalLM: "next token",
    MaskedLM: "masked token",
    Seq2SeqLM: "target token",
}
# rows have one of few lengths, so that little is compiled
_SHORTEST = 16


class Text(NamedTuple):
    """A text as the model reads it."""

    ids: list[int]
    # tokens of the text itself; the others are control tokens
    free: list[bool]
    # 1 for the second text of a pair
    types: list[int]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model with its tokenizer, and how its texts are framed."""

    name: str
    reading: Reading
    params: Any
    tokenizer: Tokenizer
    # classes or labels; empty: tokens of the vocabulary
    classes: tuple[str, ...]
    # control tokens around a text, and around the texts of a pair
    frame: frames.Frame
    # text before every source or prompt
    prefix: str = ""
    # tokens that a target begins with
    start: tuple[int, ...] = ()
    reads_both_ways: bool = False
    # of a run: whether it was trained on pairs of texts; None: not known
    reads_pairs: bool | None = None

    @property
    def is_language_model(self) -> bool:
        """Whether its answers are tokens."""
        return self.reading.kind in LANGUAGE_MODELS

    def randomized(self, seed: int = 0) -> Subject:
        """The same model with random weights, for the sanity check (Adebayo et al. 2018, 1810.03292): a
        method whose attributions stay the same does not depend on what the model has learnt."""
        params = _random(self.reading.model, jax.random.key(seed))
        return dataclasses.replace(self, params=params)

    def read(self, text: str, pair: str | None = None) -> Text:
        """A text with its control tokens; in a masked language model the mask is written as its name.

        Raises:
            ValueError: the text is empty or longer than the model, or the model reads no pairs, or nothing else.
        """
        reads_pairs = False if self.is_language_model else self.reads_pairs
        if reads_pairs is False and pair is not None:
            raise ValueError(f"{self.name} reads one text, not a pair")
        if reads_pairs and pair is None:
            raise ValueError(f"{self.name} reads pairs of texts: give the second one as pair")
        first = self._encode(self.prefix + text)
        if pair is None:
            parts = [(self.frame.before, 0), (first, 0), (self.frame.after, 0)]
        else:
            before, between, after = self.frame.pair
            second = self._encode(pair)
            if not second:
                raise ValueError(f"the second text {pair!r} has no tokens")
            parts = [(before, 0), (first, 0), (between, 0), (second, 1), (after, 1)]
        ids = [i for part, _ in parts for i in part]
        if not first:
            raise ValueError(f"the text {text!r} has no tokens")
        self._check(len(ids), "the text")
        is_text = [k % 2 == 1 for k, (part, _) in enumerate(parts) for _ in part]
        free = [own and i != self.tokenizer.mask_id for own, i in zip(is_text, ids)]
        return Text(ids, free, [kind for part, kind in parts for _ in part])

    def read_target(self, text: str) -> list[int]:
        """The ids of a target without the tokens that it begins with."""
        ids = [int(i) for i in self.tokenizer.encode(text)]
        if not ids:
            raise ValueError(f"the target {text!r} has no tokens")
        self._check(len(ids) + len(self.start), "the target")
        return ids

    def answer(self, name: str) -> int:
        """The index of an answer: a class, or a token; of a text with several tokens the first.

        Raises:
            ValueError: there is no such class, or the text has no tokens.
        """
        if not self.is_language_model:
            if name not in self.classes:
                raise ValueError(f"no class {name!r}; {hint(name, self.classes)}")
            return self.classes.index(name)
        return self.read_target(name)[0]

    def answer_name(self, index: int) -> str:
        """A class, or the text of a token."""
        return self.tokenizer.piece(index) if self.is_language_model else self.classes[index]

    def rows(self, texts: Sequence[Text], targets: Sequence[Sequence[int]] = ()) -> Rows:
        """Rows of texts with padding, read where the model answers; the answers are still to be set.

        Args:
            texts: from `read`.
            targets: of an encoder-decoder: the tokens of each target so far, without those that it begins with.
        """
        tokens, valid = self._padded([text.ids for text in texts])
        free, _ = self._padded([text.free for text in texts])
        inputs = {"tokens": tokens, "segment_ids": valid}
        config = self.reading.model.config
        if getattr(config, "num_token_types", 0) > 1 and not self.is_language_model:
            inputs["token_types"] = self._padded([text.types for text in texts])[0]
        if self.reads_both_ways:
            inputs["prefix"] = valid > 0
        given = {"tokens": free > 0}
        if self.reading.has_source:
            begun = [[*self.start, *target] for target in targets]
            inputs["decoder_tokens"], valid = self._padded(begun)
            inputs["decoder_segment_ids"] = valid
            is_start = np.arange(valid.shape[1]) < len(self.start)
            given["decoder_tokens"] = (valid > 0) & ~is_start
        nothing = np.zeros(len(texts), np.int32)
        at = self._read_at(tokens, valid)
        return Rows(*jax.tree.map(jnp.asarray, (inputs, given, at, nothing, nothing - 1)))

    def _read_at(self, tokens: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """The weight of each position in what the answer is read from."""
        kind, place = self.reading.kind, np.arange(valid.shape[1])
        pooling = "last" if self.is_language_model else self.reading.model.pooling
        if kind == "masked token":
            at = (tokens == self.tokenizer.mask_id).argmax(1)
        elif pooling == "mean":
            return (valid / valid.sum(1, keepdims=True)).astype(np.float32)
        else:
            at = (valid * place).max(1) if pooling == "last" else np.zeros(len(valid), int)
        return (place == at[:, None]).astype(np.float32)

    def _encode(self, text: str) -> list[int]:
        """The ids of a text; of a masked language model with exactly one mask."""
        t = self.tokenizer
        if self.reading.kind != "masked token":
            return [int(i) for i in t.encode(text)]
        name = t.role_names["mask"]
        parts = text.split(name)
        if len(parts) != 2:
            raise ValueError(
                f"{self.name} is a masked language model: write {name} once, where it is to predict a token; the text "
                f"has it {len(parts) - 1} times"
            )
        before, after = parts
        assert t.mask_id is not None
        return [*map(int, t.encode(before.rstrip())), t.mask_id, *map(int, t.encode(after))]

    def _check(self, length: int, what: str) -> None:
        most = self.reading.model.config.max_len
        if length > most:
            raise ValueError(
                f"{what} has {length:,} tokens, control tokens included, and {self.name} reads {most:,}: cut it"
            )

    def _padded(self, rows: Sequence[Sequence[Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Rows [B, T] filled up with zeros, and 1 where they are given."""
        size, longest = _SHORTEST, max(map(len, rows))
        while size < longest:
            # 16, 24, 32, 48, 64, ...
            size = size * 4 // 3 if size % 3 == 0 else size * 3 // 2
        size = max(min(size, self.reading.model.config.max_len), longest)
        out, valid = np.zeros((2, len(rows), size), np.int32)
        for i, row in enumerate(rows):
            out[i, : len(row)], valid[i, : len(row)] = row, 1
        return out, valid


@functools.partial(jax.jit, static_argnums=0)
def _random(model: Any, key: jax.Array) -> Any:
    return init_params(model, key)


def load(path: str | os.PathLike, *, task: str | None = None, step: Step = None) -> Subject:
    """The model of a run, a folder in the Hugging Face layout, or a .gguf file, on one device, in float32.

    Args:
        path: folder or file, or `hub:owner/name`.
        task: name of the task, for a model that fits several.
        step: of a run's checkpoint, or "best"; default: the newest.

    Raises:
        ValueError: there is no such model, or it is none that can be explained.
    """
    mesh = sharding.make_mesh(MeshConfig(), jax.local_devices()[:1])
    found = restore.find(path, task=task, step=step, mesh=mesh)
    task_, tokenizer = found.task, found.task.tokenizer
    kind = _kind(task_.model, task_.settings)
    if kind is None:
        name = type(task_.model).__name__
        hint = ": of a text VAE there is the method latents" if name == "TextVAE" else ""
        raise ValueError(
            f"{path}: attributions are for classifiers and language models, not for {name}{hint}"
        )
    run = found.load("predict")
    compute = ComputeConfig(dtype="float32", attention="xla")
    model = task_.model.clone(compute=compute)
    frame = _frame(task_, kind)
    is_encoder = not isinstance(model.config, DecoderConfig)
    return Subject(
        name=found.folder.name,
        reading=Reading(
            model,
            kind,
            tokenizer.mask_id if is_encoder else None,
            tokenizer.vocab_size if kind in LANGUAGE_MODELS else None,
        ),
        params=adapters.merge(run.params, lora.without(run.params)),
        tokenizer=tokenizer,
        classes=_classes(task_, kind),
        frame=frame,
        prefix=task_.prefix,
        start=_some(tokenizer.start_id) if kind == "target token" else (),
        reads_both_ways=task_.reads_prompts_both_ways,
        reads_pairs="pair" in type(task_).columns(found.config, "predict")
        if found.is_run
        else None,
    )


def _kind(model: Any, settings: Any) -> Kind | None:
    """What a model answers; None: nothing that is explained here."""
    if type(model) is not Classifier:
        return _KINDS.get(type(model))
    if isinstance(settings, RegressionConfig):
        return "number"
    return "labels" if isinstance(settings, MultiLabelConfig) else "classes"


def _frame(task: Any, kind: Kind) -> frames.Frame:
    """The control tokens around texts, as the model was trained with them."""
    tokenizer, edges = task.tokenizer, task.prompt_edges()
    if edges is not None:
        return frames.Frame(*edges)
    own = tokenizer.frame
    if kind == "next token":
        return frames.Frame(own.before if own else _some(bos_before(tokenizer)))
    if kind == "target token" and own is None:
        return frames.Frame((), _some(tokenizer.eos_id))
    return frames.of_rows(tokenizer)


def _classes(task: Any, kind: Kind) -> tuple[str, ...]:
    if kind in LANGUAGE_MODELS:
        return ()
    return ("number",) if kind == "number" else tuple(task.labels)


def _some(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)
