"""Name tables: which tensor of a Hugging Face file holds which jaxlm parameter, and in what shape.

A table is a dict from the name of a tensor to the path of a parameter:

    "attention.self.query.weight": "attn/query"                               in the layout given in `jaxlm.params`
    "attn.c_attn.weight": Rule("D (3 N H) -> D N H", "attn/query", "attn/key", "attn/value")

In a layout, a number is the dim along which several parameters of one size are concatenated, in the order given; those
of several sizes are `rows` of a tensor, one after the other, each in its usual layout; or `grouped`: for each head of
keys the heads of its queries, its own, and that of its values, one after the other. `{i}` in a name
is the layer and `{e}` the expert: leading dims of the parameter. A table may list parameters that a model does not
have; they are skipped. Import reads from `Layout.view` and export writes to it, so that the two always agree. In names,
`ours` stands for jaxlm and `theirs` for the Hugging Face file.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from jaxlm.params import Leaf, dense_block, entry, leaves

Shape = tuple[int, ...]
Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the dims of a tensor map to those of a parameter, such as `(N H) D -> D N H`."""

    theirs: tuple[tuple[str, ...], ...]
    ours: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Parses the text of a layout."""
        left, right = text.split("->")
        groups = re.findall(r"\(([^)]*)\)|(\S+)", left)
        return cls(tuple(tuple((a or b).split()) for a, b in groups), tuple(right.split()))

    def shape(self, ours: Shape) -> Shape:
        """The shape of the tensor, given that of the parameter."""
        return tuple(math.prod(self._size(x, ours) for x in group) for group in self.theirs)

    def view(self, tensor: np.ndarray, ours: Shape, piece: int) -> np.ndarray:
        """A view of a C-contiguous tensor as the `piece`-th parameter in it."""
        letters = [x for group in self.theirs for x in group]
        split = tensor.reshape([self._size(x, ours) for x in letters])
        split = split[tuple(piece if x.isdigit() else slice(None) for x in letters)]
        kept = [x for x in letters if not x.isdigit()]
        return split.transpose([kept.index(x) for x in self.ours])

    def rows(self, index: Index, ours: Shape) -> tuple[slice, Shape, Index]:
        """The rows of the tensor that contain `index` of the parameter, and the shape and index within those rows."""
        first, *inner = self.theirs[0]
        if first.isdigit():
            return slice(0, self.shape(ours)[0]), ours, index
        at = self.ours.index(first)
        start, stop, _ = index[at].indices(ours[at])
        width = math.prod(self._size(x, ours) for x in inner)
        inside = (*ours[:at], stop - start, *ours[at + 1 :])
        return (
            slice(start * width, stop * width),
            inside,
            (*index[:at], slice(None), *index[at + 1 :]),
        )

    def _size(self, letter: str, ours: Shape) -> int:
        return int(letter) if letter.isdigit() else ours[self.ours.index(letter)]


@dataclasses.dataclass(frozen=True)
class Rule:
    """The contents of a tensor that is not one parameter in the usual layout."""

    # None: the layout in `jaxlm.params`
    layout: str | None
    # the parameters in the tensor
    paths: tuple[str, ...]
    # layers before this one have no such tensor
    first_layer: int = 0
    # only in MLPs with a gate (True) or without one (False); None: in both
    gated: bool | None = None
    # the parameters are rows of the tensor, one after the other
    rows: bool = False
    # query, key and value are rows of the tensor, group by group
    grouped: bool = False

    def __init__(
        self,
        layout: str | None,
        *paths: str,
        first_layer: int = 0,
        gated: bool | None = None,
        rows: bool = False,
        grouped: bool = False,
    ):
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "first_layer", first_layer)
        object.__setattr__(self, "gated", gated)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "grouped", grouped)


Table = Mapping[str, str | Rule]


def linear(theirs: str, ours: str) -> dict[str, str | Rule]:
    """A torch Linear whose kernel and bias are parameters of a block: `q_proj` and `attn/query`."""
    return {f"{theirs}.weight": ours, f"{theirs}.bias": f"{ours}_bias"}


def attention(theirs: str, ours: str) -> dict[str, str | Rule]:
    """The four Linear layers of attention; `{}` in the name is replaced by q, k, v and out: `self_attn.{}_proj`."""
    roles = {"q": "query", "k": "key", "v": "value", "out": "out"}
    return {
        name: rule
        for short, role in roles.items()
        for name, rule in linear(theirs.format(short), f"{ours}/{role}").items()
    }


def dense(theirs: str, ours: str) -> dict[str, str | Rule]:
    """A torch Linear that is a `Dense` module with kernel and bias."""
    return {f"{theirs}.weight": f"{ours}/kernel", f"{theirs}.bias": f"{ours}/bias"}


def norm(theirs: str, ours: str) -> dict[str, str | Rule]:
    """A norm with scale and bias."""
    return {f"{theirs}.weight": f"{ours}/scale", f"{theirs}.bias": f"{ours}/bias"}


def within(theirs: str, ours: str, table: Table) -> dict[str, str | Rule]:
    """The table with prefixes added to all names, such as `within("h.{i}.", "stack/blocks/", LAYER)`."""

    return {
        theirs + name: _with_paths(rule, lambda path: ours + path) for name, rule in table.items()
    }


def rename(rule: str | Rule, old: str, new: str) -> str | Rule:
    """The rule with part of the parameters' paths replaced."""
    return _with_paths(rule, lambda path: path.replace(old, new))


