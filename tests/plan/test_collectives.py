"""Collectives of HLO texts: groups, axes, loops and bytes."""

import numpy as np
import pytest

from jaxlm.plan.collectives import Collective, _groups, collectives

MESH = {"data": 2, "fsdp": 4}
NODES = [0, 0, 0, 0, 1, 1, 1, 1]
FSDP = [[0, 1, 2, 3], [4, 5, 6, 7]]
DATA = [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", FSDP),
        ("replica_groups=[2,4]<=[8]", FSDP),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", DATA),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, use_global_device_ids=true", FSDP),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", DATA),
        ("replica_groups=mesh['a'=8] {'a'}", [list(range(8))]),
        ("replica_groups={}", [list(range(8))]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
    ],
)
def test_groups_are_read_in_all_their_forms(text, groups):
    np.testing.assert_array_equal(_groups(f"x = f32[] all-reduce(y), {text}", 8), groups)


def module(*lines, entry=()):
    """A module whose entry calls `body` in a loop of three rounds."""
    return "\n".join(
        [
            "HloModule m",
            "%cond (p: (s32[], f32[8])) -> pred[] {",
            "  %three = s32[]{:T(128)} constant(3)",
            "  %i = s32[]{:T(128)} get-tuple-element(%p), index=0",
            "  ROOT %lt = pred[] compare(%i, %three), direction=LT",
            "}",
            "%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {",
            *lines,
            "}",
            "ENTRY %main (a: f32[8]) -> f32[8] {",
            "  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%body",
            *entry,
            "}",
        ]
    )


FOUR = "replica_groups={{0,1,2,3},{4,5,6,7}}, channel_id="
CASES = {
    # a gathered array of 64 KiB: three quarters of it come from others, in each of three rounds
    "all-gather": (
        f"  %g = bf16[256,128]{{1,0}} all-gather(%x), {FOUR}1",
        Collective("all-gather", ("fsdp",), 4, False, 3, 3 * 0.75 * 65536),
    ),
    "asynchronous": (
        f"  %g = (bf16[64,128], bf16[256,128]{{1,0}}) all-gather-start(%x), {FOUR}1",
        Collective("all-gather", ("fsdp",), 4, False, 3, 3 * 0.75 * 65536),
    ),
    "several arrays": (
        f"  %g = (f32[16]{{0}}, f32[48]{{0}}) all-reduce(%x, %y), {FOUR}1",
        Collective("all-reduce", ("fsdp",), 4, False, 3, 3 * 2 * 0.75 * 256),
    ),
    # of the result each device has a quarter
    "reduce-scatter": (
        f"  %g = f32[16]{{0}} reduce-scatter(%x), {FOUR}1",
        Collective("reduce-scatter", ("fsdp",), 4, False, 3, 3 * 0.75 * 256),
    ),
    "reduce-scatter in the background": (
        f"  %g = ((f32[64]{{0}}), f32[16]{{0}}) reduce-scatter-start(%x), {FOUR}1",
        Collective("reduce-scatter", ("fsdp",), 4, False, 3, 3 * 0.75 * 256),
    ),
    "permutation": (
        "  %g = (s8[4,32], s8[4,32], u32[], u32[]) collective-permute-start(%x), channel_id=1, "
        "source_target_pairs={{0,1},{1,2},{2,3},{3,0},{4,5},{5,6},{6,7},{7,4}}",
        Collective("collective-permute", ("fsdp",), 4, False, 3, 3 * 128.0),
    ),
    "between nodes": (
        "  %g = f32[64]{0} all-reduce(%x), replica_groups=[4,2]<=[2,4]T(1,0), channel_id=1",
        Collective("all-reduce", ("data",), 2, True, 3, 3 * 2 * 0.5 * 256),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bytes_count_as_often_as_the_loop_runs(name):
    line, expected = CASES[name]
    assert collectives(module(line), MESH, NODES) == [expected]


def test_a_known_number_of_rounds_holds_and_channels_count_once():
    line = f"  %g = f32[64]{{0}} all-reduce(%x), {FOUR}1"
    known = '  %w = f32[8] while(%t), body=%body, backend_config={"known_trip_count":{"n":"5"}}'
    text = module(line, line).replace(
        "  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%body", known
    )
    [found] = collectives(text, MESH, NODES)
    assert (found.count, found.bytes) == (5, 5 * 2 * 0.75 * 256)


def test_an_all_reduce_that_keeps_a_part_is_a_reduce_scatter():
    text = module().replace(
        "ENTRY",
        "%all-reduce-scatter.1 (p: f32[64]) -> f32[16] {\n"
        f"  %r = f32[64]{{0}} all-reduce(%p), {FOUR}1\n}}\nENTRY",
    )
    call = "  %f = f32[16] fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1\n}"
    head, _, _ = text.rpartition("}")
    [found] = collectives(head + call, MESH, NODES)
    assert found == Collective("reduce-scatter", ("fsdp",), 4, False, 1, 0.75 * 256)


def test_groups_of_one_device_send_nothing():
    line = "  %g = f32[64]{0} all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, channel_id=1"
    assert collectives(module(line), MESH, NODES) == []
