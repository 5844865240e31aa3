"""Tagging: windows, first tokens, and rows that cannot be used."""

import json

import numpy as np
import pytest

from jaxlm.config import DataConfig, EncoderConfig, FinetuneConfig, TokenizerConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.data.rows import ArrayRows
from jaxlm.run import prepare
from jaxlm.run.restore import read
from jaxlm.tasks import TaggingConfig
from jaxlm.tasks.downstream import sentences, spans, word_windows
from jaxlm.tasks.downstream.tagging import Tagging

TEXT = "Ann Lee met Bob Lee in Paris, France on day 12."
KINDS = ("wordpiece", "byte_bpe", "unigram", "char")


@pytest.fixture(scope="module")
def known():
    """A tokenizer of each kind."""
    texts = [TEXT, "the quick brown fox jumps over the lazy dog", "北京 東京"]
    return {k: tokenizers.train(texts, TokenizerConfig(kind=k, vocab_size=320)) for k in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_is_in_one_window_at_its_first_token(known, kind):
    tokenizer = known[kind]
    found = [sentences.split(TEXT * n) for n in (1, 3)]
    rows = word_windows.rows(found, tokenizer, 14, 5)
    encoded = tokenizer.encode_with_offsets([s.text for s in found])
    arrays = rows.arrays
    for record, sentence in enumerate(found):
        mine = arrays["word"][arrays["record"] == record]
        tokens = arrays["tokens"][arrays["record"] == record]
        counted = np.sort(mine[mine >= 0])
        assert counted.tolist() == list(range(len(sentence.words)))
        firsts = word_windows.first_tokens(encoded[record].spans, sentence.words)
        for row, at in zip(tokens, mine):
            for position in np.flatnonzero(at >= 0):
                first = firsts[at[position]]
                assert row[position] == encoded[record].ids[first]
                word = sentence.words[at[position]]
                start, end = encoded[record].spans[first]
                assert word[0] == start < end
    assert (arrays["tokens"][:, 0] == tokenizer.cls_id).all()


def test_windows_share_the_overlap_and_words_count_where_they_have_most_around_them():
    # a word at every token; 12 tokens, windows 0-5, 4-9 and 6-11
    found = word_windows.windows(12, np.arange(12), room=6, overlap=2)
    assert [start for start, _ in found] == [0, 4, 6]
    assert [words.tolist() for _, words in found] == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]]
    for count in range(1, 40):
        every = np.concatenate([w for _, w in word_windows.windows(count, np.arange(count), 6, 2)])
        assert sorted(every) == list(range(count))
    assert word_windows.windows(0, np.full(2, -1), 6, 2)[0][1].tolist() == []


def test_words_that_the_tokenizer_drops_or_joins_have_no_token():
    # tokens: a word, nothing, then one that covers two words
    characters = np.array([[0, 3], [3, 3], [4, 6]])
    words = np.array([[0, 3], [4, 5], [5, 6], [7, 8]])
    assert word_windows.first_tokens(characters, words).tolist() == [0, 2, -1, -1]
    assert word_windows.first_tokens(np.zeros((0, 2), int), words).tolist() == [-1] * 4


def test_what_a_joined_token_hides_is_counted():
    rows = ArrayRows(
        {
            "word": np.array([[-1, 0, 1, -1]]),
            "record": np.array([0]),
            "segment_ids": np.ones((1, 4)),
        }
    )
    labels = ("O", "B-A", "I-A")
    found = word_windows.with_labels(rows, [["O", "B-A", "I-A", "B-A"]], labels)
    assert found.arrays["labels"].tolist() == [[0, 0, 1, 0]]
    assert "1 tags are of words that share a token" in found.describe(1)
    assert "tags" not in word_windows.with_labels(
        rows, [["O", "B-A", "I-A", "I-A"]], labels
    ).describe(1)


def test_a_row_without_room_is_refused(known):
    with pytest.raises(ValueError, match=r"task.overlap=12 leaves no room .* data.seq_len=14"):
        word_windows.rows([sentences.split(TEXT)], known["char"], 14, 12)


def load(path, settings, **data):
    """Config and data of a run on a file."""
    config = FinetuneConfig(
        task=settings, data=DataConfig(train=(str(path),), validation_fraction=0.0, **data)
    )
    return prepare.read_data(config, Tagging)


SPANS = TaggingConfig(spans_column="spans")
GIVEN = TaggingConfig(labels=("O", "B-PER", "I-PER"))


