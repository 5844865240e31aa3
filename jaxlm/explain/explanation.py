"""Everything that is found out about a model's answer to one text, as one JSON value and one page."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config.disk import write_text
from jaxlm.explain import faithfulness, lens, methods, page, patching, reading, removal, terminal
from jaxlm.explain.faithfulness import Aopc
from jaxlm.explain.gradients import STEPS
from jaxlm.explain.latents import held
from jaxlm.explain.reading import Reading, Rows
from jaxlm.explain.subject import Subject, Text
from jaxlm.run.latents import TrainedVAE

# of a target that the model writes itself
MOST_TOKENS = 32
# answers in a table
TOP = 5
# attention weights in a page
MOST_WEIGHTS = 1 << 22
# methods of `explain` besides those of `methods.METHODS`
OTHERS = ("lens", "patching")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What was found out; everything in it is plain JSON."""

    values: dict[str, Any]
    # weights by stack: name -> [L, N, T, S]
    attention: dict[str, np.ndarray]

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the page, which needs no network, and beside it the values as JSON."""
        path = pathlib.Path(path)
        write_text(path, page.page(self.values, self.attention))
        write_text(path.with_suffix(".json"), self.json())

    def json(self) -> str:
        """The values and the attention weights as JSON."""
        weights = {name: np.round(a, 4).tolist() for name, a in self.attention.items()}
        return page.as_json(self.values | {"attention": weights})

    def __str__(self) -> str:
        return terminal.as_text(self.values)


def explain(
    subject: Subject,
    text: str,
    chosen: str | Sequence[str] = ("integrated_gradients",),
    *,
    pair: str | None = None,
    target: str | None = None,
    against: str | None = None,
    corrupt: str | None = None,
    place: str = patching.PLACE,
    steps: int = STEPS,
    seed: int = 0,
) -> Explanation:
    """Explains a model's answer to a text.

    Args:
        subject: from `load`.
        text: the text, prompt or source; of a masked language model with its mask where a token is to be predicted.
        chosen: names of methods: those of `methods.METHODS`, "lens", "patching".
        pair: second text, for a classifier of pairs.
        target: the answer to explain: a class, or a token (of a longer text the first one); of an encoder-decoder the
            whole target. Default: what the model answers.
        against: explain why the answer is not this one; default: any other.
        corrupt: for patching: a text with as many tokens that has another answer.
        place: for patching: whose activations are patched, see `nn.tap`.
        steps: points of integrated gradients.
        seed: of the random weights of the sanity check.

    Raises:
        ValueError: an unknown name, a text longer than the model, or a method that the model cannot have.
    """
    chosen = (chosen,) if isinstance(chosen, str) else chosen
    _check(subject, chosen, target, against, corrupt)
    _check_options(chosen, corrupt=corrupt, place=place, steps=steps)
    source = subject.read(text, pair)
    other = None if corrupt is None else _corrupted(subject, source, corrupt, pair)
    notes: list[str] = []
    if subject.reading.has_source:
        ids = _written(subject, source) if target is None else subject.read_target(target)
        rows = subject.rows([source] * len(ids), [ids[:i] for i in range(len(ids))])
        rows = dataclasses.replace(rows, answer=jnp.asarray(ids, jnp.int32))
        # a target token that was not written yet is nothing that the answer depends on
        target_pieces = [subject.tokenizer.piece(i) for i in (*subject.start, *ids[:-1])]
    else:
        rows, target_pieces = subject.rows([source]), []
        rows, notes = _with_answer(subject, rows, target, against)
    outputs = _outputs(subject.reading, subject.params, rows)
    if not np.isfinite(outputs[1]).all():
        raise ValueError(
            f"{subject.name} answers with numbers that are not finite: nothing explains it"
        )
    values: dict[str, Any] = {
        "model": subject.name,
        "text": text,
        "answers_with": subject.reading.kind,
        "score": _score_in_words(subject.reading, against),
        "tokens": [subject.tokenizer.piece(i) for i in source.ids],
        "target_tokens": target_pieces,
        "rows": _rows(subject, rows, *outputs),
        "notes": notes,
        "methods": {},
    }
    if other is not None:
        values["patching"] = _patching(subject, rows, other, place)
    known = [name for name in chosen if name in methods.METHODS]
    sizes = {"tokens": len(source.ids), "decoder_tokens": len(target_pieces)}
    if known:
        random = subject.randomized(seed).params
        left_out = methods.attribute("occlusion", subject.reading, subject.params, rows)
        for name in known:
            found = _method(subject, random, rows, name, left_out, sizes, steps)
            values["methods"][name] = found
            notes.extend(_doubts(name, found, steps))
    if "lens" in chosen:
        values["lens"] = _lens(subject, rows, source)
    weights = _weights(subject, rows, sizes)
    if sum(a.size for a in weights.values()) > MOST_WEIGHTS:
        notes.append(f"The attention weights are left out: more than {MOST_WEIGHTS:,}.")
        weights = {}
    return Explanation(values, weights)


def latents(vae: TrainedVAE, text: str, *, seed: int = 0) -> Explanation:
    """What the latent of a text VAE, from `run.latents.load`, holds of a text; see `latents.held`."""
    pieces, kl, gain = held(vae, text, seed=seed)
    found = {"tokens": pieces, "gain": gain.tolist(), "kl": kl.tolist()}
    return Explanation({"model": vae.run.folder.name, "text": text, "latents": found}, {})


def _check(
    subject: Subject, chosen: Sequence[str], target: Any, against: Any, corrupt: Any
) -> None:
    known = (*methods.METHODS, *OTHERS)
    for name in chosen:
        if name not in known:
            raise ValueError(f"no method {name!r}; there are {', '.join(known)}")
    if not chosen:
        raise ValueError(f"name at least one method: {', '.join(known)}")
    kind = subject.reading.kind
    if ("patching" in chosen) != (corrupt is not None):
        raise ValueError(
            "patching compares the text with a corrupted one: give both the method and corrupt"
        )
    if subject.reading.has_source and against is not None:
        raise ValueError("against is for one answer, and a target has several tokens")
    if kind == "number" and (target is not None or against is not None):
        raise ValueError(
            f"{subject.name} answers with a number: there is no other answer to ask for"
        )
    if kind == "labels" and against is not None:
        raise ValueError(
            f"the labels of {subject.name} do not exclude each other: leave out against"
        )


def _check_options(chosen: Sequence[str], *, corrupt: Any, place: str, steps: int) -> None:
    """Raises ValueError for an option of a method that is not chosen: it would have no effect."""
    if place != patching.PLACE and corrupt is None:
        raise ValueError(f"place={place} has no effect without patching and corrupt")
    if steps != STEPS and "integrated_gradients" not in chosen:
        raise ValueError(f"steps={steps} has no effect without integrated_gradients")


def _with_answer(
    subject: Subject, rows: Rows, target: str | None, against: str | None
) -> tuple[Rows, list[str]]:
    """The rows with the answer that is explained, and what is to be said about it."""
    notes = []
    if target is None:
        answer = answers(subject, rows)
    else:
        answer = jnp.full_like(rows.answer, subject.answer(target))
        if subject.is_language_model and (count := len(subject.read_target(target))) > 1:
            piece = subject.answer_name(int(answer[0]))
            notes.append(f"{target!r} has {count} tokens: the first, {piece!r}, is explained")
    other = rows.against
    if against is not None:
        other = jnp.full_like(other, subject.answer(against))
        if int(other[0]) == int(answer[0]):
            raise ValueError(f"against {against!r}: that is the answer itself")
    return dataclasses.replace(rows, answer=answer, against=other), notes


def answers(subject: Subject, rows: Rows) -> jax.Array:
    """The index of the model's own answer for each row."""
    logits, _ = _outputs(subject.reading, subject.params, rows)
    return logits.argmax(-1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def _outputs(read: Reading, params: Any, rows: Rows) -> tuple[jax.Array, jax.Array]:
    logits, _ = reading.outputs(read, params, rows)
    return logits, reading.score(read, logits, rows)


def _score_in_words(read: Reading, against: str | None) -> str:
    if read.kind == "number":
        return "the number"
    if read.kind == "labels":
        return "logit of the label: its log odds, in nats"
    if against is not None:
        return f"logit of the answer minus that of {against!r}, in nats"
    return "log odds of the answer, ln p / (1 - p), in nats"


def _rows(subject: Subject, rows: Rows, logits: Any, scores: Any) -> list[dict[str, Any]]:
    """What the model answers, for each question."""
    found = []
    probabilities = np.asarray(reading.probabilities(subject.reading, logits))
    for p, index, score in zip(probabilities, np.asarray(rows.answer).tolist(), scores):
        found.append(
            {
                "answer": subject.answer_name(index),
                "score": float(score),
                "probability": float(p[index]),
                "top": _top(subject, p),
            }
        )
    return found


def _top(subject: Subject, p: np.ndarray) -> list[dict[str, Any]]:
    best = np.argsort(-p, kind="stable")[:TOP]
    return [{"answer": subject.answer_name(int(i)), "probability": float(p[i])} for i in best]


def _written(subject: Subject, source: Text) -> list[int]:
    """The tokens that the model writes, each the most probable one, without the end token."""
    ids: list[int] = []
    room = subject.reading.model.config.max_len - len(subject.start)
    while len(ids) < min(MOST_TOKENS, room):
        # a row of one length, so that it is compiled once
        index = int(answers(subject, subject.rows([source], [ids]))[0])
        if index in subject.tokenizer.end_ids:
            break
        ids.append(index)
    if not ids:
        raise ValueError(f"{subject.name} writes nothing for this text: give a target")
    return ids


# ---- attributions with their metrics


def _method(
    subject: Subject,
    random: Any,
    rows: Rows,
    name: str,
    left_out: methods.Found,
    sizes: dict[str, int],
    steps: int,
) -> dict[str, Any]:
    """The attributions of a method, cut to the tokens, and its metrics."""
    read, params = subject.reading, subject.params
    found = methods.attribute(name, read, params, rows, steps=steps)
    own = {k: np.asarray(a) for k, a in found.attributions.items()}
    out: dict[str, Any] = {k: a[:, : sizes[k]].tolist() for k, a in own.items()}
    if found.error is not None:
        out["completeness_error"] = np.asarray(found.error).tolist()
    free = np.asarray(rows.free["tokens"])
    unlearnt = methods.attribute(name, read, random, rows, steps=steps)
    curve = faithful(read, params, rows, found.attributions["tokens"])
    compare = lambda other: faithfulness.agreement(
        own["tokens"], np.asarray(other.attributions["tokens"]), free
    )
    return out | {
        "comprehensiveness": np.asarray(curve.comprehensiveness).tolist(),
        "sufficiency": np.asarray(curve.sufficiency).tolist(),
        "tau_leave_one_out": _plain(compare(left_out)),
        "tau_random_weights": _plain(compare(unlearnt)),
    }


def _doubts(name: str, found: dict[str, Any], steps: int) -> list[str]:
    """What is to be said if attributions do not add up to what they promise: more than a tenth is missing."""
    if "completeness_error" not in found:
        return []
    totals = sum(np.sum(found[k], axis=1) for k in ("tokens", "decoder_tokens") if k in found)
    errors = np.array(found["completeness_error"])
    if not (errors > 0.1 * np.abs(totals)).any():
        return []
    worst = int(errors.argmax())
    return [
        f"{name} with {steps} steps: the sum is {totals[worst]:+.3f} and misses the difference of the scores by "
        f"{errors[worst]:.3f}; take more steps, or do not trust it."
    ]


def _plain(x: np.ndarray) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if math.isnan(v) else float(v) for v in x]


