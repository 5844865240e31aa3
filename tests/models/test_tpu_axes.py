"""Rows and experts split over TPUs: kernels, collectives and memory of the compiled program; needs libtpu, no TPU."""

import json

import pytest
from tpu_scripts import NEEDS_LIBTPU, lines_of

pytestmark = NEEDS_LIBTPU


@pytest.fixture(scope="module")
def facts():
    programs = [json.loads(x) for x in lines_of("compile_axes_for_tpu.py") if x.startswith("{")]
    return {name: program for each in programs for name, program in each.items()}


def test_split_rows_run_splash_on_gathered_keys_in_balanced_chunks(facts):
    program = facts["context"]
    for kernel in ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"):
        assert kernel in program["kernels"]
    collectives = program["collectives"]
    # keys and values of 2,048 positions; queries and outputs in halves of a device's 512
    assert "bf16[1,2,2048,64]" in collectives["all-gather"]
    assert "bf16[1,4,256,64]" in collectives["collective-permute"]
    # the gradients of keys and values are not left whole
    assert "bf16[1,2,512,64]" in collectives["reduce-scatter"]
    # and no activations are gathered
    assert not [x for x in collectives["all-gather"] if x.endswith("2048,256]")]


def test_nothing_grows_with_the_square_of_the_length(facts):
    # 8,192 positions of 32,768 on each of four chips: a mask of a byte would take 268 MB, scores of four heads 4.3 GB
    assert facts["long"]["temporaries"] < 200e6


def test_every_chip_gets_the_tokens_of_all_and_multiplies_them_by_its_own_experts(facts):
    program = facts["expert"]
    # besides splash, three products of the experts in each direction
    assert program["calls"] >= 4 + 9
    collectives = program["collectives"]
    assert "bf16[4,256,256]" in collectives["all-gather"]
    assert "bf16[1,256,256]" in collectives["reduce-scatter"]
    # no expert leaves its chip: two of [256, 512] on each
    gathered = [x for shapes in collectives.values() for x in shapes]
    assert not [x for x in gathered if "512" in x]
    # XLA's own product would be of all 2,048 choices with both experts
    assert not [x for x in program["shapes"] if x.endswith("[2,2048,512]")]
