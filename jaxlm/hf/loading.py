"""From a folder of the Hugging Face layout to a model with parameters, each read straight to where it will lie."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from jaxlm import sharding
from jaxlm.config import (
    ComputeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
)
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.hf import families, weights
from jaxlm.hf.family import Family, Kind
from jaxlm.hf.fields import Fields
from jaxlm.hf.table import Index, Source, pattern, resolve
from jaxlm.hf.weights import Stored
from jaxlm.models import heads
from jaxlm.params import path_name

_UNEMBEDDING = "head/unembedding"


@dataclasses.dataclass(frozen=True)
class Description:
    """What the files of a folder say about its model; no weight has been read."""

    folder: pathlib.Path
    family: Family
    architecture: str
    config: Any
    # their config.json
    settings: dict[str, Any]
    # the tensors, by the names of the family's table
    stored: dict[str, Stored]

    @property
    def kind(self) -> Kind:
        """What stands on the backbone."""
        return self.family.kind(self.architecture)


def describe(folder: str | os.PathLike, *, backbone_only: bool = False) -> Description:
    """Reads config.json and the headers of the weights.

    Args:
        folder: where they are.
        backbone_only: leave the head out, and do not ask what it is.

    Raises:
        ValueError: something is missing or damaged, or is a model that we have not.
    """
    folder = pathlib.Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder}: holds no config.json, so it is not a model of Hugging Face")
    settings = weights.read_json(path)
    model_type = settings.get("model_type")
    if model_type not in families.FAMILIES:
        known = ", ".join(families.FAMILIES)
        raise ValueError(f"{path}: model_type {model_type!r} is not known; known are {known}")
    family = families.FAMILIES[model_type]
    fields = Fields(settings, str(path))
    try:
        config = family.read(fields)
    except (TypeError, ValueError) as e:
        raise e if str(e).startswith(str(path)) else ValueError(f"{path}: {e}") from e
    fields.finish()
    named = (settings.get("architectures") or [family.base])[0]
    architecture = family.base if backbone_only else named
    if architecture != family.base and architecture not in family.heads:
        raise ValueError(
            f"{path}: architecture {named} is not known, only {', '.join([family.base, *family.heads])}; "
            "with backbone_only=True the model without its head is loaded"
        )
    stored = _by_their_names(family, architecture, weights.find(folder))
    config = _tied_as_stored(family, architecture, config, stored)
    return Description(folder, family, architecture, config, settings, stored)


def is_model(folder: str | os.PathLike) -> bool:
    """Whether a folder has a config.json in the Hugging Face layout."""
    path = pathlib.Path(folder) / "config.json"
    return path.is_file() and "model_type" in weights.read_json(path)


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model with its parameters, callable as transformers' models are.

    `model.apply({"params": params}, tokens, ...)` is the functional form; `config` is ours, `settings` is config.json.
    """

    model: nn.Module
    params: Any
    config: ModelConfig
    # None: the folder holds none that we can read
    tokenizer: Tokenizer | None
    settings: dict[str, Any]
    mesh: Mesh | None = None

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
    ) -> jax.Array:
        """Logits in float32; the last hidden states of a model without a head.

        They are [B, T, V] of a language model, [B, C] of a classifier, [B, T, C] of a classifier of tokens, [B, T, 2]
        (first and last token of the answer) of a model for questions; hidden states are [B, T, D].

        Args:
            input_ids: [B, T].
            attention_mask: [B, T], 1 on text and 0 on padding; what the model says of padding has no meaning.
            token_type_ids: [B, T], 0 on the first text of a pair and 1 on the second.
            position_ids: [B, T], counted from 0 in all families; None: as transformers counts them.
            decoder_input_ids: [B, T] of an encoder-decoder, whose source, `input_ids`, has a length of its own.
            decoder_attention_mask: [B, T], 1 on text and 0 on padding.
        """
        tokens, segments = _text(input_ids, attention_mask, "")
        inputs: dict[str, Any] = dict(segment_ids=segments)
        if isinstance(self.config, EncoderDecoderConfig) != (decoder_input_ids is not None):
            raise ValueError(
                "decoder_input_ids are what an encoder-decoder needs and what no other model takes"
            )
        if decoder_input_ids is not None:
            decoder_tokens, segments = _text(decoder_input_ids, decoder_attention_mask, "decoder_")
            inputs |= dict(decoder_tokens=decoder_tokens, decoder_segment_ids=segments)
        if token_type_ids is not None:
            inputs["token_types"] = np.asarray(token_type_ids, np.int32)
        if position_ids is not None:
            inputs["positions"] = np.asarray(position_ids, np.int32)
        elif isinstance(self.config, EncoderConfig) and self.config.position_offset:
            # RoBERTa counts what is not padding, so that a text keeps its places whichever side is padded
            real = tokens != self.settings.get("pad_token_id", self.config.position_offset - 1)
            inputs["positions"] = np.maximum(real.cumsum(1, dtype=np.int32) - 1, 0)
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            return self._apply(self.params, tokens, inputs)

    @functools.cached_property
    def _apply(self) -> Callable[..., jax.Array]:
        def run(params, tokens, inputs):
            return self.model.apply({"params": params}, tokens, **inputs).astype(jnp.float32)

        return jax.jit(run)


