"""An exported tokenizer adds the control tokens that the task's rows had in training, whatever its own file adds."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tokenizers as library
from tokenizers import models, pre_tokenizers, processors

from jaxlm.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    FinetuneConfig,
    t5_style,
)
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.hf import export
from jaxlm.hf.families import FAMILIES
from jaxlm.models.twice_read import Reading
from jaxlm.tasks import ClassificationConfig, TaggingConfig, task_class
from jaxlm.tasks.downstream import texts
from jaxlm.tasks.downstream.texts import text_arrays

SIZES = dict(vocab_size=16, dim=8, num_layers=1, num_heads=2, max_len=16)
BERT, ROBERTA = EncoderConfig(**SIZES), EncoderConfig(**SIZES, num_token_types=1)


def tokenizer(names, template=None):
    """Words, control tokens of these names, and perhaps a template."""
    vocab = {name: i for i, name in enumerate(["<pad>", "<unk>", *names, "a", "b", "c"])}
    backend = library.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<pad>", "<unk>", *names])
    if template is not None:
        made = [(name, vocab[name]) for name in names]
        backend.post_processor = (
            processors.TemplateProcessing(*template, special_tokens=made)
            if isinstance(template, tuple)
            else template
        )
    return Tokenizer(backend)


BYTES = processors.ByteLevel(trim_offsets=False)
KINDS = {
    "BERT": (BERT, tokenizer(["[CLS]", "[SEP]"])),
    "RoBERTa": (
        ROBERTA,
        tokenizer(["<s>", "</s>"], ("<s> $A </s>", "<s> $A </s> </s> $B </s>")),
    ),
    "GPT-2": (DecoderConfig(**SIZES), tokenizer(["<|endoftext|>"], BYTES)),
    "Llama": (DecoderConfig(**SIZES), tokenizer(["<s>", "</s>"], ("<s> $A", "<s> $A <s> $B"))),
    "T5": (ROBERTA, tokenizer(["</s>"], ("$A </s>", "$A </s> $B </s>"))),
    "T5 without a template": (EncoderDecoderConfig(**SIZES), tokenizer(["</s>"])),
}


def task_on(kind, settings, **data):
    model, tok = KINDS[kind]
    data = DataConfig(seq_len=12, **data)
    return task_class(settings)(FinetuneConfig(task=settings, data=data, model=model), tok)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_pairs", [False, True])
def test_an_exported_tokenizer_frames_texts_as_the_rows_of_training(kind, has_pairs, tmp_path):
    settings = ClassificationConfig(labels=("x", "y"))
    task = task_on(kind, settings, pair_column="pair" if has_pairs else None)
    family = next(x for x in FAMILIES.values() if isinstance(task.backbone, x.config))
    framed = dataclasses.replace(task.tokenizer, frame=task.frame())
    choice = export.Choice(family, family.base, task.backbone, {})
    export.write_tokenizer(tmp_path, choice, framed, 16)
    again = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    first, second = ["a b c", "a"], ["b", "c c b"]
    ids = [task.tokenizer.encode_batch(x) for x in (first, second)]
    rows = text_arrays(ids[0], ids[1] if has_pairs else None, task.tokenizer, 12)
    for i in range(2):
        want = again.encode(first[i], second[i]) if has_pairs else again.encode(first[i])
        count = rows["segment_ids"][i].sum()
        assert rows["tokens"][i, :count].tolist() == want.ids
        # the others have no embedding of the second type
        types = rows["token_types"][i, :count] if kind == "BERT" else np.zeros(count)
        assert types.tolist() == want.type_ids
    # what transformers' tokenizer returns: types only to a model that has some
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert ("token_type_ids" in written["model_input_names"]) == (kind == "BERT")


def test_texts_without_a_first_token_are_read_by_their_mean():
    settings = ClassificationConfig(labels=("x", "y"))
    pooled = {kind: task_on(kind, settings).model.pooling for kind in KINDS}
    assert pooled == {
        "BERT": "first",
        "RoBERTa": "first",
        "GPT-2": "last",
        "Llama": "last",
        "T5": "mean",
        "T5 without a template": "mean",
    }
    with pytest.raises(ValueError, match=r"no token to put there|set task\.pooling=mean"):
        task_on("T5", dataclasses.replace(settings, pooling="first"))
    # words are tagged without one, too
    assert task_on("T5", TaggingConfig(labels=("O", "B-PER"))).frame().before == ()


def test_a_head_on_what_the_decoder_makes_of_a_text_is_t5s_and_barts(tmp_path):
    settings = ClassificationConfig(labels=("x", "y"), pooling="decoder")
    tok = tokenizer(["</s>"], ("$A </s>", "$A </s> $B </s>"))
    t5 = EncoderDecoderConfig(**SIZES, **t5_style())
    config = FinetuneConfig(task=settings, data=DataConfig(seq_len=12), model=t5)
    task = task_class(settings)(config, tok)
    # the decoder starts with the padding token, as T5's does
    assert task.model.reading == Reading(end=tok.eos_id, start=tok.pad_id, padding=tok.pad_id)
    rows = text_arrays(tok.encode_batch(["a b", "c"]), None, tok, 12)
    params = jax.eval_shape(lambda: task.init(jax.random.key(0)))
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in rows.items()}
    logits = jax.eval_shape(lambda p, b: texts.logits(task, p, b, jax.random.key(0)), params, batch)
    assert logits.shape == (2, 2)
    # the decoder's cross-attention, besides twice what the encoder costs
    encoder = task_class(settings)(
        dataclasses.replace(config, task=dataclasses.replace(settings, pooling="mean")), tok
    )
    assert 2 * encoder.cost(12) < task.cost(12) < 3 * encoder.cost(12)
    choice = export.choose(task.model)
    assert choice.architecture == "T5ForSequenceClassification"
    ids = {name: choice.settings[name] for name in ("eos_token_id", "decoder_start_token_id")}
    assert ids == {"eos_token_id": tok.eos_id, "decoder_start_token_id": tok.pad_id}
    with pytest.raises(ValueError, match=r"pooling=decoder is for encoder-decoders"):
        task_on("BERT", settings)
