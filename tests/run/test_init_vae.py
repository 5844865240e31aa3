"""Text VAEs whose encoder and decoder are pretrained, each with its tokenizer."""

import dataclasses
import shutil

import golden
import jax
import numpy as np
import pytest
import runs
from flax import traverse_util

from jaxlm.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FinetuneConfig,
    TokenizerConfig,
    TrainConfig,
    VAEConfig,
)
from jaxlm.data import tokenizer as tokenizers
from jaxlm.run import init_from, init_vae, latents, prepare, restore
from jaxlm.run.pretrain import pretrain
from jaxlm.tasks import CausalLMConfig, MaskedLMConfig, TextVAEConfig, vae_rows
from jaxlm.tasks.vae import TextVAE

# whole runs
pytestmark = pytest.mark.slow

TEXTS = [f"{a} {b}" for a in ("good", "bad", "a good") for b in ("film", "love", "war", "tea")]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "about"]
WORDS += ["number", "love", "war", "tea", *"0123456789", *(f"##{i}" for i in "01234567")]


def model_folder(family, folder):
    """A golden model with a tokenizer of its vocabulary size: words for BERT, characters for GPT-2."""
    shutil.copytree(golden.FOLDERS[family], folder)
    if family == "bert":
        (folder / "vocab.txt").write_text("\n".join(WORDS))
    else:
        tokenizers.train(TEXTS, TokenizerConfig(kind="char", vocab_size=32)).save(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("init_vae")
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    for family in ("bert", "gpt2", "t5"):
        model_folder(family, folder / family)
    return folder


def config_of(folder, name, encoder="bert", decoder="gpt2", model=None, task=None):
    path = lambda x: None if x is None else str(folder / x)
    return TrainConfig(
        name=name,
        run_dir=str(folder / name),
        model=VAEConfig(latent_dim=4, inject=("memory", "embedding"), **(model or {})),
        init_encoder=path(encoder),
        init_decoder=path(decoder),
        task=task or TextVAEConfig(importance_samples=2, importance_texts=4),
        data=DataConfig(
            train=(str(folder / "texts.txt"),), text_unit="line", validation_fraction=0, seq_len=16
        ),
        optimizer=dataclasses.replace(runs.tiny(folder).optimizer, warmup_steps=0),
        steps=1,
        batch_size=2,
    )


def flat(tree):
    return {
        name: np.asarray(x, np.float32)
        for name, x in traverse_util.flatten_dict(tree, sep="/").items()
    }


def started(config):
    """The task of a config and what is loaded for it, with its abstract parameters by name."""
    start = init_vae.find(config)
    model = prepare.with_vocab(start.model, start.tokenizer)
    task = TextVAE(dataclasses.replace(config, model=model), start.tokenizer)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        jax.eval_shape(task.init, jax.random.key(0)),
    )
    return task, flat(start.load(abstract)), traverse_util.flatten_dict(abstract, sep="/")


@pytest.fixture(scope="module")
def trained(folder):
    """A run of one step from BERT and GPT-2."""
    with runs.small_runs() as patch:
        patch.setattr(TextVAE, "sample", lambda *_: None)
        pretrain(config_of(folder, "vae"))
    return folder / "vae"


def test_both_sides_are_loaded_and_the_rest_is_new(folder):
    _, loaded, abstract = started(config_of(folder, "x"))
    want = {
        f"backbone/{side}/{name}": x
        for side, family in (("encoder", "bert"), ("decoder", "gpt2"))
        for name, x in flat(golden.load(family).params["backbone"]).items()
    }
    assert loaded.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_array_equal(loaded[name], x, err_msg=name)
    new = abstract.keys() - loaded.keys()
    assert all(name.startswith("head/") or "/cross_attn" in name for name in new)
    assert "head/posterior/kernel" in new
    assert any("/cross_attn" in name for name in new)


def test_rows_have_the_tokens_of_both_sides(folder):
    task, _, _ = started(config_of(folder, "x"))
    rows = task.rows(task.tokenize(TEXTS), "train")
    batch = rows.rows(np.arange(len(rows)), np.zeros(len(rows), int))
    reader, writer = task.encoder_tokenizer, task.tokenizer
    found = []
    for i in range(len(rows)):
        row = {name: x[i] for name, x in batch.items()}
        for number in range(1, row["segment_ids"].max() + 1):
            read = row["tokens"][row["segment_ids"] == number]
            written = row["targets"][row["decoder_segment_ids"] == number]
            assert (read[0], read[-1]) == (reader.cls_id, reader.sep_id)
            assert written[-1] == writer.eos_id
            text = writer.decode(written)
            assert reader.encode(text) == read[1:-1].tolist()
            found.append(text)
        assert (row["tokens"][row["segment_ids"] == 0] == reader.pad_id).all()
    assert sorted(found) == sorted(TEXTS)