def _text(input_ids: Any, attention_mask: Any, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, and segments that are 1 on text and 0 on padding."""
    tokens = np.asarray(input_ids, np.int32)
    mask = np.ones_like(tokens) if attention_mask is None else np.asarray(attention_mask)
    if tokens.ndim != 2 or mask.shape != tokens.shape:
        raise ValueError(
            f"{side}input_ids and {side}attention_mask must be [B, T], not {tokens.shape} and {mask.shape}"
        )
    return tokens, (mask > 0).astype(np.int32)


def load(
    path_or_hub_id: str | os.PathLike,
    *,
    mesh: Mesh | None = None,
    backbone_only: bool = False,
    compute: ComputeConfig | None = None,
    dtype: Any = np.float32,
    revision: str | None = None,
) -> LoadedModel:
    """Loads config.json, model.safetensors (one file or several with an index) and the tokenizer.

    Every parameter is read as it lies on the mesh, a share at a time: above what the devices hold, the host holds one
    share of one parameter and one tensor of the file.

    Args:
        path_or_hub_id: a folder, or `owner/name` on the hub.
        mesh: from `sharding.make_mesh`; None: all on the first device.
        backbone_only: leave the head out, and do not ask what it is.
        compute: how the model runs.
        dtype: of the parameters, whatever they have in the file.
        revision: branch, tag or commit on the hub; name a commit to get the same again.

    Raises:
        ValueError: anything that is wrong with the files, in one line with the file and the tensor.
    """
    folder = local_folder(path_or_hub_id, revision)
    found = describe(folder, backbone_only=backbone_only)
    tokenizer = read_tokenizer(folder)
    model = build(found, compute or ComputeConfig())
    abstract = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    if mesh is None:
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        placement = jax.tree.map(lambda _: here, abstract)
    else:
        placement = sharding.param_shardings(abstract, mesh)
    target = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, dtype, sharding=where), abstract, placement
    )
    params = load_params(found, target)
    return LoadedModel(model, params, found.config, tokenizer, found.settings, mesh)


def local_folder(path_or_hub_id: str | os.PathLike, revision: str | None = None) -> pathlib.Path:
    """The folder itself, or where the hub's files were put."""
    path = pathlib.Path(path_or_hub_id)
    if path.is_dir():
        return path
    name = str(path_or_hub_id)
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", name) or ".." in name:
        raise ValueError(f"{name}: no such folder")
    # takes a while to import, and most loads do not need it
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=["*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.jinja"],
        )
    except Exception as e:  # network, hub and name errors have no common class
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise ValueError(
            f"{name}: no such folder, and it cannot be fetched from the Hugging Face hub either; is the name right and "
            f"the machine online? {reason}"
        ) from e
    return pathlib.Path(folder)


def read_tokenizer(folder: pathlib.Path) -> Tokenizer | None:
    """The tokenizer of a folder; None if it holds no file of one."""
    names = ("tokenizer.json", "vocab.txt", "vocab.json")
    if not any((folder / name).is_file() for name in names):
        return None
    return tokenizers.load(folder)


def build(description: Description, compute: ComputeConfig) -> Any:
    """The model that config.json describes."""
    config, settings = description.config, description.settings
    classes = len(settings.get("id2label") or "..")
    pooling = "last" if isinstance(config, DecoderConfig) else "first"
    if settings.get("classifier_pooling") == "mean":
        pooling = "mean"
    makers: dict[Kind, Callable[[], Any]] = {
        "none": lambda: heads.Headless(config, compute),
        "causal_lm": lambda: heads.CausalLM(config, compute),
        "masked_lm": lambda: heads.MaskedLM(config, compute),
        "seq2seq": lambda: heads.Seq2SeqLM(config, compute),
        "classifier": lambda: heads.Classifier(config, classes, pooling, compute=compute),
        "tokens": lambda: heads.TokenClassifier(config, classes, compute=compute),
        "span": lambda: heads.SpanQA(config, compute=compute),
        "detector": lambda: heads.Detector(config, compute),
    }
    return makers[description.kind]()


