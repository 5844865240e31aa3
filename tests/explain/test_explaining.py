"""Whole models explained: every method on every kind, lenses, patching, and `jaxlm explain` from text to page."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vae_runs
from styles import random_params

from jaxlm import explain, hf
from jaxlm.cli import explain as command
from jaxlm.cli import main as cli
from jaxlm.config import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    TokenizerConfig,
    llama_style,
    t5_style,
)
from jaxlm.data import tokenizer as tokenizers
from jaxlm.explain import explanation, faithfulness, lens, methods, page, patching, reading
from jaxlm.hf import export
from jaxlm.models.heads import CausalLM, Classifier, MaskedLM, Seq2SeqLM

SIZES = dict(dim=16, num_layers=2, num_heads=2, max_len=32)
TEXT = "a good film </script> & tea"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders in the Hugging Face layout: a classifier and the three language models, with random weights."""
    root = tmp_path_factory.mktemp("explain")
    words = tokenizers.train(
        [f"{TEXT} bad war about"] * 3, TokenizerConfig(kind="wordpiece", vocab_size=90)
    )
    # tables have entries that are no tokens, as those of runs do
    sizes = SIZES | dict(vocab_size=words.vocab_size + 40)
    models = {
        "classes": Classifier(EncoderConfig(**sizes), 3),
        "next": CausalLM(DecoderConfig(**sizes)),
        "masked": MaskedLM(EncoderConfig(**sizes)),
        "target": Seq2SeqLM(EncoderDecoderConfig(**sizes, **t5_style())),
    }
    for name, model in models.items():
        labels = ("bad", "fair", "good") if name == "classes" else ()
        export.save(root / name, model, random_params(model), tokenizer=words, labels=labels)
    return root


@pytest.fixture(scope="module")
def classifier(folders):
    return explain.load(folders / "classes")


def asked(subject, *texts):
    """Rows with the model's own answers."""
    rows = subject.rows([subject.read(text) for text in texts])
    return dataclasses.replace(rows, answer=explanation.answers(subject, rows))


@pytest.fixture(scope="module")
def rows(classifier):
    return asked(classifier, TEXT, "bad war")