def test_packing_counts_what_each_side_needs(folder):
    # a row has room for 15 characters and an end; there are few words
    task, _, _ = started(config_of(folder, "x"))
    assert len(task.rows(task.tokenize(["bad tea war war"] * 2), "train")) == 2
    assert len(task.rows(task.tokenize(["bad", "tea"]), "train")) == 1
    # each of the marks is a word of its own, and the encoder needs two tokens more
    lengths = vae_rows.lengths(task.tokenize(["bad tea war", "?" * 3, "a", ""]))
    assert lengths.tolist() == [10, 3, 1, 0]
    message = r"1 of 1 texts have more than 14 tokens \(the longest 16\).*none can be cut"
    with pytest.raises(ValueError, match=message):
        task.rows(task.tokenize(["good good war war"]), "train")
    with pytest.raises(ValueError, match="long_texts=cut does not fit an encoder"):
        started(config_of(folder, "x", task=TextVAEConfig(long_texts="cut")))
    # a text that only one side can read
    documents = task.tokenize(["bad", "tea"])
    lost = dataclasses.replace(documents.read, ends=np.array([0, documents.read.ends[-1]]))
    with pytest.warns(UserWarning, match="1 of 2 texts are left out: one of the two tokenizers"):
        task.rows(dataclasses.replace(documents, read=lost), "train")
    with pytest.raises(ValueError, match="none of 1 texts has tokens"):
        task.rows(task.tokenize([""]), "train")


@pytest.mark.slow
def test_a_run_keeps_both_tokenizers_and_is_used_like_any_other(trained, folder):
    assert (trained / "tokenizer.json").is_file()
    assert (trained / "encoder_tokenizer/tokenizer.json").is_file()
    vae = latents.load(trained)
    tokenizer = vae.run.task.tokenizer
    assert tokenizer.fingerprint == init_vae.find(config_of(folder, "x")).tokenizer.fingerprint
    assert vae.encode(["good film", "bad tea"]).means.shape == (2, 4)
    assert np.isfinite(vae.log_likelihoods(TEXTS)).all()
    assert len(vae.reconstruct(["good film"])) == 1
    # only the encoder goes into a classifier
    source = init_from.find(FinetuneConfig(init=str(trained), task=TextVAEConfig()))
    assert source.tokenizer.vocab_size == len(WORDS)


def test_resuming_needs_the_same_sources(trained, folder):
    with runs.small_runs():
        assert pretrain(config_of(folder, "vae"))["steps"] == 1
        with pytest.raises(ValueError, match="init_decoder"):
            pretrain(config_of(folder, "vae", decoder="vae"))


def test_a_vae_gives_its_sides_with_their_layers_at_the_latent(trained, folder):
    task, loaded, abstract = started(config_of(folder, "x", "vae", "vae"))
    assert loaded.keys() == abstract.keys()
    for name, x in flat(restore.restore_model(trained).params).items():
        np.testing.assert_array_equal(loaded[name], x, err_msg=name)
    assert task.encoder_tokenizer.vocab_size == len(WORDS)
    start = init_vae.find(config_of(folder, "x", "vae", "vae"))
    assert start.description.count("with its") == 2
    # of another width of the latent, only the encoder
    other = dataclasses.replace(
        config_of(folder, "x", "vae", "gpt2"), model=VAEConfig(latent_dim=8)
    )
    _, loaded, _ = started(other)
    assert not any(name.startswith("head/") for name in loaded)
    assert "is 4 there and model.latent_dim=8 here" in init_vae.find(other).description
    # with a way to the decoder and a prior that it does not have
    more = VAEConfig(latent_dim=4, inject=("memory", "prefix"), prior="vamp")
    other = dataclasses.replace(other, init_decoder=str(trained), model=more)
    _, loaded, abstract = started(other)
    new = {name.split("/")[1] for name in abstract.keys() - loaded.keys()}
    assert new == {"prefix", "pseudo_inputs"}
    described = init_vae.find(other).description
    assert "at the latent (new: pseudo-inputs), decoder of" in described
    assert described.endswith("at the latent (new: prefix of model.inject)")