def load_params(description: Description, target: Any) -> Any:
    """Parameters read straight to where they will lie; all that can be wrong is found before the first weight is read.

    `target` is the model's tree of ShapeDtypeStruct with shardings, or a part of it, as a classifier needs but the
    encoder of an encoder-decoder.

    Raises:
        ValueError: the files hold other tensors than the model has.
    """
    model = build(description, ComputeConfig())
    whole = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
    leaves = jax.tree_util.tree_flatten_with_path(whole)[0]
    shapes = {path_name(path): x.shape for path, x in leaves}
    table = description.family.whole_table(description.architecture)
    sources = resolve(table, shapes)
    _check(description, sources)

    def place(path, x):
        source = sources[path_name(path)]
        read = functools.partial(_read, source, description.stored, x.shape, np.dtype(x.dtype))
        return jax.make_array_from_callback(x.shape, x.sharding, read)

    return jax.tree.map_with_path(place, target)


def _by_their_names(
    family: Family, architecture: str, stored: dict[str, Stored]
) -> dict[str, Stored]:
    """What is stored, by the names of the table: old names replaced, the prefix added or taken off."""
    base = [pattern(template) for template in family.table]
    own = [pattern(template) for template in family.whole_table(architecture)]
    others = {name for head in family.heads.values() for name in head.table}
    head = [pattern(template) for template in others - set(family.table)]
    ignored = [re.compile(x) for x in family.ignored]
    if architecture == family.base:
        ignored += head
    prefix = "" if architecture == family.base else family.prefix
    found: dict[str, Stored] = {}
    for stored_name, tensor in stored.items():
        name = stored_name
        for old, new in family.aliases.items():
            name = name.replace(old, new)
        if not any(x.fullmatch(name) for x in own):
            bare = name.removeprefix(family.prefix)
            if any(x.fullmatch(bare) for x in base):
                name = prefix + bare
            elif any(x.fullmatch(name) for x in ignored):
                continue
        if name in found:
            raise ValueError(
                f"{tensor.path}: {stored_name} and {found[name].name} are the same tensor"
            )
        found[name] = tensor
    return found


def _tied_as_stored(
    family: Family, architecture: str, config: Any, found: Mapping[str, Stored]
) -> Any:
    """The config with the output table tied or not, as the files have it.

    What config.json says of it was not always written, and counts only where both tables are there and are the same.
    """
    table = family.whole_table(architecture)
    paths = {rule: name for name, rule in table.items() if isinstance(rule, str)}
    output = paths.get(_UNEMBEDDING)
    if output is None:
        return config
    if output not in found:
        return dataclasses.replace(config, tie_embeddings=True)
    embedding = found.get(paths["backbone/embed/token/embedding"])
    if config.tie_embeddings and embedding is not None and embedding.equals(found[output]):
        return config
    return dataclasses.replace(config, tie_embeddings=False)


def _check(description: Description, sources: Mapping[str, Source]) -> None:
    """Raises ValueError unless the files hold what the config asks for, and nothing else."""
    found = description.stored
    wanted: set[str] = set()
    for source in sources.values():
        for _, name in source.names():
            wanted.add(name)
            tensor = found.get(name)
            if tensor is None:
                raise ValueError(
                    f"{description.folder}: {name} is missing, which {description.architecture} has by its config.json"
                )
            if tensor.shape != source.their_shape:
                raise ValueError(
                    f"{tensor.path}: {tensor.name} is {list(tensor.shape)}, but by config.json it is "
                    f"{list(source.their_shape)}"
                )
            if tensor.dtype.kind not in "fV":
                raise ValueError(
                    f"{tensor.path}: {tensor.name} has {tensor.dtype} numbers: quantised weights are not supported"
                )
    table = description.family.whole_table(description.architecture)
    tied = {name for name, rule in table.items() if rule == _UNEMBEDDING}
    for name in sorted(set(found) - wanted - tied):
        raise ValueError(
            f"{found[name].path}: {found[name].name} has no place in {description.architecture} by its config.json"
        )


def _read(
    source: Source, found: Mapping[str, Stored], shape: tuple, dtype: np.dtype, index: Index
) -> np.ndarray:
    """A share of one of our parameters."""
    depth = len(source.stacked)
    rows, inside, rest = source.layout.rows(index[depth:], source.shape)
    if not depth:
        tensor = found[source.template].read(rows)
        part = source.layout.view(tensor, inside, source.piece)[rest]
        if part.flags.c_contiguous and part.dtype == dtype:
            return part
    spans = [range(*i.indices(n)) for i, n in zip(index, shape)]
    share = weights.aligned(tuple(len(span) for span in spans), dtype)
    if not depth:
        share[...] = part
        return share
    for place in np.ndindex(*(len(span) for span in spans[:depth])):
        name = source.name(tuple(span[i] for span, i in zip(spans, place)))
        if (
            name is None
        ):  # a norm that they have not; ours is there for the other layers, and not used in this one
            share[place] = 1.0
            continue
        tensor = found[name].read(rows)
        share[place] = source.layout.view(tensor, inside, source.piece)[rest]
    return share
