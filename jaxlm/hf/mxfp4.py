"""Reads mxfp4, the four-bit floats in which the experts of gpt-oss are stored (OCP Microscaling Formats 1.0).

A tensor is stored as two: `NAME_blocks` with two numbers a byte, and `NAME_scales` with an exponent for each 32 numbers
of a row. Every number is exact in float32 and in bfloat16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlm.hf.weights import Stored

BLOCKS, SCALES = "_blocks", "_scales"
# the numbers of a sign, two bits of exponent and one of mantissa; the low half of a byte comes first
_HALF = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
NUMBERS = np.array(_HALF + [-x for x in _HALF], np.float32)


@dataclasses.dataclass(frozen=True)
class Unpacked(Stored):
    """The two stored tensors as one [E, inputs, outputs]; stored are rows of outputs."""

    blocks: Any = None
    scales: Any = None

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        """The tensor, or some of its rows, in float32 and C-contiguous."""
        blocks, scales = self.blocks.read(rows), self.scales.read(rows)
        result = np.empty((len(blocks), *self.shape[1:]), np.float32)
        # expert by expert: whole tensors are large
        for own, block, scale in zip(result, blocks, scales):
            numbers = np.stack([NUMBERS[block & 15], NUMBERS[block >> 4]], axis=-1)
            numbers = numbers.reshape(*scale.shape, -1)
            scaled = np.ldexp(numbers, scale.astype(np.int32)[..., None] - 127)
            own[...] = scaled.reshape(len(block), -1).T
        return result


def unpacked(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors with each pair of blocks and scales as one.

    Raises:
        ValueError: one of a pair is missing, or they do not belong together.
    """
    result: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        base = name.removesuffix(SCALES)
        if name.endswith(SCALES) and base + BLOCKS in tensors:
            continue
        base = name.removesuffix(BLOCKS)
        if not name.endswith(BLOCKS):
            result[name] = tensor
            continue
        scales = tensors.get(base + SCALES)
        if scales is None or len(tensor.shape) != 4 or tensor.shape[:-1] != scales.shape:
            raise ValueError(f"{tensor.path}: {name} has no {base + SCALES} of the same shape")
        experts, outputs, groups, size = tensor.shape
        shape = (experts, groups * size * 2, outputs)
        dtype = np.dtype(np.float32)
        result[base] = Unpacked(tensor.path, base, dtype, shape, 0, blocks=tensor, scales=scales)
    return result
