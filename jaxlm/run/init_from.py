"""The starting point of a fine-tuning run: another run, or a model in the Hugging Face layout."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm import hf
from jaxlm.checkpoint import store
from jaxlm.config import FinetuneConfig, ModelConfig, VAEConfig
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.hf import export, loading, peft, sentence_transformers
from jaxlm.models import heads, lora, surgery
from jaxlm.models.embedder import Embedding
from jaxlm.params import path_name
from jaxlm.remote import mirror
from jaxlm.run import adapters
from jaxlm.run import folder as run_folder
from jaxlm.sharding import shardings_of
from jaxlm.tasks import Task, task_class

HUB = "hub:"


@dataclasses.dataclass(frozen=True)
class Source:
    """A model to start from."""

    folder: pathlib.Path
    model: ModelConfig
    tokenizer: Tokenizer
    # takes the abstract parameters of the new model, returns pretrained ones: the backbone, and a language model's head
    load: Callable[[Any], dict[str, Any]]
    # how the model embeds texts, if it was made for that; raises ValueError if jaxlm cannot embed as it does
    embedding: Callable[[], Embedding | None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Start:
    """What pretraining starts from, if not from random weights."""

    model: ModelConfig | VAEConfig
    tokenizer: Tokenizer
    # takes the abstract parameters, returns the pretrained ones
    load: Callable[[Any], dict[str, Any]]
    # a line about it
    description: str


def is_new(config: FinetuneConfig) -> bool:
    """Whether the run starts from nothing: the model of the config, and a tokenizer as `data.tokenizer` says."""
    return config.init == "none" and config.init_like is None and config.model is not None


def find(config: FinetuneConfig, tasks: Sequence[type[Task]] = ()) -> Source:
    """The model of the run folder, Hugging Face folder or `hub:owner/name` that the config names.

    Raises:
        ValueError: there is no such model, or it has no tokenizer.
    """
    name = config.init if config.init != "none" else config.init_like
    if name is None:
        raise ValueError(
            "--init none trains from random weights: name a run folder with the architecture in --init-like, or set "
            "model in the config, and data.tokenizer"
        )
    return of_name(name, tasks, adapter=config.adapter, rank=config.lora.rank)


def of_name(
    name: str, tasks: Sequence[type[Task]] = (), *, adapter: str | None = None, rank: int = 0
) -> Source:
    """The model of a run folder, a Hugging Face folder, an adapter's folder or `hub:owner/name`.

    Args:
        name: of the model.
        tasks: custom tasks.
        adapter: folder of an adapter for it.
        rank: of adapters that are trained; 0: an adapter is added to the model's matrices.

    Raises:
        ValueError: there is no such model, or it has no tokenizer.
    """
    if peft.is_adapter(name):
        if adapter is not None:
            raise ValueError(
                f"--init {name} is an adapter, and so is --adapter {adapter}: merge one first"
            )
        adapter = name
        name = str(peft.read(adapter).base())
        if not pathlib.Path(name).exists():
            name = HUB + name
    elif adapter is not None:
        peft.read(adapter).warn_of_other_base(name)
    if name.startswith(HUB):
        source = of_hf(loading.local_folder(name.removeprefix(HUB)))
    else:
        folder = mirror.local(name)
        source = of_hf(folder) if hf.is_model(folder) else _of_run(folder, tasks)
    source = _growing(source)
    return source if adapter is None else _adapted(source, peft.read(adapter), rank)


def _adapted(source: Source, adapter: peft.Adapter, rank: int) -> Source:
    """The source with an adapter, added to its matrices or, with the `rank` of adapters that are trained, beside them.

    Raises:
        ValueError: the adapter has other parts, or it is one of another base (when it is loaded).
    """
    if adapter.whole:
        raise ValueError(
            f"{adapter.folder}: the adapter also replaces {', '.join(sorted(adapter.whole)[:3])}, which is not "
            "supported here: load it with jaxlm.hf.load, and start from the model exported from there"
        )

    def load(abstract: Any) -> dict[str, Any]:
        params = source.load(abstract)
        if hf.is_model(source.folder):
            family = loading.describe(source.folder, backbone_only=True).family
        else:
            family = export.choose(heads.Headless(source.model)).family
        # its first class with a head is a language model
        architecture = next(iter(family.heads))
        tied = source.model.tie_embeddings and _is_language_model(abstract)
        if not rank:
            return loading.add_adapter(
                params, adapter, family, architecture, source.folder, is_tied=tied
            )
        shapes = {path: x.shape for path, x in lora.flat(params).items()}
        parts = peft.parameters(adapter, family, architecture, shapes, source.folder, is_tied=tied)
        wanted = lora.flat(abstract)
        made = {p: x.shape for p, x in wanted.items() if lora.ADAPTER in p}
        given = {
            f"{path}{lora.ADAPTER}{part}": x
            for path, own in parts.items()
            for part, x in own.items()
        }
        if made != {name: x.shape for name, x in given.items()}:
            ranks = sorted({x.shape[-1] for name, x in given.items() if name.endswith("a")})
            names = sorted({path.rsplit("/", 1)[-1] for path in parts})
            raise ValueError(
                f"{adapter.folder}: the adapter is of rank {', '.join(map(str, ranks))} on {', '.join(names)}, not as "
                "lora.rank and lora.targets say: set them so, or leave lora.rank unset to add it to the model"
            )
        placed = {
            path: {
                part: jax.device_put(x, wanted[f"{path}{lora.ADAPTER}{part}"].sharding)
                for part, x in own.items()
            }
            for path, own in parts.items()
        }
        return lora.put(params, placed)

    return dataclasses.replace(source, load=load)


def _growing(source: Source) -> Source:
    """The source, which also loads into a model with rows for more tokens; see `surgery.resize_vocabulary`."""
    rows = source.model.vocab_size

    def stored(path: tuple, x: Any) -> Any:
        if path[-1].key not in surgery.BY_TOKEN or x.shape[0] <= rows:
            return x
        # so many rows need not be a multiple of the mesh
        everywhere = (
            NamedSharding(x.sharding.mesh, P()) if hasattr(x.sharding, "mesh") else x.sharding
        )
        return jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=everywhere)

    def load(abstract: Any) -> dict[str, Any]:
        # adapters are new: they are no part of the source
        abstract = lora.without(abstract)
        loaded = source.load(jax.tree.map_with_path(stored, abstract))
        wanted = {name: abstract[name] for name in loaded}
        if jax.tree.map(jnp.shape, loaded) == jax.tree.map(jnp.shape, wanted):
            return loaded
        size = abstract["backbone"]["embed"]["token"]["embedding"].shape[0]

        def grow(params: Any) -> Any:
            key = jax.random.key(0)
            return surgery.resize_vocabulary(source.model, params, size, key)[1]

        return jax.jit(grow, out_shardings=shardings_of(wanted))(loaded)

    return dataclasses.replace(source, load=load)


def _of_run(folder: pathlib.Path, tasks: Sequence[type[Task]]) -> Source:
    config = run_folder.read_config(folder, tasks)
    kind = task_class(config.task, tasks)
    if not kind.reads_text:
        raise ValueError(
            f"{folder}: a model of task {kind.name} reads no text and cannot be fine-tuned"
        )
    tokenizer = run_folder.read_tokenizer(folder, kind)
    assert tokenizer is not None
    if isinstance(config.model, VAEConfig):

        def load_encoder(abstract: Any) -> dict[str, Any]:
            wanted = {"backbone": {"encoder": abstract["backbone"]}}
            return {"backbone": store.load_params(folder, wanted)["backbone"]["encoder"]}

        # only the encoder reads a text
        reader = getattr(tokenizer, "encoder", tokenizer)
        return Source(folder, config.model.encoder, reader, load_encoder)

    def load(abstract: Any) -> dict[str, Any]:
        stored = store.describe(folder)["params"]
        head = _head(abstract)
        known = all(path in stored and stored[path]["shape"] == shape for path, shape in head)
        wanted = {"backbone": abstract["backbone"]}
        if _is_language_model(abstract) and head and known:
            wanted["head"] = abstract["head"]
        return adapters.load_merged(folder, wanted)

    return Source(folder, config.model, tokenizer, load, lambda: kind(config, tokenizer).embedding)


def of_hf(folder: pathlib.Path) -> Source:
    """The model of a folder in the Hugging Face layout.

    Raises:
        ValueError: it is not a model, or it has no tokenizer.
    """
    backbone = loading.describe(folder, backbone_only=True)
    named = (backbone.settings.get("architectures") or [None])[0]
    whole = loading.describe(folder) if named in backbone.family.heads else backbone
    tokenizer = loading.read_tokenizer(folder)
    if tokenizer is None:
        raise ValueError(
            f"{folder}: has no tokenizer: needs tokenizer.json, vocab.txt, vocab.json with merges.txt, or a "
            "sentencepiece model"
        )

    def load(abstract: Any) -> dict[str, Any]:
        if _is_language_model(abstract) and whole.kind in ("causal_lm", "masked_lm", "seq2seq"):
            return loading.load_params(whole, abstract)
        return loading.load_params(backbone, {"backbone": abstract["backbone"]})

    return Source(folder, whole.config, tokenizer, load, lambda: sentence_transformers.read(folder))


def _head(abstract: Any) -> list[tuple[str, tuple[int, ...]]]:
    leaves = jax.tree_util.tree_flatten_with_path({"head": abstract.get("head", {})})[0]
    return [(path_name(path), x.shape) for path, x in leaves]


def _is_language_model(abstract: Any) -> bool:
    """Whether the new head predicts tokens, rather than classes of this run."""
    head = _head(abstract)
    return not head or any(path.startswith("head/unembedding") for path, _ in head)
