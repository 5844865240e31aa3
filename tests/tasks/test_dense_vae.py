"""The VAE of rows of numbers: its loss by hand, runs on array files, resuming, predictions, bad files."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import interrupted_after, losses, small_runs, stored_params

from jaxlm.config import (
    CheckpointConfig,
    DataConfig,
    DecoderConfig,
    DenseVAEConfig,
    EvaluationConfig,
    FinetuneConfig,
    MeshConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from jaxlm.run.convert import convert
from jaxlm.run.evaluate import evaluate
from jaxlm.run.finetune import finetune
from jaxlm.run.inspect import inspect
from jaxlm.run.predict import predict
from jaxlm.run.pretrain import pretrain
from jaxlm.run.restore import restore
from jaxlm.tasks import ArrayVAEConfig, CausalLMConfig, elbo
from jaxlm.tasks.array_vae import ArrayVAE
from jaxlm.tasks.task import Context

D, Z = 6, 2


def config_of(path, likelihood="gaussian", run_dir=None, task=None, **changes):
    config = TrainConfig(
        name="arrays",
        run_dir=None if run_dir is None else str(run_dir),
        model=DenseVAEConfig(inputs=D, hidden=(16,), latent_dim=Z, likelihood=likelihood),
        task=task or ArrayVAEConfig(kl_schedule="constant"),
        data=DataConfig(train=(str(path),), seq_len=D, validation_fraction=0.2),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=5, weight_decay=0.0),
        checkpoint=CheckpointConfig(every=50),
        evaluation=EvaluationConfig(every=100),
        mesh=MeshConfig(),
        steps=200,
        batch_size=16,
        log_every=10,
    )
    return dataclasses.replace(config, **changes)


def write_rows(path, likelihood="gaussian"):
    """200 rows that are determined, up to a little noise, by one number, the sign of which is their class."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(200, 1))
    x = hidden * np.array([1, -1, 2, 1, -2, 1]) + 0.1 * rng.normal(size=(200, D))
    if likelihood == "bernoulli":
        x = (x > 0).astype(float)
    np.savez(path, x=x, y=(hidden[:, 0] > 0).astype(int))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with small_runs():
        yield tmp_path_factory.mktemp("arrays")


@pytest.fixture(scope="module")
def trained(folder):
    path = write_rows(folder / "rows.npz")
    return path, folder / "run", pretrain(config_of(path, run_dir=folder / "run"))


# ---- the loss against the formula


def by_hand(params, x, key, likelihood):
    """Reconstruction and divergence of each row, in NumPy."""
    backbone, head = jax.device_get((params["backbone"], params["head"]))
    dense = lambda x, p: x @ p["kernel"] + p["bias"]
    hidden = np.maximum(dense(x, backbone["encoder"]["layer_0"]), 0)
    outputs = dense(hidden, head["posterior"]["dense"])
    mean, log_variance = outputs[:, :Z], outputs[:, Z:]
    noise = np.asarray(jax.random.normal(key, mean.shape))
    z = mean + np.exp(log_variance / 2) * noise
    hidden = np.maximum(dense(z, backbone["decoder"]["layer_0"]), 0)
    outputs = dense(hidden, head["likelihood"]["dense"])
    if likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-outputs))
        log_p = x * np.log(p) + (1 - x) * np.log(1 - p)
    else:
        variance = np.exp(head["log_variances"]["bias"])
        log_p = -np.square(x - outputs) / (2 * variance) - np.log(2 * np.pi * variance) / 2
    kl = (np.square(mean) + np.exp(log_variance) - 1 - log_variance) / 2
    return -log_p.sum(1), kl.sum(1), mean


def loss_of(task, params, x, valid, **context):
    batch = {"x": jnp.asarray(x), "valid": jnp.asarray(valid)}
    context = {"key": jax.random.key(3), "step": jnp.int32(5), **context}
    return task.loss(params, batch, Context(**context))


