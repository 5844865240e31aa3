"""The objective of the text VAE: its rows, its loss against the parts by hand, its schedules and its errors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from styles import filled

from jaxlm.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    VAEConfig,
)
from jaxlm.data import tokenizer
from jaxlm.data.documents import tokenize
from jaxlm.data.loader import BatchAt
from jaxlm.data.mixture import Mixture
from jaxlm.models import vae
from jaxlm.ops import latent
from jaxlm.params import path_name
from jaxlm.run.prepare import with_vocab
from jaxlm.tasks import TextVAEConfig, elbo, vae_rows
from jaxlm.tasks.elbo import MULTIPLIER_RATE
from jaxlm.tasks.task import Context, loss_sums, metrics
from jaxlm.tasks.vae import TextVAE
from jaxlm.tasks.vae_rows import ROOM
from jaxlm.training import phases

Z, SEQ_LEN = 4, 32
WORDS = [f"w{i:02d}" for i in range(30)]


def texts(count=40, longest=12):
    """Different texts of 1 to `longest` words."""
    rng = np.random.default_rng(0)
    return [f"{i} " + " ".join(rng.choice(WORDS, i % longest)) for i in range(count)]


@functools.cache
def tok():
    return tokenizer.train(texts(), TokenizerConfig(kind="word", vocab_size=100))


def built(model=None, seq_len=SEQ_LEN, run=None, **settings):
    """The task with a tiny model, changed by `model`, in a run changed by `run`."""
    sizes = dict(dim=16, num_layers=1, num_heads=2, max_len=64)
    backbone = VAEConfig(
        encoder=EncoderConfig(**sizes, num_token_types=0, dropout=0.0, attention_dropout=0.0),
        decoder=DecoderConfig(**sizes),
        latent_dim=Z,
    )
    config = TrainConfig(
        model=with_vocab(dataclasses.replace(backbone, **(model or {})), tok()),
        task=TextVAEConfig(**settings),
        data=DataConfig(seq_len=seq_len),
        optimizer=OptimizerConfig(warmup_steps=0),
        **{"steps": 100, "batch_size": 4, **(run or {})},
    )
    return TextVAE(config, tok())


def params_of(task):
    return _params(task.backbone)


@functools.cache
def _params(backbone):
    model = vae.TextVAE(backbone)
    return filled(jax.eval_shape(lambda: vae.init_params(model, jax.random.key(0))))


def with_posterior(params, **changes):
    """The parameters with this bias of the posterior's mean or log-variance, which no longer depend on the text."""
    kernel, bias = (np.array(params["head"]["posterior"][n]) for n in ("kernel", "bias"))
    for name, value in changes.items():
        half = slice(0, Z) if name == "mean" else slice(Z, 2 * Z)
        kernel[:, half], bias[half] = 0, value
    head = {**params["head"], "posterior": {"kernel": jnp.array(kernel), "bias": jnp.array(bias)}}
    return {**params, "head": head}


@functools.cache
def batch_of(rows=4):
    """A batch whose last row only fills it up."""
    batch = BatchAt(built().rows(tokenize(texts(), tok()), "train"), rows, 0)(0)
    batch["valid"][-1] = 0
    return batch


def context(train=True, step=50, **changes):
    return Context(jax.random.key(1), jnp.int32(step), train=train, **changes)


def loss_of(task, train=True):
    """The loss of parameters and state: total, means, new state."""

    def run(params, state=None):
        loss = task.loss(params, batch_of(), context(train, state=state))
        return loss.total, (loss_sums(loss)["means"], loss.state)

    return run


@functools.cache
def gradient_of(kl_weight):
    """The task with this weight, and the jitted loss with its gradient."""
    task = built(kl_weight=kl_weight, kl_schedule="constant")
    return task, jax.jit(jax.value_and_grad(loss_of(task), has_aux=True))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "texts"))
def apply(model, params, *args, method, **inputs):
    return model.apply({"params": params}, *args, method=method, **inputs)


def posterior_of(task, params, batch):
    """The posterior of each text before anything is done to it."""
    names = ("segment_ids", "positions")
    inputs = {name: batch[name] for name in names}
    return apply(
        task.model, params, batch["tokens"], method="encode", texts=task.texts_per_row, **inputs
    )


def number_of_texts(batch):
    return int((batch["segment_ids"].max(1) * batch["valid"]).sum())


# --- the rows ---


