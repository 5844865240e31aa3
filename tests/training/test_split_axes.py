"""What the axes `expert`, `context` and `tensor` cannot split is refused before anything is compiled."""

import dataclasses

import pytest

from jaxlm import sharding
from jaxlm.config import (
    ComputeConfig,
    CurriculumConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    MeshConfig,
    PrivacyConfig,
    TrainConfig,
    VAEConfig,
)
from jaxlm.tasks import CausalLMConfig
from jaxlm.training import batches

SIZES = dict(dim=16, num_layers=1, num_heads=2, max_len=512)
RUN = TrainConfig(
    model=DecoderConfig(**SIZES), task=CausalLMConfig(), data=DataConfig(seq_len=64), batch_size=8
)
DEBERTA = EncoderConfig(**SIZES, positions="relative", relative_scores="disentangled")
MIXTURE = DecoderConfig(**SIZES, num_experts=4)
PRIVATE = PrivacyConfig(epsilon=8.0, delta=1e-5, clip=1.0, microbatch=8, public=("validation",))


@pytest.mark.parametrize(
    ("mesh", "changes", "message"),
    [
        (dict(context=8), dict(data=DataConfig(seq_len=60)), r"data.seq_len=60 .* mesh.context=8"),
        (
            dict(context=4),
            dict(curriculum=CurriculumConfig(ends=(9,), seq_lens=(30,))),
            r"curriculum.seq_lens\[0\]=30 is not a multiple of mesh.context=4",
        ),
        (dict(context=2), dict(model=DEBERTA), "mesh.context=2: disentangled attention"),
        (
            dict(context=2),
            dict(model=VAEConfig(encoder=DEBERTA, decoder=RUN.model)),
            "mesh.context=2: disentangled attention",
        ),
        (dict(context=2), dict(privacy=PRIVATE), "mesh.context=2: private training"),
        (dict(expert=2), {}, "mesh.expert=2, but the model has no experts"),
        ({}, dict(compute=ComputeConfig(sequence_parallel=True)), "no effect with mesh.tensor=1"),
        (
            dict(data=2, expert=4),
            dict(model=MIXTURE, batch_size=12),
            "batch_size=12 is not a multiple of the 8 devices",
        ),
        # and what they can
        (dict(context=8), {}, None),
        (dict(expert=4), dict(model=MIXTURE), None),
        (dict(tensor=2), dict(compute=ComputeConfig(sequence_parallel=True)), None),
    ],
)
def test_what_cannot_be_split_is_refused(mesh, changes, message):
    config = dataclasses.replace(RUN, **changes)
    devices = sharding.make_mesh(MeshConfig(**mesh))
    if message is None:
        batches.check_sizes(config, devices)
        return
    with pytest.raises(ValueError, match=message) as e:
        batches.check_sizes(config, devices)
    assert "\n" not in str(e.value)