def test_the_sides_of_ones_own_language_models_are_loaded_with_their_tokenizers(folder):
    sizes = dict(dim=8, num_layers=1, num_heads=2, max_len=16)
    models = {
        "masked": (EncoderConfig(**sizes), MaskedLMConfig(), "word"),
        "causal": (DecoderConfig(**sizes), CausalLMConfig(), "char"),
    }
    for name, (model, task, kind) in models.items():
        data = dataclasses.replace(
            config_of(folder, "x").data, tokenizer=TokenizerConfig(kind=kind, vocab_size=32)
        )
        with runs.small_runs():
            pretrain(
                runs.tiny(folder, name, model=model, task=task, data=data, steps=1, batch_size=2)
            )
    task, loaded, _ = started(config_of(folder, "x", "masked", "causal"))
    want = {
        f"backbone/{side}/{path}": x
        for side, name in (("encoder", "masked"), ("decoder", "causal"))
        for path, x in flat(restore.restore_model(folder / name).params["backbone"]).items()
    }
    assert loaded.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_array_equal(loaded[name], x, err_msg=name)
    assert len(task.encoder_tokenizer.encode("bad tea")) == 2
    assert len(task.tokenizer.encode("bad tea")) == 7


def test_a_decoder_keeps_what_its_files_say_of_its_tokens(trained, folder, monkeypatch):
    stored = restore.restore_model(trained).task.tokenizer
    roles = {"eos": next(name for name, i in stored.vocab.items() if i == 7)}
    named = tokenizers.TwoTokenizers.of(
        dataclasses.replace(stored.decoder, roles=roles), stored.encoder
    )
    monkeypatch.setattr(init_vae.run_folder, "read_tokenizer", lambda *_: named)
    start = init_vae.find(config_of(folder, "x", encoder=None, decoder="vae"))
    assert start.tokenizer.eos_id == 7 != stored.eos_id


def test_a_side_without_a_source_has_the_tokenizer_of_the_other(folder):
    sizes = dict(dim=8, num_layers=1, num_heads=2, max_len=16)
    config = config_of(
        folder, "x", decoder=None, model=dict(decoder=DecoderConfig(**sizes, biases=()))
    )
    task, loaded, _ = started(config)
    assert task.tokenizer is task.encoder_tokenizer
    assert task.tokenizer.vocab_size == len(WORDS)
    assert task.backbone.decoder.dim == 8
    assert all(name.startswith("backbone/encoder/") for name in loaded)


def test_dropout_may_be_set_anew(folder):
    bert = init_vae.find(config_of(folder, "x")).model.encoder
    own = dataclasses.replace(bert, dropout=0.3)
    assert init_vae.find(config_of(folder, "x", model=dict(encoder=own))).model.encoder == own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(encoder="gpt2"), r"starts from an encoder \(EncoderConfig\)"),
        (dict(encoder="t5"), "its config is EncoderDecoderConfig, but the encoder"),
        (dict(decoder="bert"), "its config is EncoderConfig, but the decoder"),
        (dict(decoder="missing"), "missing: no such run folder"),
        (
            dict(model=dict(decoder=DecoderConfig(dim=32))),
            r"model\.decoder\.dim=32, but the decoder of --init-decoder .*gpt2 has dim=16",
        ),
    ],
)
def test_sources_that_do_not_fit_are_rejected(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        init_vae.find(config_of(folder, "x", **changes))


def test_settings_that_do_not_fit_are_rejected(folder):
    config = config_of(folder, "x")
    fresh = dataclasses.replace(config, task=TextVAEConfig(scheme="fresh_decoder"))
    with pytest.raises(ValueError, match="leave --init-decoder unset"):
        init_vae.find(fresh)
    data = dataclasses.replace(config.data, tokenizer=TokenizerConfig(kind="word"))
    with pytest.raises(ValueError, match=r"data\.tokenizer has no effect with --init-encoder and"):
        init_vae.find(dataclasses.replace(config, data=data))
    with pytest.raises(ValueError, match="init_encoder=x is for text VAEs"):
        TrainConfig(task=TextVAEConfig(), init_encoder="x")
    assert init_vae.find(config_of(folder, "x", None, None)) is None