def texts_in(rows):
    """The token ids of the texts of all rows of an epoch, after checks of the layout."""
    own, found = tok(), []
    batch = rows.rows(np.arange(len(rows)), np.zeros(len(rows), int))
    for i in range(len(rows)):
        row = {k: v[i] for k, v in batch.items()}
        count = row["segment_ids"].max()
        assert 1 <= count == row["decoder_segment_ids"].max()
        for number in range(1, count + 1):
            here, there = (row[n] == number for n in ("segment_ids", "decoder_segment_ids"))
            read, targets, given = row["tokens"][here], row["targets"][there], row["decoder_tokens"]
            text = targets[:-1].tolist()
            assert read.tolist() == [own.cls_id, *text, own.sep_id]
            assert targets[-1] == own.eos_id
            assert given[there].tolist() == [own.bos_id, *text]
            np.testing.assert_array_equal(row["positions"][here], np.arange(len(read)))
            np.testing.assert_array_equal(row["decoder_positions"][there], np.arange(len(targets)))
            found.append(text)
        np.testing.assert_array_equal(row["weights"], row["decoder_segment_ids"] > 0)
    return found, batch


@pytest.mark.parametrize("seq_len", [14, 31, 32, 50])
def test_every_text_is_read_once_an_epoch_in_rows_of_a_fixed_number_of_latents(seq_len):
    task = built(seq_len=seq_len)
    # as many texts of one word as others: a row would have room for more of them than it has latents
    corpus = texts() + WORDS
    found, batch = texts_in(task.rows(tokenize(corpus, tok()), "train"))
    assert sorted(found) == sorted(tok().encode(text) for text in corpus)
    assert task.texts_per_row == seq_len // ROOM
    assert batch["segment_ids"].max() == task.texts_per_row


def test_a_row_of_fewer_tokens_than_a_latent_needs_has_one_text():
    task = built(seq_len=6)
    corpus = [text for text in texts() if len(text.split()) <= 4]
    found, batch = texts_in(task.rows(tokenize(corpus, tok()), "train"))
    assert sorted(found) == sorted(tok().encode(text) for text in corpus)
    assert batch["segment_ids"].max() == task.texts_per_row == 1


@pytest.mark.parametrize("long_texts", ["refuse", "cut"])
def test_texts_longer_than_a_row_are_refused_or_cut(long_texts):
    task = built(seq_len=10, long_texts=long_texts)
    # one text fills a row to the last token, two do not fit
    corpus = [" ".join(WORDS[:n]) for n in (3, 8, 9, 20)]
    if long_texts == "refuse":
        with pytest.raises(ValueError, match="2 of 4 texts have more than 8 tokens") as e:
            task.rows(tokenize(corpus, tok()), "train")
        assert "the longest 20" in str(e.value)
        assert "raise data.seq_len=10 (--seq-len of a trained model), or set" in str(e.value)
        assert "\n" not in str(e.value)
        task.rows(tokenize(corpus[:2], tok()), "train")
    else:
        found, _ = texts_in(task.rows(tokenize(corpus, tok()), "train"))
        pieces = [text.split()[i : i + 8] for text in corpus for i in range(0, 20, 8)]
        assert sorted(found) == sorted(tok().encode(" ".join(p)) for p in pieces if p)


def test_hidden_words_are_a_fraction_of_each_side_and_never_a_texts_first_token():
    task = built(decoder_word_dropout=0.5, encoder_word_dropout=0.2)
    keys = jax.random.split(jax.random.key(0))
    batch = batch_of(30)
    dropped = task._drop_words(batch, *keys)
    for side, positions, rate in (
        ("tokens", "positions", 0.2),
        ("decoder_tokens", "decoder_positions", 0.5),
    ):
        changed = np.asarray(dropped[side] != batch[side])
        inside = batch[positions] > 0
        assert not changed[~inside].any()
        assert (np.asarray(dropped[side])[changed] == tok().mask_id).all()
        error = np.sqrt(rate * (1 - rate) / inside.sum())
        assert abs(changed[inside].mean() - rate) < 4 * error
    rest = set(batch) - {"tokens", "decoder_tokens"}
    assert all(dropped[name] is batch[name] for name in rest)


