"""The control tokens that a tokenizer's own template adds, and rows that have them."""

import dataclasses

import numpy as np
import pytest
import tokenizers as hf_tokenizers
from tokenizers import models, pre_tokenizers, processors

from jaxlm.data import frames
from jaxlm.data.tokenizer import Tokenizer
from jaxlm.tasks.downstream.texts import text_arrays

VOCAB = {name: i for i, name in enumerate(["<pad>", "<s>", "</s>", "<unk>", "a", "b", "c", "d"])}


def tokenizer(single, pair):
    """Words, with a template."""
    backend = hf_tokenizers.Tokenizer(models.WordLevel(VOCAB, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = [(name, VOCAB[name]) for name in ("<s>", "</s>")]
    if single:
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=names
        )
    backend.add_special_tokens(["<pad>", "<s>", "</s>", "<unk>"])
    return Tokenizer(backend)


@pytest.mark.parametrize(
    ("single", "pair", "before", "after", "around"),
    [
        # RoBERTa, BERT, Llama, GPT-2
        ("<s> $A </s>", "<s> $A </s> </s> $B </s>", (1,), (2,), ((1,), (2, 2), (2,))),
        ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1", (1,), (2,), ((1,), (2,), (2,))),
        ("<s> $A", "<s> $A <s> $B", (1,), (), ((1,), (1,), ())),
        (None, None, (), (), ((), (), ())),
    ],
)
def test_rows_are_framed_as_by_the_template(single, pair, before, after, around):
    plain = tokenizer(single, pair)
    frame = frames.of(plain)
    assert (frame.before, frame.after, frame.pair) == (before, after, around)
    framed = dataclasses.replace(plain, frame=frame)
    first, second = framed.encode_batch(["a b c", "d"]), framed.encode_batch(["b d", "a"])
    rows = text_arrays(first, second, framed, 12)
    for i, texts in enumerate([("a b c", "b d"), ("d", "a")]):
        want = plain.backend.encode(*texts)
        count = len(want.ids)
        assert rows["tokens"][i, :count].tolist() == want.ids
        assert rows["segment_ids"][i].sum() == count
        # the types of BERT; a template with one type for all is for models that have a single type
        if ":1" in (pair or ""):
            assert rows["token_types"][i, :count].tolist() == want.type_ids
    # cut to the length of a row, control tokens kept
    cut = text_arrays(first, second, framed, 6)
    assert (cut["segment_ids"].sum(1) <= 6).all()
    alone = text_arrays(first, None, framed, 4)
    width = 4 - len(before) - len(after)
    np.testing.assert_array_equal(
        alone["tokens"][0][: len(before) + min(3, width) + len(after)],
        [*before, *[4, 5, 6][:width], *after],
    )


def test_a_tokenizer_keeps_its_frame():
    plain = tokenizer("<s> $A </s>", "<s> $A </s> </s> $B </s>")
    framed = dataclasses.replace(plain, frame=frames.of(plain))
    assert framed.with_tokens(["<mask>"]).frame == framed.frame
    import pickle

    assert pickle.loads(pickle.dumps(framed)).frame == framed.frame
