import numpy as np
import pytest

from jaxlm.config import TokenizerConfig
from jaxlm.data import documents, tokenizer

TEXTS = ["one two three", "", "four", "five six " * 20]


@pytest.fixture(scope="module")
def tok():
    return tokenizer.train(TEXTS, TokenizerConfig(kind="char", vocab_size=64))


def test_documents_are_the_encoded_texts(tok):
    docs = documents.tokenize(TEXTS, tok)
    want = [tok.encode(text) for text in TEXTS]
    assert [docs[i].tolist() for i in range(len(docs))] == want
    assert docs.lengths.tolist() == [len(w) for w in want]
    assert docs.starts.tolist() == [sum(map(len, want[:i])) for i in range(len(want))]
    assert docs.num_tokens == sum(map(len, want))
    assert (docs.tokens.dtype, docs.ends.dtype) == (np.uint16, np.int64)


def test_the_result_does_not_depend_on_chunks(tok, monkeypatch):
    whole = documents.tokenize(TEXTS, tok)
    done = []
    monkeypatch.setattr(documents, "_CHUNK", 5)
    parts = documents.tokenize(iter(TEXTS), tok, progress=done.append)
    np.testing.assert_array_equal(parts.tokens, whole.tokens)
    np.testing.assert_array_equal(parts.ends, whole.ends)
    assert done == [1, 4]


def test_no_documents_are_an_empty_corpus(tok):
    docs = documents.tokenize([], tok)
    assert (len(docs), docs.num_tokens) == (0, 0)


def test_an_index_out_of_range_is_an_error(tok):
    docs = documents.tokenize(TEXTS, tok)
    np.testing.assert_array_equal(docs[-1], docs[3])
    with pytest.raises(IndexError):
        docs[4]