@pytest.mark.parametrize("side", ["decoder", "encoder"])
def test_a_hidden_word_needs_a_token_that_stands_for_it(side):
    task = built()
    name = f"{side}_word_dropout"
    config = dataclasses.replace(task.config, task=TextVAEConfig(**{name: 0.5}))
    tokens = dataclasses.replace(tok())
    vars(tokens)["mask_id"] = None
    assert TextVAE(config, tokens)._hidden_id(side) == tok().unk_id
    vars(tokens)["unk_id"] = None
    with pytest.raises(ValueError, match=f"task.{name} needs a tokenizer with a mask or unk token"):
        TextVAE(config, tokens)


def test_words_are_hidden_in_training_alone():
    plain, hiding = built(), built(decoder_word_dropout=0.9, encoder_word_dropout=0.9)
    params = params_of(plain)
    for train in (True, False):
        losses = [float(jax.jit(loss_of(task, train))(params)[0]) for task in (plain, hiding)]
        assert (losses[0] != losses[1]) == train


def test_words_are_counted_with_an_end_of_each_text_whatever_the_tokens_are():
    corpus = ["a bad film", "tea", "some internationalisation of it was good"]
    want = sum(len(text.split()) + 1 for text in corpus)
    for kind in ("word", "char", "bpe"):
        tokens = tokenizer.train(
            corpus, TokenizerConfig(kind=kind, vocab_size=100 + 200 * (kind == "bpe"))
        )
        rows = vae_rows.pack(tokenize(corpus, tokens), tokens, 64, 0, cut=False, counts_words=True)
        batch = rows.rows(np.arange(len(rows)), np.zeros(len(rows), int))
        assert batch["words"].sum() == want, kind


def test_an_evaluation_samples_each_batch_anew_and_always_alike():
    key = jax.random.key(0)
    of = lambda train, x: jax.random.key_data(elbo.sampling_key(key, context(train), x)).tolist()
    for a in (np.arange(6).reshape(2, 3), np.linspace(0, 1, 6, dtype=np.float32)):
        assert of(False, a) == of(False, a) != of(False, a + 1)
        assert of(True, a) == of(True, a + 1) == jax.random.key_data(key).tolist()


# --- the loss ---


def test_the_loss_is_reconstruction_plus_weighted_divergence_by_hand():
    (task, gradient), batch = gradient_of(0.5), batch_of()
    # hardly any variance: the sample is the mean
    params = with_posterior(params_of(task), log_variance=-40.0)
    mean = posterior_of(task, params, batch).mean
    hidden = apply(
        task.model,
        params,
        batch["decoder_tokens"],
        mean,
        segment_ids=batch["decoder_segment_ids"],
        positions=batch["decoder_positions"],
        method="hidden",
    )
    scores = np.asarray(hidden, float) @ np.asarray(vae.output_table(params), float).T
    log_probs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    own = np.take_along_axis(log_probs, batch["targets"][..., None], -1)[..., 0]
    reconstruction = divergence = count = 0.0
    for i in np.flatnonzero(batch["valid"]):
        reconstruction -= own[i][batch["decoder_segment_ids"][i] > 0].sum()
        for number in range(batch["segment_ids"][i].max()):
            m = np.asarray(mean[i, number], float)
            divergence += 0.5 * (m**2 + np.exp(-40) - 1 + 40).sum()
            count += 1
    (total, (means, state)), _ = gradient(params)
    np.testing.assert_allclose(means["reconstruction"], (reconstruction, count), rtol=1e-5)
    np.testing.assert_allclose(means["kl"], (divergence, count), rtol=1e-5)
    np.testing.assert_allclose(means["neg_elbo"], (reconstruction + divergence, count), rtol=1e-5)
    np.testing.assert_allclose(total, reconstruction + 0.5 * divergence, rtol=1e-5)
    assert means["loss"][1] == count == number_of_texts(batch)
    tokens = (batch["weights"] * batch["valid"][:, None]).sum()
    assert means["accuracy"][1] == means["tokens_per_text"][0] == tokens
    correct = (log_probs.argmax(-1) == batch["targets"]) * batch["weights"]
    assert means["accuracy"][0] == (correct * batch["valid"][:, None]).sum()
    assert state is None
    # by text, for the importance-weighted bound
    by_text = task.log_likelihood(params, batch, mean)
    assert by_text.shape == (4, task.texts_per_row)
    np.testing.assert_allclose(by_text[:3].sum(), -reconstruction, rtol=1e-5)