def large_params(task):
    """Parameters for which means, variances and samples all matter."""
    params = task.init(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 99))
    return jax.tree.map(lambda x: 0.7 * jax.random.normal(next(keys), x.shape), params)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_loss_is_the_formula(likelihood):
    settings = ArrayVAEConfig(kl_weight=0.5, kl_steps=20)
    task = ArrayVAE(config_of("unused", likelihood, task=settings), None)
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(5, D)).astype(np.float32)
    valid = np.array([1, 1, 0, 1, 1], np.float32)
    params = large_params(task)
    reconstruction, kl, mean = by_hand(params, x, jax.random.key(3), likelihood)
    total = lambda values: float((values * valid).sum())

    loss = loss_of(task, params, x, valid)
    # a quarter of the schedule
    assert float(loss.total) == pytest.approx(total(reconstruction + 0.125 * kl), rel=1e-4)
    assert float(loss.weight) == 4
    expected = {"reconstruction": reconstruction, "kl": kl, "neg_elbo": reconstruction + kl}
    for name, values in expected.items():
        assert float(loss.means[name][0]) == pytest.approx(total(values), rel=1e-4), name
    for name, values in (("mean", mean), ("square", np.square(mean))):
        got = np.sum(loss.sums[name], axis=0)
        np.testing.assert_allclose(got, (values * valid[:, None]).sum(0), rtol=1e-4, err_msg=name)
    # the final weight, whatever the step
    evaluated = loss_of(task, params, x, valid, train=False)
    context = Context(jax.random.key(3), jnp.int32(5), train=False)
    key = elbo.sampling_key(context.key, context, x)
    reconstruction, kl, _ = by_hand(params, x, key, likelihood)
    assert float(evaluated.total) == pytest.approx(total(reconstruction + 0.5 * kl), rel=1e-4)
    # another sample
    other = loss_of(task, params, x, valid, key=jax.random.key(4))
    assert abs(float(other.total) - float(loss.total)) > 0.01


def test_free_bits_apply_in_training_only():
    x, valid = np.ones((4, D), np.float32), np.ones(4, np.float32)
    plain, free = (
        ArrayVAE(
            config_of("unused", task=ArrayVAEConfig(kl_schedule="constant", free_bits=bits)), None
        )
        for bits in (0.0, 100.0)
    )
    params = large_params(plain)
    seen = {
        (task, train): loss_of(task, params, x, valid, train=train)
        for task in (plain, free)
        for train in (True, False)
    }
    assert float(seen[free, False].total) == float(seen[plain, False].total)
    reconstruction = float(seen[free, True].means["reconstruction"][0])
    assert float(seen[free, True].total) == pytest.approx(reconstruction + 4 * Z * 100, rel=1e-5)


# ---- runs


def test_a_run_learns_and_the_latent_is_what_the_rows_depend_on(trained, folder):
    path, run_dir, summary = trained
    metrics = summary["evaluation"]
    # the rows as independent columns of the right variances have 6 * 0.5 * log(2 pi e) + log 4 = 9.9 nats
    assert metrics["neg_elbo"] < 7
    assert metrics["loss"] == metrics["neg_elbo"]
    assert metrics["kl"] > 0.5
    assert metrics["active_units"] >= 1
    assert not (run_dir / "tokenizer.json").exists()
    logged = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert {"kl", "reconstruction", "neg_elbo", "kl_weight", "active_units"} <= logged[0].keys()

    evaluated = evaluate(restore(run_dir, mesh=MeshConfig(data=1))).metrics
    assert evaluated["neg_elbo"] == pytest.approx(metrics["neg_elbo"], rel=1e-5)
    # one dim of the latent tells the class, which the model has never seen
    run = restore(run_dir, sources=(str(path),), purpose="predict", mesh=MeshConfig(data=1))
    predicted = predict(run)
    assert [row["id"] for row in predicted] == [f"{path}:{i}" for i in range(1, 201)]
    means = np.array([row["mean"] for row in predicted])
    signs = means > np.median(means, axis=0)
    agreement = (signs == (np.load(path)["y"] > 0)[:, None]).mean(0)
    assert max(agreement.max(), 1 - agreement.min()) > 0.9


def test_a_stopped_run_equals_an_uninterrupted_one(trained, folder):
    path, run_dir, _ = trained
    config = config_of(path, run_dir=folder / "stopped")
    with interrupted_after(70):
        pretrain(config)
    pretrain(config)
    assert losses(folder / "stopped") == losses(run_dir)
    expected = stored_params(run_dir)
    for name, value in stored_params(folder / "stopped").items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_the_multiplier_of_a_least_rate_is_kept(folder):
    path = write_rows(folder / "bits.npz", "bernoulli")
    task = ArrayVAEConfig(min_rate=3.0)
    config = config_of(path, "bernoulli", folder / "rate", task=task, steps=20)
    pretrain(config)
    run = restore(folder / "rate", mesh=MeshConfig(data=1))
    assert 0 < float(run.context.state["multiplier"]) < 1


def test_the_same_rows_from_other_formats(folder, trained):
    path, run_dir, _ = trained
    x = np.load(path)["x"].astype(np.float32)
    np.save(folder / "rows.npy", x)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"x": row}) + "\n" for row in x.tolist()))
    for name in ("rows.npz", "rows.npy", "rows.jsonl"):
        run = restore(run_dir, sources=(str(folder / name),), mesh=MeshConfig(data=1))
        np.testing.assert_array_equal(run.rows.arrays["x"], x, err_msg=name)


# ---- what is refused

GOOD = np.random.default_rng(0).uniform(size=(20, D))


def changed(row, column, value):
    x = GOOD.copy()
    x[row, column] = value
    return x


