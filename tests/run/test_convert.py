"""Export of a run to the Hugging Face layout, and fine-tuning from such a folder."""

import dataclasses
import json
import shutil

import golden
import jax
import numpy as np
import pytest
import runs

from jaxlm import hf
from jaxlm.checkpoint import store
from jaxlm.cli import main as cli
from jaxlm.config import ComputeConfig, EncoderConfig, FinetuneConfig, TokenizerConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.models import heads, pretraining
from jaxlm.run import convert, init_from
from jaxlm.run import folder as run_folder
from jaxlm.run.finetune import finetune
from jaxlm.tasks import (
    CausalLMConfig,
    ClassificationConfig,
    MaskedLMConfig,
    PrefixLMConfig,
    SentencePairConfig,
)


def write_run(folder, make, **changes):
    """Creates a run folder like that of a complete run, with random parameters; returns them."""
    runs.write_corpus(folder)
    config = runs.tiny(folder, **changes)
    kind = "char" if "model" not in changes else "wordpiece"
    words = (folder / "corpus.txt").read_text().splitlines()
    tokenizer = tokenizers.train(words, TokenizerConfig(kind=kind, vocab_size=128))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=128))
    model = make(config.model)
    params = jax.jit(lambda key: heads.init_params(model, key))(jax.random.key(0))
    run = folder / "run"
    run.mkdir()
    run_folder.write(run, config, tokenizer)
    with store.Checkpoints(run / "checkpoints", config.checkpoint) as checkpoints:
        checkpoints.save(7, {"params": params}, metrics={"loss": 2.5}, wait=True)
    return run, params


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)