# the others are slow only because they are many
QUICK = ("integrated_gradients", "attention_x_gradient", "value_zeroing")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in methods.METHODS]
)
def test_a_method_gives_each_token_of_a_text_the_same_alone_and_in_a_batch(classifier, rows, name):
    run = lambda rows: methods.attribute(name, classifier.reading, classifier.params, rows)
    found = run(rows).attributions["tokens"]
    free = np.asarray(rows.free["tokens"])
    assert (np.abs(found[free]) > 1e-9).all()
    assert not np.abs(found[~free]).any()
    again = run(jax.tree.map(lambda x: x[::-1], rows)).attributions["tokens"]
    np.testing.assert_allclose(again[::-1], found, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_add_up_for_a_model(classifier, rows):
    found = methods.attribute("integrated_gradients", classifier.reading, classifier.params, rows)
    assert found.error.max() < 1e-2


@pytest.mark.slow
def test_models_with_experts_are_explained(folders, tmp_path):
    """Their ragged products cannot be vectorised: passes are computed one after another."""
    words = hf.load(folders / "next").tokenizer
    sizes = SIZES | dict(vocab_size=words.vocab_size, num_experts=3, mlp_dim=8)
    model = CausalLM(DecoderConfig(**llama_style() | sizes))
    export.save(tmp_path / "experts", model, random_params(model), tokenizer=words)
    subject = explain.load(tmp_path / "experts")
    assert subject.reading.together is None
    rows = asked(subject, TEXT)
    for name in methods.METHODS:
        found = methods.attribute(name, subject.reading, subject.params, rows)
        values = np.asarray(found.attributions["tokens"])
        assert np.isfinite(values).all(), name
        assert np.abs(values).any(), name
        if found.error is not None:
            assert found.error.max() < 1e-2, name
    other = dataclasses.replace(
        rows, inputs=rows.inputs | {"tokens": rows.inputs["tokens"][:, ::-1]}
    )
    grid = patching.patch_grid(subject.reading, subject.params, rows, other)
    assert grid.patched.shape == (2, rows.inputs["tokens"].shape[1])
    assert np.isfinite(grid.patched).all()


def test_the_score_is_the_log_odds_or_the_difference_to_one_answer(classifier, rows):
    logits, score = explanation._outputs(classifier.reading, classifier.params, rows)
    p = jax.nn.softmax(logits, -1)[jnp.arange(2), rows.answer]
    np.testing.assert_allclose(score, jnp.log(p / (1 - p)), rtol=1e-4, atol=1e-5)
    other = dataclasses.replace(rows, against=(rows.answer + 1) % 3)
    _, score = explanation._outputs(classifier.reading, classifier.params, other)
    at = jnp.arange(2)
    np.testing.assert_allclose(
        score, logits[at, rows.answer] - logits[at, other.against], rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_attributions_change_with_the_weights(classifier, rows):
    other = classifier.randomized().params
    for name in ("integrated_gradients", "value_zeroing"):
        a, b = (
            methods.attribute(name, classifier.reading, p, rows).attributions["tokens"]
            for p in (classifier.params, other)
        )
        assert faithfulness.agreement(a, b, rows.free["tokens"])[0] < 0.95


@pytest.mark.parametrize("name", ["classes", pytest.param("next", marks=pytest.mark.slow)])
def test_the_lens_after_the_last_layer_is_the_model(folders, name):
    subject = explain.load(folders / name)
    rows = asked(subject, TEXT)
    logits, _ = explanation._outputs(subject.reading, subject.params, rows)
    found = lens.lens(subject.reading, subject.params, rows)
    assert found.shape == (3, *logits.shape)
    np.testing.assert_allclose(found[-1], logits, atol=1e-6)
    assert np.abs(found[0] - logits).max() > 1e-3
    # the head by itself, where the answer is read from
    state = jax.jit(lens.states, static_argnums=0)(subject.reading, subject.params, rows)[-1]
    read = jnp.einsum("BTD,BT->BD", state, rows.read_at)
    own = jax.jit(lambda h: lens.head(subject.reading, subject.params)(h))(read)
    np.testing.assert_allclose(own, logits, atol=1e-5)


@pytest.mark.slow
def test_a_source_is_patched_where_it_differs(folders):
    """Before the first layer of the encoder the one token that differs carries the whole difference."""
    subject = explain.load(folders / "target")
    found = explain.explain(
        subject, "a good film", ["patching"], target="bad war", corrupt="a bad film"
    ).values["patching"]
    at = found["corrupt_tokens"].index(next(p for p in found["corrupt_tokens"] if "bad" in p))
    np.testing.assert_allclose(
        found["restored"][0], np.arange(len(found["corrupt_tokens"])) == at, atol=1e-4
    )
    assert np.abs(np.array(found["restored"])[1]).max() > 1e-3
    rows = lambda text: sum(
        row["score"]
        for row in explain.explain(subject, text, ["lens"], target="bad war").values["rows"]
    )
    np.testing.assert_allclose(found["clean_score"], rows("a good film"), atol=1e-4)
    np.testing.assert_allclose(found["corrupt_score"], rows("a bad film"), atol=1e-4)


@pytest.mark.slow
def test_patching_everything_gives_the_other_text_and_a_cell_only_its_own_place(classifier):
    clean, corrupt = asked(classifier, "a good film"), asked(classifier, "a bad war")
    corrupt = dataclasses.replace(corrupt, answer=clean.answer)
    found = patching.patch_grid(classifier.reading, classifier.params, clean, corrupt)
    assert found.patched.shape == (2, 16)
    assert abs(float(found.clean - found.corrupt)) > 1e-3
    np.testing.assert_allclose(found.restored[:, 5:], 0, atol=1e-4)  # padding, and [SEP] on
    # all positions of layer 0 at once
    seen = reading.outputs(
        classifier.reading, classifier.params, clean, capture=("residual_before",)
    )[1]["residual_before"]
    edit = lambda x, layer: seen[0] if layer == 0 else x
    logits, _ = reading.outputs(
        classifier.reading, classifier.params, corrupt, edits={"residual_before": edit}
    )
    score = reading.score(classifier.reading, logits, corrupt)
    np.testing.assert_allclose(score[0], found.clean, atol=1e-5)


# ---- the command


def run(capsys, *argv) -> tuple[int, str, str]:
    code = cli.main(["explain", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.slow
def test_a_text_becomes_a_page_and_numbers(folders, tmp_path, capsys):
    page = tmp_path / "page.html"
    argv = ["--text", TEXT, "--method", "rollout", "lens", "--out", page]
    code, out, err = run(capsys, folders / "classes", *argv)
    assert (code, err) == (0, "")
    assert "rollout" in out
    assert out.count("answer is no. ") == 3
    values = json.loads(page.with_suffix(".json").read_text())
    assert f"  layer 1: {values['rows'][0]['answer']} " in out
    found = values["methods"]["rollout"]
    assert len(found["tokens"][0]) == len(values["tokens"])
    assert values["rows"][0]["answer"] in ("bad", "fair", "good")
    assert np.shape(values["attention"]["attention"]) == (2, 2, *[len(values["tokens"])] * 2)
    assert [len(layer) for layer in values["lens"]["layers"]] == [1, 1, 1]
    html = page.read_text()
    # nothing from outside, and text stays text
    assert not re.search(r"(src|href)=|https?:|@import|url\(", html)
    assert html.count("</script>") == 2
    assert "&lt;" in html
    assert 'lang="en"' in html
    assert "prefers-color-scheme: dark" in html


def test_names_of_the_command_are_those_of_the_methods():
    names = command.Name.__args__
    assert names == (*methods.METHODS, *explanation.OTHERS, "latents", "all")


@pytest.mark.parametrize(
    ("name", "argv", "message"),
    [
        ("classes", ["--text", TEXT, "--target", "god"], "no class 'god'; did you mean 'good'?"),
        ("classes", ["--text", "tea " * 40], "reads 32: cut it"),
        ("classes", ["--text", ""], "has no tokens"),
        ("classes", ["--text", TEXT, "--method", "patching"], "give both the method and corrupt"),
        ("classes", ["--text", TEXT, "--corrupt", "tea"], "tokens and the text"),
        ("classes", ["--text", TEXT, "--method", "magic"], "--method magic: not one of"),
        ("classes", ["--text", TEXT, "--method", "latents"], "error: "),
        (
            "classes",
            ["--text", "tea", "--corrupt", "war", "--place", "cross_values"],
            "no place 'cross_values'",
        ),
        ("masked", ["--text", TEXT], "write [MASK] once"),
        ("masked", ["--text", "a [MASK]", "--pair", "film"], "reads one text, not a pair"),
        ("target", ["--text", TEXT, "--against", "film"], "a target has several tokens"),
        (
            "target",
            ["--text", "tea", "--corrupt", "war", "--place", "decoder.residual_before"],
            "the corrupted text is a source",
        ),
        ("nothing", ["--text", TEXT], "error: "),
        ("classes", ["--text", "tea", "--pair", ""], "the second text '' has no tokens"),
        ("classes", ["--text", "tea", "--out", "page.json"], "the JSON file is beside it"),
        ("classes", ["--text", "tea", "--integration-steps", "0"], "must be at least 1"),
        (
            "classes",
            ["--text", "tea", "--method", "rollout", "--integration-steps", "9"],
            "steps=9 has no effect",
        ),
        ("classes", ["--text", "tea", "--place", "mlp_out"], "place=mlp_out has no effect"),
        (
            "classes",
            ["--text", "tea", "--corrupt", "war", "--place", "attention"],
            "attention weights belong to two positions",
        ),
        (
            "classes",
            ["--text", "tea", "--method", "latents", "--target", "good"],
            "--target: no effect with --method latents",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(folders, tmp_path, capsys, name, argv, message):
    page = tmp_path / "page.html"
    argv = argv if "--out" in argv else [*argv, "--out", page]
    code, _, err = run(capsys, folders / name, *argv)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not page.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("next", ["--text", TEXT, "--target", "film", "--corrupt", TEXT.replace("good", "bad")]),
        ("masked", ["--text", "a good [MASK] & tea"]),
        ("target", ["--text", TEXT, "--target", "good tea"]),
    ],
)
def test_language_models_are_explained_by_every_method(folders, tmp_path, capsys, name, argv):
    page = tmp_path / "page.html"
    code, out, err = run(capsys, folders / name, *argv, "--method", "all", "--out", page)
    assert (code, err) == (0, "")
    values = json.loads(page.with_suffix(".json").read_text())
    assert set(values["methods"]) == set(methods.METHODS)
    assert max(values["methods"]["integrated_gradients"]["completeness_error"]) < 1e-2
    if name == "target":
        count = len(values["target_tokens"])
        for found in values["methods"].values():
            # of the target only what was written before counts, the start token never
            target = np.array(found["decoder_tokens"])
            assert target.shape == (count, count)
            assert not np.abs(np.triu(target, 1)).any()
            assert np.abs(np.array(found["tokens"])).sum(1).min() > 1e-9
    if "--corrupt" in argv:
        restored = np.array(values["patching"]["restored"])
        assert restored.shape == (2, len(values["tokens"]))
        # the terminal has the cells that restore most, the best first
        shown = out.split("restored most by\n")[1].splitlines()[0]
        layer, place = np.unravel_index(restored.argmax(), restored.shape)
        assert shown.startswith(f"  {restored.max():+.2f}  layer {layer}, token {place}: ")
        clean, other = values["tokens"][place], values["patching"]["corrupt_tokens"][place]
        assert shown.endswith(f": {clean} for {other}")
    assert "nan" not in page.read_text().lower().split("<body>")[1].split("<script")[0]


def test_a_run_of_pairs_reads_pairs_and_another_none(classifier):
    pairs = dataclasses.replace(classifier, reads_pairs=True)
    with pytest.raises(ValueError, match="reads pairs of texts: give the second one"):
        pairs.read("tea")
    with pytest.raises(ValueError, match="reads one text, not a pair"):
        dataclasses.replace(classifier, reads_pairs=False).read("tea", "war")
    # the corrupted text has the same second one
    found = explanation._corrupted(pairs, pairs.read("tea", "war"), "film", "war")
    assert len(found.ids) == len(pairs.read("tea", "war").ids)


def test_answers_are_tokens_and_no_padding_of_the_table(folders):
    subject = explain.load(folders / "next")
    count = subject.tokenizer.vocab_size
    table = subject.params["backbone"]["embed"]["token"]["embedding"]
    assert len(table) > count
    # padding that would be the answer, and would be most of an absent token
    loud = dict(subject.params["backbone"]["embed"]["token"], embedding=table.at[count:].mul(100))
    backbone = dict(subject.params["backbone"])
    backbone["embed"] = dict(backbone["embed"], token=loud)
    rows = asked(subject, "good tea")
    changed = dataclasses.replace(subject, params=dict(subject.params, backbone=backbone))
    logits, _ = reading.outputs(subject.reading, changed.params, rows)
    assert logits.shape == (1, count)
    own, other = (reading.absent(s.reading, s.params, rows)["tokens"] for s in (subject, changed))
    np.testing.assert_array_equal(own, other)
    index, _, _ = lens.lens_top(subject.reading, changed.params, rows, 5)
    assert int(index.max()) < count


def test_a_model_whose_answers_are_not_numbers_is_refused(classifier):
    params = jax.tree.map(lambda x: x * jnp.nan, classifier.params)
    with pytest.raises(ValueError, match="not finite"):
        explain.explain(dataclasses.replace(classifier, params=params), "tea")


def test_one_method_is_named_without_a_list(classifier):
    with pytest.raises(ValueError, match="no method 'magic'"):
        explain.explain(classifier, "tea", "magic")


def test_the_page_says_which_methods_have_no_direction():
    assert page._unsigned(["occlusion", "integrated_gradients"]) == ""
    assert "rollout, value norms say how much" in page._unsigned(["rollout", "value_norms"])
    assert set(page.SIGNED) < set(methods.METHODS)


@pytest.mark.slow
def test_a_target_is_what_the_model_writes_if_none_is_given(folders):
    subject = explain.load(folders / "target")
    found = explain.explain(subject, "good tea", ["attention"]).values
    written = [row["answer"] for row in found["rows"]]
    assert all(row["top"][0]["answer"] == row["answer"] for row in found["rows"])
    assert found["target_tokens"][1:] == written[:-1]


@pytest.mark.slow
def test_the_latent_of_a_vae_is_shown(tmp_path, capsys):
    folder = vae_runs.train_vae(tmp_path)
    page = tmp_path / "page.html"
    argv = ["--text", "ann met bob", "--method", "latents", "--out", page]
    code, out, err = run(capsys, folder, *argv)
    assert code == 0, err
    found = json.loads(page.with_suffix(".json").read_text())["latents"]
    assert len(found["kl"]) == 4
    # three words and the end
    assert len(found["tokens"]) == len(found["gain"]) == 4
    assert "nats of divergence" in out
    assert "dim 3" in page.read_text()
    code, _, err = run(capsys, folder, "--text", "ann met bob")
    assert "of a text VAE there is the method latents" in err