BAD = {
    "outside": ({"x": changed(3, 1, 1.5)}, r"bad\.npz:4: .*1\.5 is not in \[0, 1\]"),
    "nan": (
        {"x": changed(2, 4, np.nan)},
        r"bad\.npz:3: column 'x' has a number that is not finite: item 5 of 6 is nan",
    ),
    "rank": ({"x": np.zeros((2, 3, 4))}, r"bad\.npz: array 'x' has the shape \[2, 3, 4\]"),
    "no rows": ({"x": np.zeros((0, D))}, r"bad\.npz:1: empty file"),
    "width": ({"x": GOOD[:, :5]}, r"bad\.npz:\d+: .*5 numbers, but model\.inputs=6"),
    "name": ({"images": GOOD}, r"bad\.npz: no column 'x'; it has: images"),
    "strings": (
        {"x": GOOD.astype(str)},
        r"bad\.npz: array 'x' is of dtype <U\d+, expected numbers",
    ),
    "objects": ({"x": GOOD.astype(object)}, r"bad\.npz: not an array file, or one with Python obj"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(case, tmp_path):
    arrays, message = BAD[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    config = config_of(tmp_path / "bad.npz", "bernoulli", tmp_path / "run")
    with pytest.raises(ValueError, match=message) as caught:
        pretrain(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged", b"no array"])
def test_a_damaged_file_is_one_line(content, tmp_path):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.npz: (damaged array file|not an array file)"):
        pretrain(config_of(tmp_path / "bad.npz", run_dir=tmp_path / "run"))


def test_rows_that_are_not_finite_can_be_skipped(tmp_path):
    np.save(tmp_path / "x.npy", changed(2, 4, np.inf))
    np.save(tmp_path / "y.npy", changed(1, 0, -0.5))
    config = config_of(tmp_path / "x.npy", "bernoulli")
    data = dataclasses.replace(config.data, on_bad_row="skip", validation_fraction=0.0)
    config = dataclasses.replace(config, data=data, run_dir=str(tmp_path / "run"), steps=5)
    pretrain(config)
    run = restore(tmp_path / "run", sources=data.train, mesh=MeshConfig(data=1))
    assert len(run.rows) == 19
    # and so can those that the model cannot read
    outside = (str(tmp_path / "y.npy"),)
    assert len(restore(tmp_path / "run", sources=outside, mesh=MeshConfig(data=1)).rows) == 19


def test_commands_for_models_of_text_refuse_the_run(trained, tmp_path):
    path, run_dir, _ = trained
    with pytest.raises(ValueError, match="transformers has no models of task array_vae"):
        convert(run_dir, tmp_path / "hf")
    config = FinetuneConfig(init=str(run_dir), task=CausalLMConfig(), run_dir=str(tmp_path / "f"))
    with pytest.raises(ValueError, match="array_vae reads no text and cannot be fine-tuned"):
        finetune(config)
    with pytest.raises(ValueError, match="array_vae does not read text: there are no tokens"):
        inspect(config_of(path), tmp_path)
    decontaminated = dataclasses.replace(config_of(path).data, decontaminate=(str(path),))
    with pytest.raises(ValueError, match=r"data\.decontaminate compares words"):
        pretrain(config_of(path, run_dir=tmp_path / "d", data=decontaminated))


def test_settings_that_do_not_fit_are_named(tmp_path):
    np.save(tmp_path / "x.npy", GOOD)
    with pytest.raises(ValueError, match=r"model\.latent_dim=0 must be at least 1"):
        DenseVAEConfig(latent_dim=0)
    with pytest.raises(ValueError, match=r"model\.hidden\[1\]=0 must be at least 1"):
        DenseVAEConfig(hidden=(4, 0))
    config = config_of(tmp_path / "x.npy", run_dir=tmp_path / "run")
    short = dataclasses.replace(config.data, seq_len=4)
    with pytest.raises(ValueError, match=r"data\.seq_len=4 is not model\.inputs=6"):
        pretrain(dataclasses.replace(config, data=short))
    for setting in (
        dict(weights=(1.0, 2.0)),
        dict(temperature=2.0),
        dict(tokenizer=TokenizerConfig(kind="char")),
    ):
        data = dataclasses.replace(config.data, train=(str(tmp_path / "x.npy"),) * 2, **setting)
        name = next(iter(setting))
        with pytest.raises(ValueError, match=rf"data\.{name} has no effect on task array_vae"):
            pretrain(dataclasses.replace(config, data=data))
    (tmp_path / "a.txt").write_text("a text\n" * 20)
    text = dataclasses.replace(config.data, train=(str(tmp_path / "a.txt"),))
    with pytest.raises(ValueError, match="needs a decoder: set model to a DecoderConfig"):
        pretrain(dataclasses.replace(config, data=text, task=CausalLMConfig()))
    with pytest.raises(ValueError, match="needs a VAE of dense layers: set model to a DenseVAEC"):
        pretrain(dataclasses.replace(config, model=DecoderConfig(max_len=D)))