def test_a_decoder_is_exported_completely(tmp_path, capsys):
    run, params = write_run(tmp_path, heads.CausalLM)
    assert cli.main(["convert", str(run), str(tmp_path / "out")]) == 0
    assert "GPT2LMHeadModel of step 7" in capsys.readouterr().out
    loaded = hf.load(tmp_path / "out")
    equal(loaded.params, params)
    own = tokenizers.load(run / "tokenizer.json")
    assert loaded.tokenizer.text_fingerprint == own.text_fingerprint
    # as documents begin in training
    text = own.encode("ab")
    assert loaded.tokenizer.encode("ab", framed=True) == [own.bos_id, *text]
    assert loaded.tokenizer.encode("ab") == text
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["eos_token_id"] == own.eos_id
    assert "| loss | 2.5000 |" in (tmp_path / "out" / "README.md").read_text()
    # a second time into the same folder
    assert cli.main(["convert", str(run), str(tmp_path / "out")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_classifier_is_exported_with_labels_and_control_tokens(tmp_path):
    task = ClassificationConfig(labels=("no", "yes"), pooling="first")
    model = EncoderConfig(dim=16, num_layers=1, num_heads=2, max_len=16)
    run, params = write_run(
        tmp_path, lambda c: heads.Classifier(c, 2, "first"), model=model, task=task
    )
    convert.convert(run, tmp_path / "out")
    loaded = hf.load(tmp_path / "out")
    equal(loaded.params, params)
    assert loaded.settings["id2label"] == {"0": "no", "1": "yes"}
    backend = loaded.tokenizer.backend
    ids = backend.encode("ann met bob").ids
    assert [ids[0], ids[-1]] == [loaded.tokenizer.cls_id, loaded.tokenizer.sep_id]


@pytest.mark.slow
def test_a_run_of_sentence_pairs_is_exported_with_both_heads_if_a_class_has_them(tmp_path):
    bert = EncoderConfig(dim=16, num_layers=1, num_heads=2, max_len=16)
    for name, model in {
        "bert": bert,
        "roberta": dataclasses.replace(bert, position_offset=2),
    }.items():
        (tmp_path / name).mkdir()
        run, params = write_run(
            tmp_path / name, pretraining.SentencePairLM, model=model, task=SentencePairConfig()
        )
        convert.convert(run, tmp_path / name / "out")
        loaded = hf.load(tmp_path / name / "out")
        equal(loaded.params["backbone"], params["backbone"])
        if name == "roberta":
            assert loaded.settings["architectures"] == ["RobertaModel"]
            assert "head" not in loaded.params
            continue
        assert loaded.settings["architectures"] == ["BertForPreTraining"]
        equal(loaded.params["head"]["lm"], params["head"]["lm"])
        # the first class is that of texts in order there, and the second one in the task
        _, pairs = loaded([[2, 7, 3, 8, 3]], token_type_ids=[[0, 0, 0, 1, 1]])
        own = pretraining.SentencePairLM(loaded.config, loaded.model.compute)
        tokens, types = np.array([[2, 7, 3, 8, 3]]), np.array([[0, 0, 0, 1, 1]])
        want = own.apply({"params": params}, tokens, token_types=types)[1]
        np.testing.assert_allclose(pairs, np.asarray(want)[:, ::-1], atol=1e-6)


def test_models_that_transformers_cannot_compute_are_rejected(tmp_path, capsys):
    run, _ = write_run(tmp_path, heads.CausalLM, task=PrefixLMConfig())
    assert cli.main(["convert", str(run), str(tmp_path / "out")]) == 2
    assert "no class for what task prefix_lm trains" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- and back ---


@pytest.fixture
def encoder(tmp_path):
    """A golden BERT with a tokenizer of the same vocabulary size."""
    folder = tmp_path / "bert"
    shutil.copytree(golden.FOLDERS["bert"], folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "about"]
    words += ["number", "love", "war", "tea", *"0123456789", *(f"##{i}" for i in "01234567")]
    assert len(words) == 32
    (folder / "vocab.txt").write_text("\n".join(words))
    return folder


def config_for(folder, init, task, **changes):
    values = dict(
        init=str(init),
        compute=ComputeConfig(unroll=1),
        dropout=0.0,
        task=task,
        run_dir=str(folder / "run"),
        data=dataclasses.replace(
            runs.tiny(folder).data, train=(str(runs.write_labelled(folder)),), text_unit="file"
        ),
        steps=2,
        batch_size=8,
        optimizer=dataclasses.replace(runs.tiny(folder).optimizer, warmup_steps=1),
    )
    return FinetuneConfig(**values | changes)


@pytest.mark.slow
def test_fine_tuning_starts_from_a_hugging_face_folder(encoder, tmp_path, capsys):
    summary = finetune(config_for(tmp_path, encoder, ClassificationConfig()))
    assert summary["steps"] == 2
    assert f"model: EncoderConfig of {encoder} (pretrained weights)" in capsys.readouterr().out
    # what it was fine-tuned to goes out again
    convert.convert(tmp_path / "run", tmp_path / "out")
    assert hf.describe(tmp_path / "out").architecture == "BertForSequenceClassification"


def test_a_language_models_head_is_kept_and_any_other_is_new(encoder, tmp_path):
    golden_params = golden.load("bert").params
    found = init_from.find(config_for(tmp_path, encoder, MaskedLMConfig()))
    assert found.tokenizer.vocab_size == 32
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def abstract(model):
        tree = jax.eval_shape(lambda: heads.init_params(model, jax.random.key(0)))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree)

    equal(found.load(abstract(heads.MaskedLM(found.model))), golden_params)
    loaded = found.load(abstract(heads.Classifier(found.model, 2)))
    equal(loaded, {"backbone": golden_params["backbone"]})


def test_a_folder_without_a_tokenizer_is_rejected(tmp_path):
    folder = golden.FOLDERS["bert"]
    with pytest.raises(ValueError, match=r"has no tokenizer: needs tokenizer\.json"):
        init_from.find(config_for(tmp_path, folder, MaskedLMConfig()))


def test_the_head_of_a_decoder_run_is_reused(tmp_path):
    run, params = write_run(tmp_path, heads.CausalLM)
    found = init_from.find(config_for(tmp_path, run, CausalLMConfig()))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), params)
    equal(found.load(target), params)