def ann(end, *more):
    return {"text": "Ann Lee", "spans": [{"start": 0, "end": end, "label": "PER"}, *more]}


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"words": ["a", "b"], "tags": ["O"]}, TaggingConfig(), "1 tags for 2 words"),
        ({"words": "a b", "tags": ["O", "O"]}, TaggingConfig(), "'words' is not a list of words"),
        ({"words": ["a"], "tag": ["O"]}, TaggingConfig(), "no column 'tags'; .*|no column 'tags'"),
        ({"words": ["a"], "tags": [None]}, TaggingConfig(), "tag in column 'tags' is not a string"),
        ({"words": ["a"], "tags": ["B-PERS"]}, GIVEN, "'B-PERS'; did you mean 'B-PER'"),
        ({"words": ["a"], "tags": ["XY"]}, GIVEN, "unknown tag 'XY'; tags: O, B-PER, I-PER"),
        (ann(5), SPANS, r"span that cuts a word 'Ann L' \(PER\) in 'Ann Lee'"),
        (
            ann(7, {"start": 4, "end": 7, "label": "LOC"}),
            SPANS,
            r"overlapping spans 'Ann Lee' \(PER\) and 'Lee' \(LOC\)",
        ),
        (ann(9), SPANS, "span out of range"),
    ],
)
def test_a_sentence_that_cannot_be_tagged_is_named_or_counted(tmp_path, row, settings, message):
    good = {"words": ["Ann", "ran"], "tags": ["B-PER", "O"]}
    if settings is SPANS:
        good = {"text": "Ann ran", "spans": [{"start": 0, "end": 3, "label": "PER"}]}
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=rf"train.jsonl:2: .*({message})"):
        load(path, settings)
    _, data = load(path, settings, on_bad_row="skip")
    assert len(data.train) == 1
    assert "1 skipped" in data.train.describe()


def test_conll_files_give_words_and_tags_also_of_single_words(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("Ann NNP B-PER\nran VBD O\n\nBob NNP B-PER\n")
    config, data = load(path, TaggingConfig())
    assert config.task.labels == ("O", "B-PER", "I-PER")
    assert data.train.columns["tags"] == [["B-PER", "O"], ["B-PER"]]
    path.write_text("Ann NOUN\nran VERB\n")
    config, _ = load(path, TaggingConfig())
    assert config.task.labels == ("NOUN", "VERB")
    task = Tagging(
        FinetuneConfig(task=config.task, model=EncoderConfig(vocab_size=8, dim=8, num_heads=2)),
        tokenizers.train([TEXT], TokenizerConfig(kind="wordpiece", vocab_size=64)),
    )
    assert task.metric == "accuracy"
    path.write_text("Ann O\nran O\n")
    with pytest.raises(ValueError, match=r"data.train has only the tag 'O'"):
        load(path, TaggingConfig())


def test_words_or_texts_are_read_to_predict(tmp_path):
    config = FinetuneConfig(task=TaggingConfig(labels=("O", "B-A", "I-A")))
    path = tmp_path / "new.jsonl"
    path.write_text('{"words": ["a"]}\n{"text": "a b"}\n{"other": 1}\n')
    data = read(config.data, (str(path),), Tagging.columns(config, "predict"))
    data = Tagging.select(config.task, data, config)
    assert data.columns == {"words": [["a"], None], "text": [None, "a b"]}
    assert "1 skipped: empty text" in data.describe()


def test_reading_gives_each_word_its_tag_and_spans_their_text(known):
    tokenizer = known["wordpiece"]
    settings = TaggingConfig(labels=("O", "B-PER", "I-PER"), overlap=4)
    config = FinetuneConfig(
        task=settings,
        data=DataConfig(seq_len=14),
        model=EncoderConfig(vocab_size=tokenizer.vocab_size, dim=8, num_heads=2, max_len=16),
    )
    task = Tagging(config, tokenizer)
    sentence = sentences.split(TEXT)
    true = ["O"] * len(sentence.words)
    true[0:2], true[3:5] = ["B-PER", "I-PER"], ["B-PER", "I-PER"]
    rows = word_windows.rows([sentence], tokenizer, 14, 4)
    assert len(rows) > 1
    labels = word_windows.with_labels(rows, [true], settings.labels).arrays["labels"]
    outputs = [
        {"word": word, "tag": tag, "probability": np.full(14, 0.5)}
        for word, tag in zip(rows.arrays["word"], labels)
    ]
    found = task.read(outputs, {"text": TEXT})
    assert found["tags"] == true
    assert [s["text"] for s in found["spans"]] == ["Ann Lee", "Bob Lee"]
    assert found["spans"][1] == {
        "label": "PER", "start": 12, "end": 19, "text": "Bob Lee", "probability": 0.5,
    }  # fmt: skip
    assert spans.score([true], [found["tags"]])["f1"] == 1
