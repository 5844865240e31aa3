"""Which tensors transformers ties: one parameter of a model may be stored under several names, or only under another.

transformers uses one tensor for all of them if config.json ties them and the file does not have different values;
otherwise each is its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlm.config import EncoderDecoderConfig
from jaxlm.hf.family import Family
from jaxlm.hf.weights import Stored

EMBEDDING = "backbone/embed/token/embedding"
TARGET_EMBEDDING = "backbone/decoder_embed/token/embedding"
UNEMBEDDING = "head/unembedding"
# of models with two heads
UNEMBEDDINGS = (UNEMBEDDING, "head/lm/unembedding")


def as_stored(
    family: Family, architecture: str, config: Any, stored: Mapping[str, Stored]
) -> tuple[Any, dict[str, Stored]]:
    """The config with the tables that the stored tensors have, and the tensors under the names of the family's table.

    Old files do not say in config.json whether tables are tied: that setting is used only where both are stored and
    equal, or one is missing.

    Raises:
        ValueError: config.json says that a table is not tied, and it is missing.
    """
    stored = dict(stored)
    names = table_names(family, architecture)
    has_sides = isinstance(config, EncoderDecoderConfig)
    for twin, name in family.whole_twins(architecture).items():
        # of two that differ, the twin is the one that is used
        if twin in stored and not (has_sides and name == names[EMBEDDING]):
            stored[name] = stored.pop(twin)
    if has_sides:
        config = _sides_as_stored(family, architecture, config, stored)
    output = next((names[x] for x in UNEMBEDDINGS if x in names), None)
    if output is None:
        return config, stored
    own = names[EMBEDDING]
    if not getattr(config, "share_embeddings", True):
        own = names[TARGET_EMBEDDING]
    if output not in stored:
        if not config.tie_embeddings and not family.always_ties:
            raise _missing(output, architecture)
        return dataclasses.replace(config, tie_embeddings=True), stored
    if config.tie_embeddings:
        if own not in stored:
            stored[own] = stored.pop(output)
            return config, stored
        if stored[own].equals(stored[output]):
            return config, stored
    return dataclasses.replace(config, tie_embeddings=False), stored


def described(family: Family, config: Any) -> Any:
    """The config of which config.json is written.

    Only Marian has a setting for sides with tables of their own: in other families no tables are tied then, and each
    is read as it is stored.
    """
    if getattr(config, "share_embeddings", True) or _says_sharing(family):
        return config
    return dataclasses.replace(config, share_embeddings=True, tie_embeddings=False)


def _says_sharing(family: Family) -> bool:
    return "share_encoder_decoder_embeddings" in family.fields


def table_names(family: Family, architecture: str) -> dict[str, str]:
    """The names of tensors that hold one whole parameter, by its path."""
    table = family.whole_table(architecture)
    return {rule: name for name, rule in table.items() if isinstance(rule, str)}


def written_names(family: Family, architecture: str, config: Any) -> dict[str, tuple[str, ...]]:
    """The names under which a tensor of the table is written, where they are others than its own.

    Of a model whose tables are not tied transformers reads each under a name of its own.
    """
    twins = family.whole_twins(architecture)
    names = table_names(family, architecture)
    if not getattr(config, "share_embeddings", True):
        shared, target = names[EMBEDDING], names[TARGET_EMBEDDING]
        source = tuple(x for x, name in twins.items() if name == shared and x != target)
        if _says_sharing(family):
            return {shared: source}
        output = [names[UNEMBEDDING]] if config.tie_embeddings and UNEMBEDDING in names else []
        # the shared table is one that transformers reads and does not use
        return {shared: (shared, *source), target: (target, *output)}
    if config.tie_embeddings or family.always_ties:
        return {}
    return {
        name: (name, *(x for x, of in twins.items() if of == name)) for name in set(twins.values())
    }


def _sides_as_stored(
    family: Family, architecture: str, config: EncoderDecoderConfig, stored: dict[str, Stored]
) -> EncoderDecoderConfig:
    """Names the tables of source and target as the family's table has them."""
    names = table_names(family, architecture)
    shared, target_name = names[EMBEDDING], names[TARGET_EMBEDDING]
    twins = [twin for twin, name in family.whole_twins(architecture).items() if name == shared]
    (source_name,) = set(twins) - {target_name}
    common = stored.get(shared)
    source, target = stored.pop(source_name, None), stored.pop(target_name, None)
    if not config.tie_embeddings and not family.always_ties:
        for name, tensor in ((source_name, source), (target_name, target)):
            if tensor is None:
                raise _missing(name, architecture)
    output = stored.get(names.get(UNEMBEDDING, ""))
    candidates = [x for x in (common, source, target, output) if x is not None]
    if not candidates:
        return config
    common = candidates[0]
    source, target = source or common, target or common
    stored[shared] = source
    if source is target or source.equals(target):
        return config
    stored[target_name] = target
    if output is None and UNEMBEDDING in names and config.share_embeddings:
        # tied to the shared table, which is not the target's
        stored[names[UNEMBEDDING]] = common
    return dataclasses.replace(config, share_embeddings=False)


def _missing(name: str, architecture: str) -> ValueError:
    return ValueError(
        f"{name} is missing; {architecture} needs it, since config.json has tie_word_embeddings=false"
    )
