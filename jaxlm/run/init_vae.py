"""The starting point of a text VAE with a pretrained encoder or decoder, of runs or in the Hugging Face layout.

Architecture and tokenizer of such a side are those of its source. What a source does not have is random: in a language
model cross-attention to the latent, and what stands between encoder and decoder, unless the source is a text VAE with a
latent of the same width (Optimus, Li et al. 2020, 2004.04092).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from flax import traverse_util

from jaxlm import hf
from jaxlm.checkpoint import store
from jaxlm.config import DecoderConfig, EncoderConfig, TokenizerConfig, TrainConfig, VAEConfig
from jaxlm.data.tokenizer import Tokenizer, TwoTokenizers
from jaxlm.hf import loading
from jaxlm.remote import mirror
from jaxlm.run import adapters, init_from
from jaxlm.run import folder as run_folder
from jaxlm.run.init_from import Start
from jaxlm.tasks import Task, task_class

# by side: the class of its architecture, what to call it, and the parameters of the head that belong to it
_SIDES: dict[str, tuple[type, str, tuple[str, ...]]] = {
    "encoder": (EncoderConfig, "an encoder", ("head/posterior/", "head/pseudo_inputs")),
    "decoder": (
        DecoderConfig,
        "a decoder",
        ("head/memory/", "head/embedding/", "head/prefix/", "head/unembedding"),
    ),
}
# fields of an architecture that do not change its parameters: a config may set them anew
_FREE = ("vocab_size", "dropout", "attention_dropout")

# parameters by name, without those that the source lacks
Flat = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Source:
    """A model for one side."""

    folder: pathlib.Path
    model: EncoderConfig | DecoderConfig
    tokenizer: Tokenizer
    # takes abstract parameters of the VAE by name, those of this side
    load: Callable[[Flat], Flat]
    # None: it is not a text VAE
    vae: VAEConfig | None = None


def find(config: TrainConfig, tasks: Sequence[type[Task]] = ()) -> Start | None:
    """What `init_encoder` and `init_decoder` name; None: both sides are random.

    Raises:
        ValueError: there is no such model, or it does not fit the config.
    """
    names = {"encoder": config.init_encoder, "decoder": config.init_decoder}
    sources = {side: _find(side, name, tasks) for side, name in names.items() if name is not None}
    if not sources:
        return None
    assert isinstance(config.model, VAEConfig), "checked by TrainConfig"
    flags = " and ".join(f"--init-{side}" for side in sources)
    if config.data.tokenizer != TokenizerConfig():
        raise ValueError(
            f"data.tokenizer has no effect with {flags}, which brings its own tokenizer: leave it unset"
        )
    if "decoder" in sources and getattr(config.task, "scheme", None) == "fresh_decoder":
        raise ValueError(
            "task.scheme=fresh_decoder replaces the decoder by a new one: leave --init-decoder unset, or use another "
            "scheme"
        )
    model = config.model
    for side, source in sources.items():
        merged = _merge(side, getattr(model, side), source)
        model = dataclasses.replace(model, **{side: merged})

    def load(abstract: Any) -> dict[str, Any]:
        wanted = traverse_util.flatten_dict(abstract, sep="/")
        loaded: Flat = {}
        for side, source in sources.items():
            own = (f"backbone/{side}/", *_SIDES[side][2])
            loaded |= source.load({k: x for k, x in wanted.items() if k.startswith(own)})
        return traverse_util.unflatten_dict(loaded, sep="/")

    told = (f"{side} of {_describe(side, source, model)}" for side, source in sources.items())
    return Start(model, _tokenizer(sources), load, f"pretrained: {', '.join(told)}")


def _describe(side: str, source: _Source, model: VAEConfig) -> str:
    there = source.vae
    if there is None:
        return f"{source.folder} (layers at the latent are new)"
    if there.latent_dim != model.latent_dim:
        return (
            f"{source.folder} (layers at the latent are new: its width is {there.latent_dim} there and "
            f"model.latent_dim={model.latent_dim} here)"
        )
    if side == "decoder":
        new = [f"{way} of model.inject" for way in model.inject if way not in there.inject]
    else:
        mixtures = [(m.prior, m.pseudo_inputs, m.pseudo_len) for m in (model, there)]
        new = ["pseudo-inputs"] if model.prior == "vamp" and mixtures[0] != mixtures[1] else []
    but = f" (new: {', '.join(new)})" if new else ""
    return f"{source.folder} with its layers at the latent{but}"


def _tokenizer(sources: dict[str, _Source]) -> Tokenizer:
    """A side with random weights has the tokenizer of the other."""
    first, last = (list(sources.values())[i].tokenizer for i in (0, -1))
    if first.fingerprint == last.fingerprint:
        return first
    return TwoTokenizers.of(last, first)


def _merge(side: str, own: Any, source: _Source) -> Any:
    """The architecture of the source, with the dropout that the config sets.

    Raises:
        ValueError: the config sets another architecture.
    """
    if own == type(own)():
        return source.model
    for field in dataclasses.fields(own):
        mine, there = getattr(own, field.name), getattr(source.model, field.name)
        if field.name not in _FREE and mine != there:
            raise ValueError(
                f"model.{side}.{field.name}={mine}, but the {side} of --init-{side} {source.folder} has "
                f"{field.name}={there}: leave model.{side} unset"
            )
    free = {name: getattr(own, name) for name in _FREE if name != "vocab_size"}
    return dataclasses.replace(source.model, **free)


def _find(side: str, name: str, tasks: Sequence[type[Task]]) -> _Source:
    if name.startswith(init_from.HUB):
        folder = loading.local_folder(name.removeprefix(init_from.HUB))
    else:
        folder = mirror.local(name)
    if hf.is_model(folder):
        return _of_hf(side, folder)
    config = run_folder.read_config(folder, tasks)
    is_vae = isinstance(config.model, VAEConfig)
    model = getattr(config.model, side) if is_vae else config.model
    _check_kind(side, folder, model)
    tokenizer = run_folder.read_tokenizer(folder, task_class(config.task, tasks))
    assert tokenizer is not None, "a model of this kind reads text"
    if isinstance(tokenizer, TwoTokenizers):
        tokenizer = tokenizer.encoder if side == "encoder" else tokenizer.decoder

    def load(wanted: Flat) -> Flat:
        stored = store.describe(folder)["params"]
        there = {k: k if is_vae else k.replace(f"backbone/{side}/", "backbone/") for k in wanted}
        fits = {
            k: path
            for k, path in there.items()
            if path in stored and tuple(stored[path]["shape"]) == wanted[k].shape
        }
        _check_whole(folder, wanted, fits)
        target = traverse_util.unflatten_dict({p: wanted[k] for k, p in fits.items()}, sep="/")
        arrays = traverse_util.flatten_dict(adapters.load_merged(folder, target), sep="/")
        return {k: arrays[path] for k, path in fits.items()}

    return _Source(folder, model, tokenizer, load, config.model if is_vae else None)


def _of_hf(side: str, folder: pathlib.Path) -> _Source:
    source = init_from.of_hf(folder)
    model: Any = source.model
    _check_kind(side, folder, model)

    def load(wanted: Flat) -> Flat:
        # a decoder of this layout has no cross-attention, and a head only if its output table is its own
        own = {k: x for k, x in wanted.items() if not _may_be_new(k) or k == "head/unembedding"}
        renamed = {k.replace(f"backbone/{side}/", "backbone/"): k for k in own}
        target = {path: own[k] for path, k in renamed.items()}
        loaded = source.load(traverse_util.unflatten_dict(target, sep="/"))
        arrays = traverse_util.flatten_dict(loaded, sep="/")
        return {k: arrays[path] for path, k in renamed.items() if path in arrays}

    return _Source(folder, model, source.tokenizer, load)


def _check_kind(side: str, folder: pathlib.Path, model: Any) -> None:
    kind, named, _ = _SIDES[side]
    if not isinstance(model, kind):
        raise ValueError(
            f"--init-{side} {folder}: its config is {type(model).__name__}, but the {side} of a text VAE starts from "
            f"{named} ({kind.__name__})"
        )


def _check_whole(folder: pathlib.Path, wanted: Flat, fits: dict[str, str]) -> None:
    missing = [k for k in wanted if k not in fits and not _may_be_new(k)]
    if missing:
        raise ValueError(f"{folder}: its checkpoint has no parameter for {missing[0]}")


def _may_be_new(name: str) -> bool:
    """Whether a parameter is random if the source has none."""
    return name.startswith("head/") or "/cross_attn" in name
