"""Pretraining that starts from a model."""

import dataclasses

import numpy as np
import pytest
from runs import stored_params, tiny, write_corpus

from jaxlm import EncoderConfig, MaskedLMConfig, pretrain
from jaxlm.cli import train
from jaxlm.run import convert
from jaxlm.run.init_train import find

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("init_train")
    write_corpus(folder)
    pretrain(tiny(folder, "first", steps=4))
    return folder


def further(folder, name, init, **changes):
    """A run of one step whose learning rate changes nothing that float32 shows."""
    config = tiny(folder, name, steps=1)
    optimizer = dataclasses.replace(
        config.optimizer, learning_rate=1e-30, warmup_steps=0, weight_decay=0.0
    )
    return dataclasses.replace(config, init=str(init), optimizer=optimizer, **changes)


def test_weights_and_tokenizer_are_those_of_the_model(folder):
    convert.convert(folder / "first", folder / "exported")
    expected = stored_params(folder / "first", 4)
    for name in ("first", "exported"):
        # what the config says of the architecture gives way
        run = further(folder, f"from_{name}", folder / name)
        own = dataclasses.replace(run.model, num_layers=7, dim=48)
        pretrain(dataclasses.replace(run, model=own))
        params = stored_params(folder / f"from_{name}", 1)
        assert params.keys() == expected.keys()
        for key, value in params.items():
            np.testing.assert_array_equal(value, expected[key], err_msg=key)
    texts = [(folder / name / "tokenizer.json").read_text() for name in ("first", "from_first")]
    assert texts[0] == texts[1]


def test_what_does_not_fit_is_refused(folder):
    with pytest.raises(ValueError, match="is the folder of --init"):
        find(further(folder, "first", folder / "first"))
    encoder = EncoderConfig(dim=16, num_layers=1, num_heads=2, max_len=32)
    masked = further(folder, "x", folder / "first", model=encoder, task=MaskedLMConfig())
    with pytest.raises(ValueError, match="has a DecoderConfig, and task MaskedLMConfig is set up"):
        find(masked)
    for option in (["--model.dim", "32"], ["--data.tokenizer.vocab-size", "300"]):
        with pytest.raises(ValueError, match=f"{option[0]} has no effect with --init"):
            train.run(["--init", str(folder / "first"), *option])
    with pytest.raises(ValueError, match="no such run folder"):
        find(further(folder, "x", folder / "absent"))