def test_latents_are_sampled_with_the_mean_and_the_spread_of_the_posterior():
    task, batch, count = built(), batch_of(), 400
    params = params_of(task)

    def sampled(key):
        seen, hidden = [], task._hidden
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(task, "_hidden", lambda p, b, z, k: seen.append(z) or hidden(p, b, z, k))
            task.loss(params, batch, Context(key, jnp.int32(0)))
        return seen[0]

    z = jax.jit(jax.vmap(sampled))(jax.random.split(jax.random.key(0), count))
    posterior = posterior_of(task, params, batch)
    there = np.asarray(task.exists(batch)) > 0
    np.testing.assert_array_equal(
        there, np.arange(task.texts_per_row) < batch["segment_ids"].max(1, keepdims=True)
    )
    z, mean = np.asarray(z)[:, there], np.asarray(posterior.mean)[there]
    spread = np.exp(0.5 * np.asarray(posterior.log_variance)[there])
    error = spread / np.sqrt(count)
    assert (np.abs(z.mean(0) - mean) < 5 * error).all()
    assert (np.abs(z.std(0) - spread) < 5 * error / np.sqrt(2)).all()


@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_the_loss_depends_on_the_mean_and_on_the_variance_of_the_posterior(kl_weight):
    # with weight 0 through the sample only
    task, gradient = gradient_of(kl_weight)
    params = params_of(task)
    (total, (means, _)), grads = gradient(params)
    posterior = grads["head"]["posterior"]
    for half in (np.s_[..., :Z], np.s_[..., Z:]):
        assert np.abs(posterior["kernel"][half]).min() > 1e-4
        assert np.abs(posterior["bias"][half]).min() > 1e-4
    assert means["kl"][0] > 1
    want = means["reconstruction"][0] + kl_weight * means["kl"][0]
    np.testing.assert_allclose(total, want, rtol=1e-6)
    for changes in (dict(mean=1.0), dict(log_variance=1.0)):
        (changed, _), _ = gradient(with_posterior(params, **changes))
        assert abs(changed - total) > 0.1


# Softmax over the keys of a query is the same if a number is added to all scores, and is 1 if there is one key: the
# latent of a text is the only one that its tokens attend to.
WITHOUT_GRADIENT = {
    "backbone/encoder/stack/blocks/attn/key_bias",
    "backbone/decoder/stack/blocks/attn/key_bias",
    *(f"backbone/decoder/stack/blocks/cross_attn/{n}" for n in ("query", "key")),
    *(f"backbone/decoder/stack/blocks/cross_attn/{n}_bias" for n in ("query", "key")),
    *(f"backbone/decoder/stack/blocks/cross_attn_norm/{n}" for n in ("scale", "bias")),
}


def test_with_a_learned_prior_every_parameter_has_a_gradient():
    untied = DecoderConfig(dim=16, num_layers=1, num_heads=2, max_len=64, tie_embeddings=False)
    model = dict(inject=("memory", "embedding", "prefix"), decoder=untied)
    task = built({**model, "prior": "vamp", "pseudo_inputs": 3}, kl_schedule="constant")
    run = jax.jit(jax.value_and_grad(loss_of(task), has_aux=True))
    _, grads = run(params_of(task))
    sizes = {path_name(path): np.abs(x).max() for path, x in jax.tree.leaves_with_path(grads)}
    assert np.isfinite(list(sizes.values())).all()
    assert {name for name, size in sizes.items() if size < 1e-4} == WITHOUT_GRADIENT
    # where the posterior of every text and of every learned input is one Gaussian, so is the prior
    (_, (means, _)), _ = run(with_posterior(params_of(task), mean=0.7, log_variance=-1.0))
    np.testing.assert_allclose(means["kl"][0], 0.0, atol=1e-4)


def test_the_divergence_from_a_learned_prior_is_the_log_ratio_of_the_densities():
    task, rng = built(dict(prior="vamp", pseudo_inputs=3)), np.random.default_rng(0)
    mean, log_variance, z = rng.normal(size=(3, 2, 5, Z)).astype(np.float32)
    params = params_of(task)
    parts = [np.asarray(x, float) for x in vae.make_prior(task.model, params).parts]

    def log_density(z, mean, log_variance):
        square = np.square(z - mean) / np.exp(log_variance)
        return -0.5 * (np.log(2 * np.pi) + log_variance + square).sum(-1)

    of_parts = log_density(z[:, :, None].astype(float), *parts)
    want = log_density(z, mean, log_variance) - np.log(np.exp(of_parts).mean(-1))
    got = task._kl(params, latent.Gaussian(mean, log_variance), z)
    np.testing.assert_allclose(got, want[..., None], rtol=1e-4, atol=1e-4)