@functools.partial(jax.jit, static_argnums=0)
def faithful(read: Reading, params: Any, rows: Rows, attributions: jax.Array) -> Aopc:
    """See `faithfulness.aopc`: for the tokens of the text, of an encoder-decoder those of the source."""
    x, nothing = reading.embed(read, params, rows), reading.absent(read, params, rows)

    def probability(removed: jax.Array) -> jax.Array:
        gone = {name: jnp.zeros_like(free) for name, free in rows.free.items()}
        logits, _ = reading.outputs(
            read, params, rows, removal.without(x, nothing, gone | {"tokens": removed})
        )
        return reading.probability(read, logits, rows)

    return faithfulness.aopc(probability, attributions, rows.free["tokens"])


# ---- the inside: lens, patching, attention weights


def _lens(subject: Subject, rows: Rows, source: Text) -> dict[str, Any]:
    """The most probable answers after each layer; of a language model at each token."""
    columns = ["answer"]
    if subject.reading.kind in ("next token", "masked token"):
        count = len(source.ids)
        rows = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), rows)
        at = jnp.eye(rows.read_at.shape[1])[:count]
        rows = dataclasses.replace(rows, read_at=at)
        columns = [subject.tokenizer.piece(i) for i in source.ids]
    elif subject.reading.has_source:
        columns = [subject.answer_name(int(i)) for i in rows.answer]
    indices, p, ranks = lens.lens_top(subject.reading, subject.params, rows, TOP)
    layers = []
    for by_layer in zip(*(np.asarray(x).tolist() for x in (indices, p, ranks))):
        layers.append(
            [
                {
                    "top": [
                        {"answer": subject.answer_name(i), "probability": q}
                        for i, q in zip(best, probabilities)
                    ],
                    "rank": rank,
                }
                for best, probabilities, rank in zip(*by_layer)
            ]
        )
    return {"columns": columns, "layers": layers}


