"""Runs of the text VAE in two phases: what is frozen stays bit for bit, and a resumed run equals a whole one."""

import json

import numpy as np
import pytest
from runs import interrupted_after, losses, small_runs, stored_params, tiny

from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    EvaluationConfig,
    TokenizerConfig,
    VAEConfig,
)
from jaxlm.run.pretrain import pretrain
from jaxlm.run.restore import restore_model
from jaxlm.tasks import TextVAEConfig
from jaxlm.tasks.vae import TextVAE

pytestmark = pytest.mark.slow

STEPS, END = 12, 6
ENCODER = ("backbone/encoder/", "head/posterior/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(20)]
    lines = {" ".join(rng.choice(words, n)) for n in rng.integers(1, 12, 80)}
    (folder / "corpus.txt").write_text("\n".join(sorted(lines)) + "\n")
    with small_runs(), pytest.MonkeyPatch.context() as patch:
        # compiling it takes seconds
        patch.setattr(TextVAE, "sample", lambda *_: None)
        yield folder


def config_of(folder, name, scheme):
    """A run of 12 steps in two phases of 6; with decoder_last it has dropout, a state of the loss and evaluation."""
    main = scheme == "decoder_last"
    # without biases: no gradient reaches that of the keys
    sizes = dict(dim=16, num_layers=1, num_heads=2, max_len=16, norm="rms_norm", biases=())
    dropout = dict(dropout=0.1 * main, attention_dropout=0.0)
    model = VAEConfig(
        encoder=EncoderConfig(**sizes, **dropout, num_token_types=0),
        decoder=DecoderConfig(**sizes),
        latent_dim=4,
        # no attention to the latent: one key needs neither queries nor keys
        inject=("embedding",),
        mean_scale=0.6 * main,
    )
    data = DataConfig(
        train=(str(folder / "corpus.txt"),),
        text_unit="line",
        validation_fraction=0.2 * main,
        seq_len=16,
        tokenizer=TokenizerConfig(kind="word", vocab_size=64),
    )
    return tiny(
        folder,
        name,
        model=model,
        task=TextVAEConfig(scheme=scheme, kl_steps=8, decoder_word_dropout=0.2 * main),
        data=data,
        steps=STEPS,
        checkpoint=CheckpointConfig(every=3, keep=4),
        evaluation=EvaluationConfig(every=STEPS),
    )


@pytest.fixture(scope="module")
def whole(folder):
    """Uninterrupted runs by scheme: their summaries."""
    return {
        scheme: pretrain(config_of(folder, scheme, scheme))
        for scheme in ("decoder_last", "encoder_first")
    }


def moved(folder, first, last):
    """The parameters that differ between two checkpoints, and all parameters."""
    before, after = stored_params(folder, first), stored_params(folder, last)
    return {name for name in after if not np.array_equal(before[name], after[name])}, set(after)


@pytest.mark.parametrize(
    ("scheme", "frozen_phase", "frozen_is_encoder"),
    [("decoder_last", (END, STEPS), True), ("encoder_first", (3, END), False)],
)
def test_only_one_side_moves_in_one_phase_and_both_in_the_other(
    folder, whole, scheme, frozen_phase, frozen_is_encoder
):
    changed, names = moved(folder / scheme, *frozen_phase)
    frozen = {name for name in names if name.startswith(ENCODER) == frozen_is_encoder}
    assert frozen
    # bit for bit
    assert changed.isdisjoint(frozen)
    assert changed == names - frozen
    if frozen_is_encoder:
        # a fixed function also where it normalises its means
        states = [
            restore_model(folder / scheme, step=step).context.state for step in (3, *frozen_phase)
        ]
        kept = [np.array_equal(x["mean"], states[1]["mean"]) for x in states]
        assert kept == [False, True, True]
    other = (3, END) if frozen_is_encoder else (END, STEPS)
    changed, _ = moved(folder / scheme, *other)
    assert changed == names


def test_the_loss_of_a_run_and_its_evaluation_are_recorded(folder, whole):
    seen = losses(folder / "decoder_last")
    assert sorted(seen) == list(range(1, STEPS + 1))
    result = whole["decoder_last"]["evaluation"]
    assert {"loss", "reconstruction", "kl", "perplexity", "active_units"} <= set(result)
    assert result["word_perplexity"] == pytest.approx(result["perplexity"])
    assert result["iw_word_perplexity"] == pytest.approx(result["iw_perplexity"])
    assert 0 < result["distinct_samples"] <= 1
    assert "the latent is " in whole["decoder_last"]["verdict"]
    # in evaluation the weight of the divergence is 1
    assert result["loss"] == pytest.approx(result["reconstruction"] + result["kl"], rel=1e-5)
    rows = [
        json.loads(line)
        for line in (folder / "decoder_last/metrics.jsonl").read_text().splitlines()
    ]
    weights = [row["kl_weight"] for row in rows if "kl_weight" in row]
    np.testing.assert_allclose(weights, np.minimum(np.arange(STEPS) / 8, 1), rtol=1e-5)


def test_a_run_interrupted_in_the_second_phase_equals_an_uninterrupted_one(folder, whole, capsys):
    config = config_of(folder, "stopped", "decoder_last")
    # the newest checkpoint is that of step 9
    with interrupted_after(11):
        pretrain(config)
    capsys.readouterr()
    summary = pretrain(config)
    assert "phase 2 of 2 continues; steps" in capsys.readouterr().out
    assert losses(folder / "stopped") == losses(folder / "decoder_last")
    expected = stored_params(folder / "decoder_last")
    for name, value in stored_params(folder / "stopped").items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    # which also depends on the running statistics of `mean_scale`
    assert summary["evaluation"] == whole["decoder_last"]["evaluation"]


def test_a_decoder_begins_anew_in_the_same_way_when_a_run_resumes_between_the_phases(folder):
    whole, stopped = (config_of(folder, f"fresh_{i}", "fresh_decoder") for i in range(2))
    pretrain(whole)
    # the newest checkpoint is the last one of the first phase
    with interrupted_after(END + 1):
        pretrain(stopped)
    pretrain(stopped)
    first, last = (stored_params(folder / "fresh_0", step) for step in (END, STEPS))
    assert losses(folder / "fresh_1") == losses(folder / "fresh_0")
    for name, value in stored_params(folder / "fresh_1").items():
        np.testing.assert_array_equal(value, last[name], err_msg=name)
    # the old decoder is gone: the table of tokens is as far from it as two random tables are
    table = "backbone/decoder/embed/token/embedding"
    assert np.abs(np.corrcoef(first[table].ravel(), last[table].ravel())[0, 1]) < 0.5
    kept = "backbone/encoder/embed/token/embedding"
    assert np.corrcoef(first[kept].ravel(), last[kept].ravel())[0, 1] > 0.5