def test_the_advice_about_an_unused_latent_is_one_that_the_settings_allow():
    unused = {"kl": 0.2, "swap_loss": 0.0}
    for settings, advice in (
        ({}, "raise task.free_bits, or use task.scheme=fresh_decoder"),
        (dict(scheme="fresh_decoder"), "raise task.free_bits"),
        (dict(min_rate=0.2), "raise task.min_rate"),
        (dict(min_rate=5.0), "train longer, or raise task.min_rate"),
        # where free bits are refused
        (dict(kl_weight=0.0), "train longer"),
    ):
        assert built(**settings).verdict(unused).endswith(f" nats: {advice}")


def test_free_bits_hold_in_training_and_evaluation_has_the_divergence_itself():
    task = built(kl_schedule="constant", free_bits=0.5)
    params = with_posterior(params_of(task), mean=0.0, log_variance=0.0)
    for train, divergence in ((True, 0.5 * Z), (False, 0.0)):
        total, (means, _) = jax.jit(loss_of(task, train))(params)
        reconstruction, count = means["reconstruction"]
        np.testing.assert_allclose(total, reconstruction + divergence * count, rtol=1e-6)
        assert means["kl"][0] == 0
        assert ("kl_weight" in means) == train


@pytest.mark.parametrize(
    ("settings", "phase", "weights"),
    [
        (dict(kl_schedule="constant", kl_weight=0.3), 0, {0: 0.3, 99: 0.3}),
        (dict(kl_schedule="linear", kl_steps=20), 0, {0: 0, 5: 0.25, 20: 1, 99: 1}),
        (dict(kl_schedule="linear", kl_steps=20, kl_weight=0.4), 0, {0: 0, 5: 0.1, 50: 0.4}),
        (
            dict(kl_schedule="cyclical", kl_steps=20),
            0,
            {0: 0, 5: 0.5, 10: 1, 19: 1, 20: 0, 25: 0.5, 35: 1},
        ),
        (dict(scheme="decoder_last", kl_steps=20), 1, {50: 1, 99: 1}),
        (dict(scheme="fresh_decoder", kl_steps=20), 0, {0: 0, 49: 0}),
        (dict(scheme="fresh_decoder", kl_steps=20), 1, {50: 0, 55: 0.25, 70: 1, 99: 1}),
        (
            dict(scheme="fresh_decoder", kl_steps=20, first_fraction=0.3),
            1,
            {30: 0, 35: 0.25, 50: 1},
        ),
        (dict(scheme="fresh_decoder", kl_schedule="constant"), 1, {50: 1}),
    ],
    ids=lambda x: " ".join(map(str, x.values())) if isinstance(x, dict) and "kl_steps" in x else "",
)
def test_the_weight_of_the_divergence_follows_its_schedule(settings, phase, weights):
    task = built(**settings)
    for step, want in weights.items():
        got = task.kl_weight(jnp.int32(step), phase)
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=f"step {step}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(kl_steps=100), None),
        (dict(kl_steps=200, kl_weight=0.6), "rises to 0.297 only, not to task.kl_weight=0.6"),
        (dict(kl_steps=200, kl_schedule="cyclical"), None),
        (
            dict(kl_steps=400, kl_schedule="cyclical"),
            "rises to 0.495 only, not to task.kl_weight=1,",
        ),
        (dict(kl_steps=50, scheme="fresh_decoder"), None),
        (dict(kl_steps=100, scheme="fresh_decoder"), "task.kl_steps=100 does not fit 50 steps"),
        (dict(kl_steps=100, scheme="decoder_last"), None),
        (dict(kl_schedule="constant"), None),
        (dict(kl_weight=0.0), None),
        (dict(min_rate=5.0), None),
    ],
    ids=lambda x: " ".join(map(str, x.values())) if isinstance(x, dict) else "",
)
def test_a_schedule_that_does_not_end_within_the_run_is_named(settings, message):
    task = built(**settings)
    got = task.note()
    if message is None:
        assert got is None
    else:
        assert message in got
        assert "\n" not in got
    if settings.get("kl_schedule") != "constant" and not settings.get("min_rate"):
        # as the schedule itself has it
        most = max(float(task.kl_weight(jnp.int32(i), 1)) for i in range(50, 101))
        assert (most < task.settings.kl_weight) == (message is not None)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_examples_of_rows_are_their_texts(parts):
    task = built(importance_texts=10)
    rows = task.rows(tokenize(texts(), tok()), "validation")
    assert len(rows) < len(texts())
    if parts == 2:
        # two folders of shards
        rows = Mixture((rows, rows), ("a", "b"), (0.5, 0.5), 0)
    assert task.examples(rows) == parts * len(texts())
    assert task.analysed_rows(rows) == -(-10 * len(rows) // (parts * len(texts())))


def test_means_are_normalised_over_the_batch_in_training_and_by_running_statistics_afterwards():
    scale = 0.6
    task, batch = built(dict(mean_scale=scale)), batch_of()
    params, state = params_of(task), task.init_state()
    there = np.asarray(task.exists(batch)) * batch["valid"][:, None]
    plain = posterior_of(task, params, batch)
    raw = np.asarray(plain.mean)[there > 0]

    run = jax.jit(task.posterior)
    got, statistics = run(params, batch, state, there.ravel())
    of_texts = np.asarray(got.mean)[there > 0]
    np.testing.assert_allclose(of_texts.mean(0), 0, atol=1e-5)
    # the scale, but for what keeps the division finite
    want = scale * np.sqrt(raw.var(0) / (raw.var(0) + 1e-5))
    np.testing.assert_allclose(of_texts.std(0), want, rtol=1e-5)
    assert want.min() > 0.99 * scale
    np.testing.assert_array_equal(got.log_variance, plain.log_variance)
    np.testing.assert_allclose(statistics["mean"], 0.01 * raw.mean(0), atol=1e-6)
    np.testing.assert_allclose(statistics["variance"], 0.01 * raw.var(0), rtol=1e-5)

    # they are means that began with zeros: after one step those of its batch
    np.testing.assert_allclose(statistics["weight"], 0.01)
    after_one, _ = run(params, batch, statistics)
    np.testing.assert_allclose(after_one.mean, got.mean, rtol=1e-3, atol=1e-5)

    state = {"mean": jnp.arange(Z) / 20, "variance": (1.0 + jnp.arange(Z)) / 2, "weight": 0.5}
    got, statistics = run(params, batch, jax.tree.map(jnp.float32, state))
    want = scale * (raw - np.arange(Z) / 10) / np.sqrt(1.0 + np.arange(Z))
    np.testing.assert_allclose(np.asarray(got.mean)[there > 0], want, rtol=1e-4, atol=1e-5)
    assert statistics == {}

    state = jax.tree.map(jnp.float32, state)
    _, (means, after) = jax.jit(loss_of(task))(params, state)
    assert means["kl"][0] / means["kl"][1] > Z * scale**2 / 2
    np.testing.assert_allclose(after["mean"], 0.99 * state["mean"] + 0.01 * raw.mean(0), atol=1e-6)
    _, (_, unchanged) = jax.jit(loss_of(task, train=False))(params, state)
    jax.tree.map(np.testing.assert_array_equal, unchanged, state)


@pytest.mark.parametrize(
    ("mean", "before", "after"),
    [
        # a mean of 0 diverges by 0 nats, of 2 by 4 * 2 ** 2 / 2 = 8, where 5 are asked for
        (0.0, 0.5, 0.5 + 5 * MULTIPLIER_RATE),
        (2.0, 0.5, 0.5 - 3 * MULTIPLIER_RATE),
        (0.0, 0.999, 1.0),
        (2.0, 0.001, 0.0),
    ],
)
def test_the_multiplier_lowers_the_weight_while_the_divergence_is_short(mean, before, after):
    task, loss = min_rate()
    params = with_posterior(params_of(task), mean=mean, log_variance=0.0)
    total, (means, state) = loss(params, {"multiplier": jnp.float32(before)})
    np.testing.assert_allclose(state["multiplier"], after, rtol=1e-5)
    want = means["reconstruction"][0] + (1 - before) * means["kl"][0]
    np.testing.assert_allclose(total, want, rtol=1e-6)
    np.testing.assert_allclose(means["kl"][0] / means["kl"][1], 2 * mean**2, rtol=1e-5)


@functools.cache
def min_rate():
    task = built(min_rate=5.0)
    assert task.init_state() == {"multiplier": 0.0}
    return task, jax.jit(loss_of(task))


def test_metrics_are_the_perplexity_of_a_token_and_the_dims_that_vary():
    means = {"a": (0, 1)}
    # means of the posterior of three texts: they differ in the first dim only
    of_texts = np.float32([[1.0, 0.5], [2.0, 0.5], [3.0, 0.55]])
    mean, square = latent.moments(of_texts, jnp.ones(3))
    sums = {
        "means": {
            "loss": (3.0, 3.0),
            "neg_elbo": (24.0, 3.0),
            "tokens_per_text": (12.0, 3.0),
            **means,
        },
        "sums": {
            "mean": mean,
            "square": square,
            "examples": np.float32(3),
        },
    }
    got = metrics(built(), sums)
    assert got["perplexity"] == pytest.approx(np.exp(24 / 12))
    assert got["active_units"] == 1


def test_written_texts_end_before_their_end_token(monkeypatch):
    task = built()
    words = tok().encode("w01 w02 w03")
    rows = np.array([[*words, tok().eos_id, tok().eos_id], [*words, *words[:2]]])
    monkeypatch.setattr(task, "_write", lambda temperature: lambda *_: rows)
    got = task.decode_latents(None, np.zeros((2, Z)), jax.random.key(0))
    assert got == ["w01 w02 w03", "w01 w02 w03 w01 w02"]


def test_a_sample_names_texts_that_are_blank(monkeypatch):
    task = built()
    monkeypatch.setattr(task, "decode_latents", lambda *_: ["w01", "", " "])
    params = jax.eval_shape(task.init, jax.random.key(0))
    assert task.sample(params, jax.random.key(0)) == "w01\n(empty)\n(empty)"


def test_a_preview_shows_the_texts_as_they_are_written():
    row = {k: v[0] for k, v in batch_of().items()}
    pieces = built().preview(row)
    assert [piece.text for piece in pieces if piece.counts] == [
        tok().piece(int(i)) for i in row["targets"][row["weights"] > 0]
    ]
    assert sum(piece.begins for piece in pieces) == row["segment_ids"].max() - 1


# --- the schemes ---

ENCODER = {"backbone/encoder", "head/posterior"}
DECODER = {"backbone/decoder", "head/memory", "head/unembedding"}


@pytest.mark.parametrize(
    ("scheme", "trained"),
    [
        ("joint", [ENCODER | DECODER]),
        ("decoder_last", [ENCODER | DECODER, DECODER]),
        ("encoder_first", [ENCODER, ENCODER | DECODER]),
        ("fresh_decoder", [ENCODER | DECODER, ENCODER | DECODER]),
        ("aggressive", [ENCODER | DECODER, ENCODER | DECODER]),
    ],
)
def test_a_scheme_trains_these_parameters_in_its_phases(scheme, trained):
    untied = DecoderConfig(dim=16, num_layers=1, num_heads=2, max_len=64, tie_embeddings=False)
    task = built(
        dict(decoder=untied),
        scheme=scheme,
        **({"encoder_updates": 2} if scheme == "aggressive" else {}),
    )
    made = phases.make_phases(task.config, task.phases(), params_of(task))
    tops = lambda tree: {
        "/".join(path_name(path).split("/")[:2]) for path, _ in jax.tree.leaves_with_path(tree)
    }
    got = [
        set().union(*map(tops, phase.trainable(params_of(task), phase.trained).values()))
        for phase in made
    ]
    assert got == trained
    assert [phase.last for phase in made] == [50, 100][-len(made) :]
    if scheme == "fresh_decoder":
        params = params_of(task)
        zeros = jax.tree.map(jnp.zeros_like, params)
        fresh, _ = made[1].enter(made[0], params, made[0].init(params), zeros)
        left = {path_name(p) for p, x in jax.tree.leaves_with_path(fresh) if np.any(x)}
        assert {"/".join(name.split("/")[:2]) for name in left} == ENCODER
    if scheme == "aggressive":
        assert [made[0].active(made[0].turn(step)) for step in (1, 2, 3, 4)] == [
            ("encoder",),
            ("encoder",),
            ("rest",),
            ("encoder",),
        ]


def test_phases_of_ones_own_do_not_replace_those_of_a_scheme():
    own = built(scheme="decoder_last").phases()
    # those of a run that has begun
    ends = (dataclasses.replace(own[0], end=50, end_fraction=None), own[1])
    assert built(scheme="decoder_last", run=dict(phases=ends)).phases() == own
    other = (own[0], dataclasses.replace(own[1], groups=own[1].groups[:0]))
    for phases_of_config in (other, own[:1], (*own, own[1])):
        with pytest.raises(
            ValueError, match="decoder_last has two phases, and those of the config"
        ):
            built(scheme="decoder_last", run=dict(phases=phases_of_config))


# --- the errors ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(kl_weight=-1.0), "task.kl_weight=-1.0 must not be negative"),
        (dict(min_rate=-1.0), "task.min_rate=-1.0 must not be negative"),
        (dict(free_bits=-1.0), "task.free_bits=-1.0 must not be negative"),
        (dict(kl_steps=0), "task.kl_steps=0 must be at least 1"),
        (dict(kl_steps=1, kl_schedule="cyclical"), "task.kl_steps=1 must be at least 2 with"),
        (dict(encoder_updates=3), "task.encoder_updates has no effect with task.scheme=joint"),
        (dict(first_fraction=0.3), "task.first_fraction has no effect with task.scheme=joint"),
        (
            dict(kl_schedule="constant", kl_steps=5),
            "has no effect with task.kl_schedule=constant: leave it unset, or at its default 1000",
        ),
        (dict(free_bits_per="total"), "task.free_bits_per has no effect with task.free_bits=0"),
        (dict(encoder_updates=0, scheme="aggressive"), "task.encoder_updates=0 must be at least 1"),
        (dict(importance_samples=0), "task.importance_samples=0 must be at least 1"),
        (dict(importance_texts=0), "task.importance_texts=0 must be at least 1"),
        (dict(first_fraction=1.0), "task.first_fraction=1.0 is not between 0 and 1"),
        (dict(decoder_word_dropout=1.5), "task.decoder_word_dropout=1.5"),
        (dict(encoder_word_dropout=-0.5), "task.encoder_word_dropout=-0.5"),
        (
            dict(min_rate=5.0, kl_schedule="cyclical"),
            "kl_schedule has no effect with task.min_rate",
        ),
        (dict(kl_weight=0.0, kl_schedule="cyclical"), "has no effect with task.kl_weight=0"),
        (dict(kl_weight=0.0, free_bits=1.0), "free_bits=1.0 has no effect with task.kl_weight=0"),
        (dict(min_rate=5.0, free_bits=1.0), "min_rate=5.0 finds the weight"),
        (dict(min_rate=5.0, kl_weight=0.5), "min_rate=5.0 finds the weight"),
        (dict(min_rate=5.0, scheme="fresh_decoder"), "min_rate does not fit task.scheme"),
    ],
)
def test_settings_out_of_range_are_rejected_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as e:
        TextVAEConfig(**settings)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(model=dict(prior="vamp"), free_bits=0.1),
            "free_bits_per=dimension needs model.prior=normal",
        ),
        # 32 tokens of 128 entries carry at most 155 nats
        (dict(free_bits=40.0), "task.free_bits asks for 160 nats .* has at most 155.26: lower it"),
        (dict(free_bits=156.0, free_bits_per="total"), "task.free_bits asks for 156 nats"),
        (dict(min_rate=156.0), "task.min_rate asks for 156 nats"),
        (dict(model=dict(mean_scale=0.5), kl_weight=0.0), "mean_scale has no effect"),
        (dict(run=dict(accumulate=2)), "accumulate=2: the loss of task text_vae"),
        (
            dict(scheme="decoder_last", first_fraction=0.1, run=dict(steps=4)),
            "task.first_fraction=0.1 ends the first phase of task.scheme=decoder_last at step 0 of 4",
        ),
        (
            dict(scheme="fresh_decoder", first_fraction=0.9, run=dict(steps=4)),
            "task.first_fraction=0.9 ends the first phase of task.scheme=fresh_decoder at step 4 of 4",
        ),
    ],
)
def test_settings_that_do_not_fit_are_rejected_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as e:
        built(**changes).phases()
    assert "\n" not in str(e.value)


def test_another_model_is_rejected():
    config = dataclasses.replace(built().config, model=DecoderConfig())
    with pytest.raises(
        ValueError, match="task text_vae needs a text VAE: set model to a VAEConfig"
    ):
        TextVAE(config, tok())


def test_rows_without_room_for_a_token_are_rejected():
    with pytest.raises(ValueError, match=r"data\.seq_len=2: no room for text") as e:
        built(seq_len=2, long_texts="cut").rows(tokenize(texts(), tok()), "train")
    assert "\n" not in str(e.value)
