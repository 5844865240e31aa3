"""What is done with a trained text VAE in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import vae_runs

from jaxlm.config import DataConfig, FinetuneConfig, OptimizerConfig
from jaxlm.data.documents import tokenize
from jaxlm.params import path_name
from jaxlm.run import latents, restore
from jaxlm.run.finetune import finetune
from jaxlm.tasks import ClassificationConfig

# whole runs
pytestmark = pytest.mark.slow

A, B, C = "ann met bob", "the house today", "eve left cat"


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return latents.load(vae_runs.train_vae(tmp_path_factory.mktemp("vae")))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    return vae_runs.write_sentences(tmp_path_factory.mktemp("text"))


def test_posteriors_are_those_of_the_model_with_its_running_statistics(vae):
    """Against the encoder on one text alone in a row, normalised by hand."""
    task, state = vae.run.task, vae.run.context.state
    assert state["mean"].any()  # it has been updated in training

    @jax.jit
    def encode(params, tokens):
        one = jnp.ones_like(tokens)
        inputs = dict(segment_ids=one, texts=1, method="encode")
        return task.model.apply({"params": params}, tokens, **inputs)

    means, log_variances = vae.encode([A, B, C])
    for text, mean, log_variance in zip([A, B, C], means, log_variances):
        ids = [task.tokenizer.cls_id, *task.tokenizer.encode(text), task.tokenizer.sep_id]
        tokens = np.array([ids], np.int32)
        raw, expected = encode(vae.run.params, tokens)
        center, spread = (np.asarray(state[n] / state["weight"]) for n in ("mean", "variance"))
        normal = 0.7 * (raw - center) / np.sqrt(spread + 1e-5)
        np.testing.assert_allclose(mean, np.asarray(normal)[0, 0], atol=1e-5)
        np.testing.assert_allclose(log_variance, np.asarray(expected)[0, 0], atol=1e-5)


def test_texts_are_encoded_in_their_order_whatever_is_beside_them(vae, sentences):
    all_means, all_log_variances = vae.encode(sentences)
    assert all_means.shape == (60, 4)
    for i in (0, 17, 59):
        mean, log_variance = vae.encode([sentences[i]])
        np.testing.assert_allclose(mean[0], all_means[i], atol=1e-5)
        np.testing.assert_allclose(log_variance[0], all_log_variances[i], atol=1e-5)
    assert vae.encode([])[0].shape == (0, 4)


def test_texts_are_written_in_their_order_whatever_is_beside_them(vae, monkeypatch):
    z = 3 * np.random.default_rng(0).normal(size=(5, 4))
    texts = vae.decode(z)
    assert len(set(texts)) == 5
    assert [vae.decode(row[None])[0] for row in z] == texts
    monkeypatch.setattr(latents, "ROWS_DECODED", 2)  # several batches, the last not full
    assert vae.decode(z) == texts
    assert vae.decode(z[:0]) == []


def test_reconstructions_are_texts_of_the_means(vae):
    texts = vae.reconstruct([A, B])
    assert texts == vae.decode(vae.encode([A, B]).means)
    assert texts[0] != texts[1]


def test_the_ends_of_an_interpolation_are_the_reconstructions(vae):
    texts = vae.interpolate(A, B, steps=5)
    assert len(texts) == 5
    assert [texts[0], texts[-1]] == vae.reconstruct([A, B])


def test_an_interpolation_goes_along_the_arc(vae, monkeypatch):
    given = []
    monkeypatch.setattr(
        type(vae.run.task), "decode_latents", lambda self, p, z, *_, **__: given.extend(z) or [""]
    )
    vae.interpolate(A, B, steps=4)
    first, last = vae.encode([A, B]).means

    def angle(a, b):
        # in float32 the cosine of a vector with itself may be more than 1
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        return np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))

    for i, z in enumerate(given):
        assert angle(z, first) == pytest.approx(angle(first, last) * i / 3, abs=1e-3)


def test_a_traversal_changes_one_dim(vae):
    mean = vae.encode([A]).means
    values = [-4.0, float(mean[0, 2]), 4.0]
    texts = vae.traverse(A, 2, values)
    assert texts[1] == vae.reconstruct([A])[0]
    mean[0, 2] = 4.0
    assert texts[2] == vae.decode(mean)[0]


def test_the_informative_dim_has_the_largest_divergence(vae):
    (mean,), (log_variance,) = vae.encode([A])
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    assert vae.informative_dim(A) == kl.argmax()


def test_the_nearest_neighbour_of_a_text_is_itself(vae, sentences):
    found = vae.neighbours(sentences[7], sentences, k=3)
    assert found[0].text == sentences[7]
    assert found[0].similarity == pytest.approx(1, abs=1e-5)
    means = vae.encode(sentences).means
    cosines = means @ means[7] / np.linalg.norm(means, axis=1) / np.linalg.norm(means[7])
    assert [near.similarity for near in found] == pytest.approx(sorted(-cosines)[:3] * np.array(-1))


def test_an_analogy_adds_a_difference(vae):
    assert vae.analogy(A, A, C) == vae.reconstruct([C])[0]
    a, b, c = vae.encode([A, B, C]).means
    assert vae.analogy(A, B, C) == vae.decode([b - a + c])[0]


def test_equal_seeds_give_equal_texts(vae):
    sample = lambda seed: vae.sample(4, temperature=1.0, seed=seed)
    assert sample(3) == sample(3) != sample(4)
    write = lambda seed: vae.reconstruct([A, B], temperature=1.0, seed=seed)
    assert write(3) == write(3) != write(4)


def test_samples_come_from_the_prior(vae, monkeypatch):
    given = []
    monkeypatch.setattr(
        type(vae.run.task), "decode_latents", lambda self, p, z, *_, **__: given.extend(z) or [""]
    )
    vae.sample(512)
    z = np.array(given)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.15)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.15)


def test_few_shapes_are_compiled(vae):
    write = vae.run.task._write(0.0)
    before = write._cache_size()
    for count in (5, 6, 7, 8):
        assert len(vae.decode(np.zeros((count, 4)))) == count
    assert write._cache_size() - before <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: v.encode([A, ""]), r"text 2 \(''\) has no tokens"),
        (lambda v: v.reconstruct([" ".join([A] * 5)]), r"text 1 \('ann met .*has 15 tokens.* 14"),
        (lambda v: v.encode(A), "is one text, not several: write"),
        (lambda v: v.interpolate(A, B, steps=1), "steps=1 must be at least 2"),
        (lambda v: v.traverse(A, 4, [0.0]), "dim=4: the latent has dims 0 to 3"),
        (lambda v: v.neighbours(A, [A], k=0), "k=0"),
        (lambda v: v.sample(0), "n=0"),
        (lambda v: v.decode(np.zeros((2, 3))), r"shape \(2, 3\), expected \[texts, 4\]"),
        (lambda v: v.decode(np.zeros((2, 4)), temperature=-1), "temperature=-1"),
    ],
)
def test_bad_input_is_named(vae, call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call(vae)
    assert "\n" not in str(raised.value)


def test_a_projection_keeps_what_varies_most():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(200, 2)) * [3.0, 1.0]
    turned = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    points, fractions = latents.project(np.pad(plane, ((0, 0), (0, 4))) @ turned + 5)
    assert fractions.sum() == pytest.approx(1)
    assert fractions[0] == pytest.approx(0.9, abs=0.03)
    distances = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)
    np.testing.assert_allclose(distances(points), distances(plane), atol=1e-9)


def test_a_projection_of_one_dim_or_of_equal_means_is_flat():
    points, fractions = latents.project(np.array([[1.0], [2.0], [4.0]]))
    assert (points[:, 1] == 0).all()
    assert fractions.tolist() == [1.0, 0.0]
    points, fractions = latents.project(np.ones((3, 2)))
    assert not points.any()
    assert not fractions.any()
    with pytest.raises(ValueError, match="at least two texts, not 1"):
        latents.project(np.ones((1, 2)))


def test_texts_are_read_with_labels_and_those_that_do_not_fit_are_counted(vae, tmp_path):
    path = tmp_path / "labelled.csv"
    rows = [f"ann met {word},{word[0]}" for word in vae_runs.WORDS[:6]]
    path.write_text("\n".join(["text,label", *rows, f"{'ann ' * 20},z"]) + "\n")
    read = latents.read_texts(vae, (str(path),), label_column="label")
    assert read.texts == [f"ann met {word}" for word in vae_runs.WORDS[:6]]
    assert read.labels == [word[0] for word in vae_runs.WORDS[:6]]
    assert read.too_long == 1
    few = latents.read_texts(vae, (str(path),), label_column="label", limit=3)
    assert [text.split()[-1][0] for text in few.texts] == few.labels
    assert len(few.texts) == 3
    assert (few.fitting, read.fitting) == (6, 6)
    # most texts of a semi-supervised VAE have no label
    path.write_text("text,label\nann met eve,e\nann met bob,\n")
    read = latents.read_texts(vae, (str(path),), label_column="label")
    assert read.labels == ["e", latents.NO_LABEL]
    path.write_text("text,label\nann met eve,\n")
    with pytest.raises(ValueError, match="no text has a label in a column 'label'"):
        latents.read_texts(vae, (str(path),), label_column="label")


def test_without_sources_the_texts_are_those_held_out(vae):
    held_out = latents.read_texts(vae).texts
    run = restore.restore(vae.run.folder, batch_size=8)
    assert sorted(held_out) == sorted(run.data.texts)
    assert 5 < len(held_out) < 60


def test_only_runs_of_text_vaes_are_loaded(tmp_path):
    import runs

    from jaxlm.config import files

    with pytest.raises(ValueError, match="no such run folder"):
        latents.load(tmp_path / "none")
    files.save(runs.tiny(tmp_path), tmp_path / "config.json")
    with pytest.raises(ValueError, match="a run of CausalLMConfig, not of a text VAE"):
        latents.load(tmp_path)


def test_likelihoods_are_the_bounds_of_the_diagnostics(vae, sentences):
    together = vae.log_likelihoods(sentences)
    assert together.shape == (60,)
    assert (together < 0).all()
    task, text = vae.run.task, sentences[3]
    rows = task.rows(tokenize([text], task.tokenizer), "predict")
    batch = rows.rows(np.array([0]), np.array([0])) | {"valid": np.ones(1, np.float32)}
    alone = jax.jit(task.analyse)(vae.run.params, batch, vae.run.context)
    np.testing.assert_allclose(vae.log_likelihoods([text])[0], alone["bound"][0, 0], rtol=1e-5)


def test_a_classifier_starts_from_the_encoder_of_a_vae(vae, sentences, tmp_path):
    rows = [f"{text}\t{'ann' in text.split()}" for text in sentences]
    (tmp_path / "labelled.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    config = FinetuneConfig(
        init=str(vae.run.folder),
        task=ClassificationConfig(pooling="mean", dropout=0.0),
        data=DataConfig(train=(str(tmp_path / "labelled.tsv"),), seq_len=16),
        optimizer=OptimizerConfig(warmup_steps=0),
        # only the head: the backbone is that of the VAE
        train_only="head",
        steps=2,
        batch_size=4,
        run_dir=str(tmp_path / "classifier"),
    )
    with runs.small_runs():
        finetune(config)
    encoder = jax.tree.leaves_with_path(vae.run.params["backbone"]["encoder"])
    stored = runs.stored_params(tmp_path / "classifier")
    for path, value in encoder:
        name = f"backbone/{path_name(path)}"
        np.testing.assert_array_equal(stored[name], value, err_msg=name)
