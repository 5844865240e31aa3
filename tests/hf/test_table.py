"""Layouts of tensors, and that reading and writing agree."""

import numpy as np
import pytest

from jaxlm.hf.table import Layout, Rule, resolve, within
from jaxlm.params import PARAMS

SIZES = dict(D=4, N=3, H=2, F=5, E=4, V=6, P=7, R=8, K=3)


def test_a_fused_projection_by_hand():
    layout = Layout.parse("D (3 N H) -> D N H")
    theirs = np.arange(4 * 18).reshape(4, 18)
    assert layout.shape((4, 3, 2)) == (4, 18)
    value = layout.view(theirs, (4, 3, 2), 2)
    np.testing.assert_array_equal(value, theirs[:, 12:].reshape(4, 3, 2))
    # each head's query, key and value side by side
    layout = Layout.parse("(N 3 H) D -> D N H")
    theirs = np.arange(18 * 4).reshape(18, 4)
    key = layout.view(theirs, (4, 3, 2), 1)
    np.testing.assert_array_equal(key[:, 2], theirs[14:16].T)


@pytest.mark.parametrize(
    "text",
    [
        *{entry.layout: None for entry in PARAMS.values()},
        "D (3 N H) -> D N H",
        "(N 3 H) D -> D N H",
        "(3 N H) -> N H",
    ],
)
def test_a_view_reads_and_writes_the_same_numbers(text):
    layout = Layout.parse(text)
    ours = tuple(SIZES[x] for x in layout.ours)
    theirs = np.zeros(layout.shape(ours), int)
    numbers = [int(x) for group in layout.theirs for x in group if x.isdigit()]
    count = numbers[0] if numbers else 1
    for piece in range(count):
        layout.view(theirs, ours, piece)[...] = 1 + np.arange(np.prod(ours)).reshape(ours)
    assert (theirs > 0).all()
    # any part of ours from the rows that hold it
    index = tuple(slice(1, n) for n in ours)
    rows, inside, rest = layout.rows(index, ours)
    part = layout.view(np.ascontiguousarray(theirs[rows]), inside, 0)[rest]
    np.testing.assert_array_equal(part, layout.view(theirs, ours, 0)[index])


def test_entries_without_parameters_are_skipped_and_parameters_without_entries_are_errors():
    table = within("h.{i}.", "blocks/", {"q.weight": "attn/query", "q.bias": "attn/query_bias"})
    table |= {"n.{i}.weight": Rule(None, "blocks/norm/scale", first_layer=1)}
    shapes = {"blocks/attn/query": (2, 4, 3, 2), "blocks/norm/scale": (2, 4)}
    sources = resolve(table, shapes)
    assert [name for _, name in sources["blocks/attn/query"].names()] == [
        "h.0.q.weight",
        "h.1.q.weight",
    ]
    assert [name for _, name in sources["blocks/norm/scale"].names()] == ["n.1.weight"]
    assert sources["blocks/attn/query"].their_shape == (6, 4)
    with pytest.raises(AssertionError, match="blocks/attn/key"):
        resolve(table, shapes | {"blocks/attn/key": (2, 4, 3, 2)})