def _corrupted(subject: Subject, source: Text, corrupt: str, pair: str | None) -> Text:
    other = subject.read(corrupt, pair)
    if len(other.ids) != len(source.ids):
        raise ValueError(
            f"the corrupted text has {len(other.ids)} tokens and the text {len(source.ids)}: patching puts the "
            "activations of one at the same positions of the other"
        )
    return other


def _patching(subject: Subject, rows: Rows, other: Text, place: str) -> dict[str, Any]:
    if subject.reading.has_source and place.startswith("decoder."):
        raise ValueError(f"place={place}: the corrupted text is a source, which the encoder reads")
    count = len(rows.answer)
    ruined = subject.rows([other] * count, [()] * count)
    # the same target
    inputs = {**rows.inputs, "tokens": ruined.inputs["tokens"]}
    ruined = dataclasses.replace(rows, inputs=inputs)
    found = patching.patch_grid(subject.reading, subject.params, rows, ruined, place)
    if not abs(float(found.clean - found.corrupt)) > 1e-6:
        raise ValueError(
            f"text and corrupted text have the same score, {float(found.clean):.3f}: nothing is to be restored"
        )
    count = len(other.ids)
    return {
        "place": place.removeprefix("encoder."),
        "corrupt_tokens": [subject.tokenizer.piece(i) for i in other.ids],
        "clean_score": float(found.clean),
        "corrupt_score": float(found.corrupt),
        "scores": np.asarray(found.patched)[:, :count].tolist(),
        "restored": np.asarray(found.restored)[:, :count].tolist(),
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _captured(read: Reading, names: tuple[str, ...], params: Any, rows: Rows) -> Any:
    return reading.outputs(read, params, rows, capture=names)[1]


def _weights(subject: Subject, rows: Rows, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Attention weights of the last row's text, without padding."""
    text, target = sizes.values()
    lengths = {"attention": (text, text)}
    if subject.reading.has_source:
        lengths = {
            "encoder.attention": (text, text),
            "decoder.attention": (target, target),
            "decoder.cross_attention": (target, text),
        }
    elif subject.reading.stack:
        lengths = {"encoder.attention": (text, text)}
    last = jax.tree.map(lambda x: x[-1:], rows)
    seen = _captured(subject.reading, tuple(lengths), subject.params, last)
    return {n: np.asarray(seen[n])[:, 0, :, :t, :s] for n, (t, s) in lengths.items()}
