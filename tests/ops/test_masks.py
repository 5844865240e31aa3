"""Masks as drawings: rows are queries, columns are keys, x marks allowed pairs."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import masks


def picture(allowed) -> list[str]:
    """The matrix of one row of the batch."""
    assert allowed.shape[:2] == (1, 1)
    return ["".join("x" if x else "." for x in row) for row in np.asarray(allowed)[0, 0]]


def test_causal():
    assert picture(masks.matrix(masks.Mask(causal=True), 4, 4)) == [
        "x...",
        "xx..",
        "xxx.",
        "xxxx",
    ]


def test_a_causal_window_includes_the_position_and_window_minus_one_before_it():
    assert picture(masks.matrix(masks.Mask(causal=True, window=2), 4, 4)) == [
        "x...",
        "xx..",
        ".xx.",
        "..xx",
    ]


def test_a_prefix_is_visible_to_its_whole_segment():
    ids = jnp.array([[1, 1, 1, 2, 2, 0]])
    prefix = jnp.array([[True, True, False, True, False, False]])
    mask = masks.Mask(q_segment_ids=ids, kv_segment_ids=ids, kv_prefix=prefix, causal=True)
    assert picture(masks.matrix(mask, 6, 6)) == [
        "xx....",
        "xx....",
        "xxx...",
        "...x..",
        "...xx.",
        ".....x",
    ]


def test_window_without_causality_is_symmetric():
    assert picture(masks.matrix(masks.Mask(window=2), 4, 4)) == [
        "xx..",
        "xxx.",
        ".xxx",
        "..xx",
    ]


def test_segments_attend_only_to_themselves():
    ids = jnp.array([[1, 1, 2, 2, 0]])
    mask = masks.Mask(q_segment_ids=ids, kv_segment_ids=ids)
    assert picture(masks.matrix(mask, 5, 5)) == [
        "xx...",
        "xx...",
        "..xx.",
        "..xx.",
        "....x",
    ]


def test_all_rules_together():
    ids = jnp.array([[1, 1, 1, 2, 2, 2]])
    mask = masks.Mask(q_segment_ids=ids, kv_segment_ids=ids, causal=True, window=2)
    assert picture(masks.matrix(mask, 6, 6)) == [
        "x.....",
        "xx....",
        ".xx...",
        "...x..",
        "...xx.",
        "....xx",
    ]


def test_query_positions_refer_to_the_cache():
    mask = masks.Mask(causal=True, q_positions=jnp.array([[2, 3], [0, 1]]))
    allowed = masks.matrix(mask, 2, 5)
    assert picture(allowed[:1]) == ["xxx..", "xxxx."]
    assert picture(allowed[1:]) == ["x....", "xx..."]


def test_the_window_moves_with_the_position_in_the_cache():
    mask = masks.Mask(causal=True, window=2, q_positions=jnp.array([[3]]))
    assert picture(masks.matrix(mask, 1, 5)) == ["..xx."]


def test_segments_of_queries_and_keys_may_differ():
    mask = masks.Mask(q_segment_ids=jnp.array([[1, 2]]), kv_segment_ids=jnp.array([[2, 1, 1, 0]]))
    assert picture(masks.matrix(mask, 2, 4)) == [".xx.", "x..."]


def test_a_mask_without_rules_is_no_matrix():
    assert masks.matrix(masks.Mask(), 3, 3) is None


def test_a_given_matrix_is_the_mask():
    dense = jnp.array([[[[True, False], [False, True]]]])
    assert picture(masks.matrix(masks.Mask(dense=dense), 2, 2)) == ["x.", ".x"]


@pytest.mark.parametrize("shape", [(3,), (1, 1, 3, 3)])
def test_combined_masks_allow_what_each_allows(shape):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, *shape)) < 0.5
    np.testing.assert_array_equal(masks.both(jnp.asarray(a), jnp.asarray(b)), np.logical_and(a, b))
    assert masks.both(None, None) is None
    np.testing.assert_array_equal(masks.both(a, None), a)
    np.testing.assert_array_equal(masks.both(None, b), b)


def test_additive_masks_are_finite_and_outweigh_any_score():
    y = masks.additive(jnp.array([True, False]))
    assert y.dtype == jnp.float32
    assert float(y[0]) == 0.0
    assert -np.inf < float(y[1]) < -1e20


def test_segments_from_padding():
    ids = masks.segments_from_padding(jnp.array([[True, True, False]]))
    assert ids.dtype == jnp.int32
    assert ids.tolist() == [[1, 1, 0]]
