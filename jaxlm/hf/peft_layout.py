"""How the two matrices of an adapter of peft map to those of ours, by the layout of the tensor that they are added to.

An adapter of peft belongs to a module of transformers, one of ours to a parameter. Where a module holds several
parameters (the c_attn of GPT-2 holds query, key and value), their adapters become one of a rank that is their sum, and
one of peft's is given to each of them.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jaxlm.hf.table import Source
from jaxlm.params import PARAMS, sides

Letters = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The dims of a tensor's inputs and of its outputs, in its own order and in ours; a number is a dim of pieces."""

    inputs: Letters
    outputs: Letters
    our_inputs: Letters
    our_outputs: Letters
    sizes: dict[str, int]
    # the first of the module's outputs that are the parameter's, and their number; None: it has no others
    first: int = 0
    total: int | None = None

    @classmethod
    def of(cls, path: str, source: Source) -> Layout:
        """The layout of the tensor that holds a parameter with an adapter."""
        both = sides(_name(path))
        assert both is not None, path
        ours = source.layout.ours
        count = len(both[0])
        if source.groups is not None:
            raise ValueError(
                f"adapters of {source.template} are not supported, because it is grouped by heads: merge with peft"
            )
        if len(source.layout.theirs) != 2:
            raise ValueError(
                f"peft has no place for adapters of experts ({source.template}): export the merged model instead"
            )
        first, second = source.layout.theirs
        is_first = bool(set(first) & set(ours[:count]))
        inputs, outputs = (first, second) if is_first else (second, first)
        sizes = dict(zip(ours, source.shape))
        sizes |= {x: int(x) for x in (*first, *second) if x.isdigit()}
        own = (inputs, outputs, ours[:count], ours[count:], sizes)
        return cls(*own, source.first_row, source.num_rows)

    @property
    def num_inputs(self) -> int:
        """Rows of the first matrix, [inputs, R]."""
        return math.prod(self.sizes[x] for x in self.inputs)

    @property
    def num_outputs(self) -> int:
        """Columns of the second matrix, [R, outputs]."""
        return math.prod(self.sizes[x] for x in self.outputs) if self.total is None else self.total

    def view_inputs(self, matrix: np.ndarray, piece: int) -> np.ndarray:
        """A view of a C-contiguous matrix [inputs, R] with our dims, of one of the parameters in the tensor."""
        return self._view(matrix, self.inputs, self.our_inputs, piece)

    def view_outputs(self, matrix: np.ndarray, piece: int) -> np.ndarray:
        """The same of a matrix [outputs, R], as [R, our dims]."""
        if self.total is not None:
            count = math.prod(self.sizes[x] for x in self.outputs)
            matrix = matrix[self.first : self.first + count]
        return np.moveaxis(self._view(matrix, self.outputs, self.our_outputs, piece), -1, 0)

    def _view(self, matrix: np.ndarray, theirs: Letters, ours: Letters, piece: int) -> np.ndarray:
        assert matrix.flags.c_contiguous
        split = matrix.reshape(*(self.sizes[x] for x in theirs), matrix.shape[-1])
        split = split[tuple(piece if x.isdigit() else slice(None) for x in theirs)]
        kept = [x for x in theirs if not x.isdigit()]
        return split.transpose(*(kept.index(x) for x in ours), len(kept))


def is_table(path: str) -> bool:
    """Whether a parameter is a table of tokens [V, D]: of embeddings, or of logits, whose inputs are D."""
    return PARAMS[_name(path)].matrix is None


def is_transposed(path: str, source: Source) -> bool:
    """Whether a tensor is [inputs, outputs], as in the Conv1D of GPT-2."""
    return not is_table(path) and source.layout.theirs[0] == Layout.of(path, source).inputs


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
