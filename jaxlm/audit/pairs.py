"""Minimal pairs: texts that differ in the group they speak of, and nothing else.

Each text is scored by a causal model's log-probability (as in CrowS-Pairs, Nangia et al. 2020, 2010.00133, whose
pseudo-likelihood is for masked models) or by the probability of each class of a classifier. Without a difference
between the groups half of the pairs favour each, and mean differences are zero.
"""

from __future__ import annotations

import itertools
import pathlib
from typing import Any, NamedTuple

from jaxlm.config import DataConfig, json_text
from jaxlm.data import records
from jaxlm.data.columns import Column


class Pair(NamedTuple):
    """Two texts."""

    first: str
    second: str
    # what is compared, such as "women / men"
    about: str = "all"


def load(path: pathlib.Path) -> list[Pair]:
    """Pairs from a table with the columns `first`, `second` and perhaps `about`, or made of templates.

    Templates are a JSON object {"templates": ["{group} is a good {attribute}."], "groups": {"women": ["she", "my
    sister"], "men": ["he", "my brother"]}, "attributes": ["nurse", "engineer"]}: word i of a group stands where word i
    of another does.

    Raises:
        ValueError: the file cannot be read as either.
    """
    if path.suffix == ".json":
        found = json_text.read(path)
        if isinstance(found, dict):
            return of_templates(found, str(path))
    columns = {
        "first": Column("first", "text"),
        "second": Column("second", "text"),
        "about": Column("about", "label", required=False),
    }
    data = DataConfig(train=(str(path),), validation_fraction=0.0)
    table = records.load_records(data, columns, "train")
    about = [str(x) if x is not None else "all" for x in table.columns["about"]]
    return [Pair(*x) for x in zip(table.columns["first"], table.columns["second"], about)]


def of_templates(found: dict[str, Any], where: str) -> list[Pair]:
    """The pairs of templates, for each two groups; see `load`.

    Raises:
        ValueError: a part is missing, or groups have different numbers of words.
    """
    templates, groups = found.get("templates", ()), found.get("groups")
    attributes = found.get("attributes", [""])
    if (
        not isinstance(groups, dict)
        or len(groups) < 2
        or not _are_texts(templates, *groups.values())
    ):
        raise ValueError(
            f"{where}: needs a list of texts `templates` and an object `groups` with at least two lists of words"
        )
    if not _are_texts(attributes):
        raise ValueError(f"{where}: `attributes` must be a list of words")
    if len({len(words) for words in groups.values()}) > 1:
        sizes = ", ".join(f"{name} {len(words)}" for name, words in groups.items())
        raise ValueError(f"{where}: groups need the same number of words, not {sizes}")
    pairs = []
    for template in templates:
        if "{group}" not in template:
            raise ValueError(f"{where}: the template {template!r} has no place {{group}}")
        some = attributes if "{attribute}" in template else [""]
        fill = lambda word, attribute, t=template: t.replace("{group}", word).replace(
            "{attribute}", attribute
        )
        for (a, left), (b, right) in itertools.combinations(groups.items(), 2):
            for attribute in some:
                for x, y in zip(left, right):
                    pairs.append(Pair(fill(x, attribute), fill(y, attribute), f"{a} / {b}"))
    if not pairs:
        raise ValueError(f"{where}: makes no pair")
    return pairs


def _are_texts(*lists: Any) -> bool:
    """Whether these are lists of texts; a text by itself would be read letter by letter."""
    return all(isinstance(x, list) and all(isinstance(y, str) for y in x) for x in lists)
