"""A training step and a step of the engine compiled for TPUs; needs libtpu but no TPU."""

import json

import pytest
from tpu_scripts import NEEDS_LIBTPU, lines_of

pytestmark = NEEDS_LIBTPU


@pytest.fixture(scope="module")
def facts():
    return json.loads(lines_of("compile_for_tpu.py")[-1])


def test_a_step_of_local_and_global_layers_compiles_for_tpus_with_splash_and_no_square_mask(facts):
    forward, query, key_value = "splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"
    for kernel in (forward, query, key_value):
        assert any(name.startswith(kernel) for name in facts["splash"]["kernels"]), facts
    # of each layer compiled: local and global in the scan, and one after it
    assert facts["splash"]["calls"] >= 9
    assert facts["splash"]["squares"] == []
    # nothing that is tuned for the CPU, which compiles it
    for program in (facts["splash"], facts["xla"]):
        assert program["barriers"] == program["host calls"] == 0
    # without the kernel there are such arrays, so that looking for them means something
    assert facts["xla"]["kernels"] == []
    assert facts["xla"]["squares"]


def test_a_step_of_the_engine_writes_its_caches_in_place_and_in_no_loop(facts):
    program = facts["generation"]
    assert program["in place"] >= program["caches"]
    assert program["temporaries"] < program["smallest cache"]
    # a scatter runs as a serial loop
    assert program["loops"] == program["scatters"] == 0


def test_the_chunks_of_the_loss_move_no_table_between_devices(facts):
    program = facts["loss"]
    # sums of the softmax and gradients of the hidden states, over `tensor`
    assert 0 < program["in loop"] < program["table"] / 4
    assert program["outside"] >= program["table"]


def test_meshes_that_jax_refuses_without_splitting_the_sides_of_a_pod(facts):
    assert facts["meshes"]["4x4x4"] == facts["meshes"]["8x8"] == [[0]]
    assert facts["meshes"]["two slices"] == [[0], [1]]