def _with_paths(rule: str | Rule, change: Callable[[str], str]) -> str | Rule:
    if isinstance(rule, str):
        return change(rule)
    changed = copy.copy(rule)
    object.__setattr__(changed, "paths", tuple(change(path) for path in rule.paths))
    return changed


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of a parameter: one tensor, or one for each layer (and expert)."""

    template: str
    layout: Layout
    piece: int
    first_layer: int
    # sizes of the stacked dims: layers, layers and experts, or none
    stacked: Shape
    # shape of the parameter without the stacked dims
    shape: Shape
    # the tensor's first row that is the parameter's, and the number of its rows; None: they are the parameter's alone
    first_row: int = 0
    num_rows: int | None = None
    # the number of groups of heads, of whose rows the parameter has some each
    groups: int | None = None
    # the layers that are stacked, where some are not; None: all, by their index
    layers: tuple[int, ...] | None = None

    @property
    def their_shape(self) -> Shape:
        """The shape of each of the tensors."""
        own = self.layout.shape(self.shape)
        return own if self.num_rows is None else (self.num_rows, *own[1:])

    def put(self, tensor: np.ndarray, value: np.ndarray) -> None:
        """Writes the parameter into a C-contiguous tensor."""
        if self.groups is not None:
            part = self._of_groups(tensor)
            part[...] = value.reshape(part.shape)
            return
        rows = slice(self.first_row, self.first_row + self.layout.shape(self.shape)[0])
        own = tensor if self.num_rows is None else tensor[rows]
        self.layout.view(own, self.shape, self.piece)[...] = value

    def take(self, rows: np.ndarray, inside: Shape) -> np.ndarray:
        """The parameter, or a part of shape `inside`, of the rows that `rows` says; a view where that is possible."""
        if self.groups is not None:
            return self._of_groups(rows).reshape(inside)
        return self.layout.view(rows, inside, self.piece)

    def _of_groups(self, tensor: np.ndarray) -> np.ndarray:
        """A view as [D, groups, heads of a group, H], or of a bias [groups, heads of a group, H]."""
        assert self.groups is not None
        heads, width = self.shape[-2:]
        own = heads // self.groups
        split = tensor.reshape(self.groups, -1, width, *tensor.shape[1:])
        part = split[:, :own] if self.piece == 0 else split[:, self.piece - 3 :][:, :1]
        return np.moveaxis(part, -1, 0) if tensor.ndim > 1 else part

    def rows(self, index: Index) -> tuple[slice, Shape, Index]:
        """As `Layout.rows`, of the whole tensor."""
        if self.groups is not None:
            return slice(0, self.num_rows), self.shape, index
        rows, inside, rest = self.layout.rows(index, self.shape)
        return slice(rows.start + self.first_row, rows.stop + self.first_row), inside, rest

    def name(self, at: Shape) -> str | None:
        """The tensor of a layer (and expert); None for a layer that has none."""
        if at and at[0] < self.first_layer:
            return None
        if self.layers is not None:
            at = (self.layers[at[0]], *at[1:])
        values = iter(at)
        return re.sub(r"\{\w\}", lambda _: str(next(values)), self.template)

    def names(self) -> Iterator[tuple[Shape, str]]:
        """The names of all tensors, each with its index in the stacked dims."""
        for at in itertools.product(*(range(n) for n in self.stacked)):
            name = self.name(at)
            if name is not None:
                yield at, name


def resolve(table: Table, shapes: Mapping[str, Shape]) -> dict[str, Source]:
    """The source of each parameter; `shapes` has their shapes by path, and the table must list all of them."""
    sources: dict[str, Source] = {}
    known = leaves(shapes)
    for template, rule in _with_dense_blocks(table, known):
        present = [path for path in rule.paths if path in shapes]
        gates = [path.rsplit("/", 1)[0] + "/gate" in shapes for path in present]
        if rule.gated is not None and rule.gated not in gates:
            continue
        assert len(present) in (0, len(rule.paths)), (template, present)
        own: list[Source] = []
        for piece, path in enumerate(present):
            assert path not in sources, f"{path} is in the table twice"
            layout = Layout.parse(rule.layout or entry(path).layout)
            depth = len(shapes[path]) - len(layout.ours)
            assert depth == template.count("{"), (template, path, shapes[path])
            stacked, shape = shapes[path][:depth], shapes[path][depth:]
            source = Source(template, layout, piece, rule.first_layer, stacked, shape)
            layers, whole = known[path].layers, known[path].depth
            if isinstance(layers, tuple) and len(layers) < whole:
                source = dataclasses.replace(source, layers=layers)
            own.append(source)
        if rule.rows:
            counts = [source.their_shape[0] for source in own]
            starts = [sum(counts[:i]) for i in range(len(own))]
            own = [
                dataclasses.replace(source, piece=0, first_row=start, num_rows=sum(counts))
                for source, start in zip(own, starts)
            ]
        if rule.grouped and own:
            count = sum(source.their_shape[0] for source in own)
            groups = own[1].shape[-2]
            own = [dataclasses.replace(x, num_rows=count, groups=groups) for x in own]
        sources |= zip(present, own, strict=True)
    missing = set(shapes) - set(sources)
    assert not missing, f"no name in the table for {sorted(missing)}"
    return sources


def _with_dense_blocks(table: Table, known: Mapping[str, Leaf]) -> Iterator[tuple[str, Rule]]:
    """The table with the names of the layers whose blocks are not stacked, each with its number in place of `{i}`."""
    alone = {x.layers for x in known.values() if isinstance(x.layers, int)}
    for template, rule in table.items():
        rule = Rule(None, rule) if isinstance(rule, str) else rule
        yield template, rule
        if "{i}" in template:
            for layer in sorted(alone):
                own = rename(rule, "/blocks/", f"/{dense_block(layer)}/")
                yield template.replace("{i}", str(layer)), cast("Rule", own)


def pattern(template: str) -> re.Pattern[str]:
    """A regular expression for the names of a template."""
    return re.compile(re.sub(r"\\\{\w\\\}", r"\\d+", re.escape(template)))


def export(sources: Mapping[str, Source], params: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors to write, in the order of the table; values are computed on demand."""
    by_template: dict[str, list[tuple[str, Source]]] = {}
    for path, source in sources.items():
        by_template.setdefault(source.template, []).append((path, source))
    for parts in by_template.values():
        for at, name in parts[0][1].names():
            yield Tensor(name, parts[0][1].their_shape, tuple(parts), at, params)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor to be written."""

    name: str
    shape: Shape
    parts: tuple[tuple[str, Source], ...]
    at: Shape
    params: Mapping[str, Any]

    def make(self) -> np.ndarray:
        """Its values, C-contiguous."""
        tensor = np.empty(self.shape, self.params[self.parts[0][0]].dtype)
        for path, source in self.parts:
            source.put(tensor, np.asarray(self.params[path][self.at]))
        return tensor
