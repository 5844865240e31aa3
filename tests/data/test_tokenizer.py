import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from jaxlm.config import CleaningConfig, TokenizerConfig
from jaxlm.data import tokenizer, vocabulary

KINDS = ("byte_bpe", "bpe", "wordpiece", "unigram", "char", "word")
TEXTS = [
    "The quick brown fox jumps over the lazy dog.\n\nIt doesn't stop;  the dog sleeps in 2026.\n",
    "A fox is quick, a dog is lazy: foxes jump, dogs sleep.\tThe end of the tale <eos> is near.",
    "Größe, naïve café; 敏捷的棕色狐狸跳过了懒狗。狐狸和狗。",
] * 3


def train(kind, vocab_size=400, **cleaning):
    config = TokenizerConfig(kind=kind, vocab_size=vocab_size, cleaning=CleaningConfig(**cleaning))
    return tokenizer.train(TEXTS, config)


@pytest.fixture(scope="module")
def trained():
    return {kind: train(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", ["byte_bpe", "bpe", "unigram", "char"])
def test_decoding_restores_the_text(trained, kind):
    for text in [*TEXTS, " leading", "trailing ", "\n\n", "a  b", "<eos><pad> [MASK]"]:
        known = text if kind == "byte_bpe" else "".join(c for c in text if c in "".join(TEXTS))
        assert trained[kind].decode(trained[kind].encode(known)) == known


def test_wordpiece_restores_the_words(trained):
    ids = trained["wordpiece"].encode("the lazy fox sleeps")
    assert trained["wordpiece"].decode(ids) == "the lazy fox sleeps"


def test_byte_bpe_encodes_any_text(trained):
    text = "\U0001f600 \u0416 \u0e01 a\u0301"
    decoded = trained["byte_bpe"].decode(trained["byte_bpe"].encode(text))
    assert decoded == "\U0001f600 \u0416 \u0e01 \u00e1"  # NFC composes the accent


@pytest.mark.parametrize("kind", KINDS)
def test_vocabulary_has_at_most_its_size_and_starts_with_the_control_tokens(trained, kind):
    tok = trained[kind]
    assert tok.vocab_size == len(tok.vocab) <= 400
    assert tok.special_ids == {0, 1, 2, 3, 4}
    assert (tok.pad_id, tok.unk_id, tok.bos_id, tok.eos_id, tok.mask_id) == (0, 1, 2, 3, 4)
    assert (tok.cls_id, tok.sep_id) == (2, 3)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "char"])
def test_the_most_frequent_characters_are_kept(kind):
    tok = train(kind, 40)
    assert tok.vocab_size <= 40
    assert tok.unk_id in tok.encode("敏")
    assert tok.unk_id not in tok.encode("the")


def test_byte_bpe_rejects_a_vocabulary_too_small_for_the_bytes():
    with pytest.raises(ValueError, match=r"vocab_size=100 is too small for byte_bpe.* 261"):
        train("byte_bpe", 100)


def test_characters_are_those_of_the_corpus_by_frequency():
    tok = tokenizer.train(["abb", "cb", "a"], TokenizerConfig(kind="char", vocab_size=16))
    assert sorted(tok.vocab, key=tok.vocab.get)[5:] == ["b", "a", "c"]


def test_words_are_those_of_the_corpus_by_frequency_then_by_alphabet():
    texts = ["b c  <unk> a\n", "c don't zz", "c b <eos>", " B\tzz"]
    tok = tokenizer.train(texts, TokenizerConfig(kind="word", vocab_size=16))
    pieces = sorted(tok.vocab, key=tok.vocab.get)
    assert pieces[:5] == ["<pad>", "<unk>", "<bos>", "<eos>", "<mask>"]
    assert pieces[5:] == ["c", "b", "zz", "B", "a", "don't"]
    # a rare word and one that is not in the corpus, words with punctuation, and control tokens
    assert tok.encode("c C b. <unk> a") == [5, 1, 1, 1, 9]
    assert tok.encode("<eos> <pad>b x<eos> <bos>\n<mask>") == [1] * 5
    assert tok.decode(tok.encode(" don't  b\nzz")) == "don't b zz"
    assert tok.decode(tok.encode("a <unk> b"), skip_special=False) == "a <unk> b"
    few = tokenizer.train([*"abcdefghijklm"] * 2, TokenizerConfig(kind="word", vocab_size=16))
    assert sorted(few.vocab, key=few.vocab.get)[5:] == [*"abcdefghijk"]


@pytest.mark.parametrize("kind", ["byte_bpe", "bpe", "wordpiece"])
def test_long_runs_are_cut_for_training_and_other_text_trains_as_without_cuts(kind, monkeypatch):
    # uncut, "abab..." of 3,000 letters gives an entry of 1,024 letters; and the time is quadratic in the length
    config = TokenizerConfig(kind=kind, vocab_size=512)
    long = tokenizer.train(["ab" * 1500, " " * 3000, "-." * 1500, "12" * 1500], config)
    assert max(len(piece.removeprefix("##")) for piece in long.vocab) <= vocabulary.LONGEST_WORD
    texts = ["a" * 999 + " b12." * 300, "x1-" * 1000, "é" * 999, *TEXTS]
    cut = tokenizer.train(texts, config)
    monkeypatch.setattr(vocabulary, "LONGEST_WORD", 10**5)
    assert tokenizer.train(texts, config).fingerprint == cut.fingerprint


def test_training_without_text_is_rejected():
    with pytest.raises(ValueError, match="no text to train on"):
        tokenizer.train(["", ""], TokenizerConfig())


@pytest.mark.parametrize("kind", KINDS)
def test_text_never_becomes_a_control_token(trained, kind):
    text = "a <eos> <pad> [SEP] [MASK] <mask> b"
    assert not set(trained[kind].encode(text)) & (trained[kind].special_ids - {1})
    again = pickle.loads(pickle.dumps(trained[kind]))
    assert again.encode(text) == trained[kind].encode(text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_encoded_like_single_texts(trained, kind):
    texts = [*TEXTS, "", "lone \ud800 surrogate", "nul \0 byte"]
    batch = trained[kind].encode_batch(texts)
    assert [b.tolist() for b in batch] == [trained[kind].encode(text) for text in texts]
    assert all(b.dtype == np.uint16 for b in batch)


def test_lone_surrogates_become_question_marks(trained):
    assert trained["byte_bpe"].decode(trained["byte_bpe"].encode("a\ud800b")) == "a?b"


def test_control_tokens_are_decoded_on_request(trained):
    ids = [2, *trained["byte_bpe"].encode("fox"), 3]
    assert trained["byte_bpe"].decode(ids) == "fox"
    assert trained["byte_bpe"].decode(ids, skip_special=False) == "<bos>fox<eos>"


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_loads_as_the_same(tmp_path, kind):
    tok = train(kind, unicode="nfkc", collapse_spaces=True, lowercase=True)
    tok.save(tmp_path)
    again = tokenizer.load(tmp_path)
    assert again.fingerprint == tok.fingerprint
    messy = "The\x07  \u3000QUICK\t\tﬁsh <eos>\r\nfox\r"
    clean = "the quick fish <eos>\nfox\n"
    assert again.encode(messy) == tok.encode(clean) == tok.encode(messy)
    assert os.listdir(tmp_path) == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("cleaning", "text", "want"),
    [
        ({"unicode": "nfc"}, "e\u0301 ﬁ", "\u00e9 ﬁ"),
        ({"unicode": "nfkc"}, "e\u0301 ﬁ Ａ", "\u00e9 fi A"),
        ({"unicode": "none"}, "e\u0301", "e\u0301"),
        ({"strip_control": True}, "a\x00\x1b\x7f\x85b\n\tc\r\nd", "ab\n\tc\nd"),
        ({"strip_control": False}, "a\x00b\r\n", "a\x00b\r\n"),
        ({"collapse_spaces": True}, "a \t\u00a0b\n\n c", "a b\n\n c"),
        ({"lowercase": True}, "ÄÖ X", "äö x"),
    ],
)
def test_cleaning(cleaning, text, want):
    tok = train("byte_bpe", **cleaning)
    assert tok.decode(tok.encode(text)) == want


def run(script, *args, **environment):
    return subprocess.run(
        [sys.executable, "-c", script, *args],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )


FINGERPRINTS = """
import sys
from jaxlm.config import TokenizerConfig
from jaxlm.data import tokenizer
words = [chr(0x4E00 + i * 7) + "word%d" % (i * i % 97) + chr(0x400 + i % 50) for i in range(600)]
texts = [" ".join(words[i : i + 9]) for i in range(0, 600, 2)]
for kind in sys.argv[1:]:
    print(tokenizer.train(texts, TokenizerConfig(kind=kind, vocab_size=500)).fingerprint)
"""


def test_the_same_corpus_gives_the_same_fingerprint_in_any_process():
    # ties in frequency, more characters than entries, one thread or several
    first = run(FINGERPRINTS, *KINDS, RAYON_NUM_THREADS="1").stdout
    second = run(FINGERPRINTS, *KINDS, RAYON_NUM_THREADS="3").stdout
    assert first.split() == second.split()
    assert len(set(first.split())) == len(KINDS)


FORK = """
import os
from jaxlm.config import TokenizerConfig
from jaxlm.data import tokenizer
tok = tokenizer.train(["some words to learn from"] * 50, TokenizerConfig(vocab_size=300))
tok.encode_batch(["some words"] * 50)
if os.fork() == 0:
    print(len(tok.encode_batch(["some words"] * 50)), flush=True)
    os._exit(0)
os.wait()
"""


def test_a_long_text_is_encoded_like_its_backend_does(trained):
    made = trained["byte_bpe"]
    text = "the quick brown 天气 fox. " * 600
    expected = made.text_backend.encode(text, add_special_tokens=False)
    assert len(text) > 10_000
    assert made.encode(text) == expected.ids
    ids, characters = made.offsets_with_control(text)
    assert (ids, characters) == (expected.ids, expected.offsets)


def test_a_forked_process_encodes_without_a_warning_or_a_deadlock():
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("50\n", "", 0)


def words(tok, text):
    """The text split at word starts."""
    ids = np.array(tok.encode(text))
    starts = np.flatnonzero(tok.word_starts(ids))
    return [tok.decode(part) for part in np.split(ids, starts[1:])]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "word"])
def test_no_word_contains_a_space(trained, kind):
    for text in TEXTS:
        cut = words(trained[kind], text)
        assert len(cut) > 5
        assert all(re.fullmatch(r"\s*\S*", word) for word in cut)


def test_every_entry_of_a_vocabulary_of_words_is_a_word(trained):
    assert words(trained["word"], "the quick  fox\nsleeps") == ["the", "quick", "fox", "sleeps"]


@pytest.mark.parametrize("kind", ["byte_bpe", "bpe"])
def test_words_begin_at_spaces_and_ideographs(trained, kind):
    assert words(trained[kind], "quickest lazier\nfox懒敏") == [
        "quickest",
        " lazier",
        "\n",
        "fox",
        "懒",
        "敏",
    ]


def test_words_of_wordpiece_and_characters(trained):
    assert words(trained["wordpiece"], "quickest lazier 狐狸.") == [
        "quickest",
        "lazier",
        "狐",
        "狸",
        ".",
    ]
    assert words(trained["char"], "a fox\ndog") == ["a", " ", "fox", "\n", "dog"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("word", ["zebra", "¿Ω?"]),
        ("wordpiece", ["Ω"]),
        ("bpe", ["¿", "Ω"]),
        ("char", ["¿", "Ω"]),
        ("byte_bpe", []),
    ],
)
def test_unknown_words_are_found(trained, kind, expected):
    found = trained[kind].unknown("The zebra <unk> ¿Ω? fox")
    assert [word for word in expected if word not in found] == []
    assert not {"The", "fox", "<unk>"} & set(found)
    assert trained[kind].unknown("The quick brown fox") == []


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_read_as_the_text(trained, kind):
    tok, text = trained[kind], "The quick brown fox jumps over the lazy dog"
    pieces = [tok.piece(i) for i in tok.encode(text)]
    assert "".join(pieces).strip() == text
    assert tok.piece(tok.pad_id).strip() == ("[PAD]" if kind == "wordpiece" else "<pad>")


def test_word_starts_of_a_batch_are_those_of_its_rows(trained):
    ids = np.array([trained["char"].encode("a fox is"), trained["char"].encode("the dogs")])
    both = trained["char"].word_starts(ids)
    for row, starts in zip(ids, both):
        np.testing.assert_array_equal(trained["char"].word_starts(row), starts)


@pytest.mark.parametrize(("piece", "lowercase"), [("the", True), ("The", False)])
def test_bert_vocabulary(tmp_path, piece, lowercase):
    pieces = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", piece, "fox", "##es", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tok = tokenizer.load(tmp_path)
    text = "The foxes." if lowercase else "The foxes. the"
    assert tok.encode(text) == ([6, 7, 8, 9] if lowercase else [6, 7, 8, 9, 2])
    assert (tok.pad_id, tok.unk_id, tok.cls_id, tok.sep_id, tok.mask_id) == (0, 2, 3, 4, 5)
    assert (tok.bos_id, tok.eos_id) == (3, 4)
    assert tok.special_ids == {0, 2, 3, 4, 5}
    # other programs find BERT's frame in the file
    tok.save(tmp_path / "out.json")
    outside = tokenizers.Tokenizer.from_file(str(tmp_path / "out.json"))
    assert outside.encode(piece).ids == [3, 6, 4]


def test_tokenizer_config_decides_on_the_case_of_a_bert_vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\nthe\n")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert tokenizer.load(tmp_path / "vocab.txt").encode("The the") == [0, 1]


def test_gpt2_files(tmp_path):
    vocab = {"l": 0, "o": 1, "w": 2, "Ġ": 3, "lo": 4, "low": 5, "Ġlow": 6, "<|endoftext|>": 7}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nl o\nlo w\nĠ low\n")
    tok = tokenizer.load(tmp_path)
    assert tok.encode("low low") == [5, 6]
    assert tok.decode([5, 6, 7]) == "low low"
    assert (tok.bos_id, tok.eos_id, tok.pad_id) == (7, 7, None)
    assert tok.special_ids == {7}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "tokenizer.json: not a tokenizer"),
        ("tokenizer.json", '{"version": "1.0"}', "tokenizer.json: not a tokenizer"),
        ("tokenizer.json", '{"model": 3}', "tokenizer.json: not a tokenizer"),
        ("vocab.txt", "a\nb\n", r"vocab.txt: no line \[UNK\]"),
        ("vocab.json", "{}", "vocab.json: merges.txt is missing in the same folder"),
        ("other.txt", "", "the folder has none of tokenizer.json, vocab.txt, vocab.json"),
    ],
)
def test_corrupt_tokenizer_files_are_errors_of_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        tokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.json: no such tokenizer file"):
        tokenizer.load(tmp_path / "nothing.json")


def test_a_panic_of_the_library_is_an_ordinary_error():
    # a pattern that backtracks beyond the limit of the regular expression engine
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"(a+)+$"), "isolated")
    tok = tokenizer.Tokenizer(backend)
    with pytest.raises(ValueError, match="the tokenizer fails on this text"):
        tok.encode("a" * 40 + "b")


WORDPIECE = "\n".join(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cafe", "café", "Cafe", "中", "中国", "国"]
)
BESIDE = [
    ({}, "Café 中国", ["cafe", "中", "国"]),
    ({"do_lower_case": False}, "Cafe café", ["Cafe", "café"]),
    ({"strip_accents": False}, "Café", ["café"]),
    ({"do_lower_case": False, "strip_accents": True}, "Cafe café", ["Cafe", "cafe"]),
    ({"tokenize_chinese_chars": False}, "中国", ["中国"]),
]


@pytest.mark.parametrize(("settings", "text", "wanted"), BESIDE)
def test_settings_beside_a_bert_vocabulary_are_those_of_transformers(
    tmp_path, settings, text, wanted
):
    (tmp_path / "vocab.txt").write_text(WORDPIECE)
    config = {"tokenizer_class": "BertTokenizer", **settings}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tok = tokenizer.load(tmp_path)
    assert [tok.backend.id_to_token(i) for i in tok.encode(text)] == wanted


GPT2 = {"l": 0, "o": 1, "w": 2, "Ġ": 3, "lo": 4, "low": 5, "Ġlow": 6, "<|endoftext|>": 7}


def gpt2_files(folder, **files):
    (folder / "vocab.json").write_text(json.dumps(GPT2))
    (folder / "merges.txt").write_text("#version: 0.2\nl o\nlo w\nĠ low\n")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return tokenizer.load(folder)


def test_a_space_in_front_of_a_gpt2_text(tmp_path):
    tok = gpt2_files(tmp_path, tokenizer_config={"add_prefix_space": True})
    assert tok.encode("low low") == [6, 6]


def test_added_tokens_beside_a_vocabulary(tmp_path):
    tok = gpt2_files(
        tmp_path,
        added_tokens={"<tool>": 9, "<|im_end|>": 8},
        special_tokens_map={
            "eos_token": {"content": "<|im_end|>"},
            "additional_special_tokens": ["<x>"],
        },
        tokenizer_config={
            "added_tokens_decoder": {"10": {"content": "<pad>", "special": True}},
            "pad_token": "<pad>",
        },
    )
    assert [tok.vocab[name] for name in ("<|im_end|>", "<tool>", "<pad>", "<x>")] == [8, 9, 10, 11]
    assert (tok.eos_id, tok.pad_id, tok.bos_id) == (8, 10, 7)
    # a control token is text where it is spelled, another added token is not
    assert tok.special_ids == {7, 8, 10, 11}
    assert tok.encode("low<tool>") == [5, 9]
    assert 8 not in tok.encode("<|im_end|>")


def test_added_tokens_with_other_ids_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the added token '<a>' has id 20 in .* gets 8"):
        gpt2_files(tmp_path, added_tokens={"<a>": 20})


@pytest.mark.parametrize("kind", ["CLIPTokenizer", "Qwen2Tokenizer"])
def test_a_class_that_splits_in_another_way_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=f"{kind} is not supported without a tokenizer.json"):
        gpt2_files(tmp_path, tokenizer_config={"tokenizer_class": kind})


def saved(folder, tok, **files):
    tok.save(folder)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return tokenizer.load(folder)


def test_roles_are_what_the_files_say(tmp_path, trained):
    names = ["<|im_start|>", "<|im_end|>", "<|eot|>"]
    tok = trained["byte_bpe"].with_tokens(names)
    start, end, other = tok.ids_of(names).tolist()
    assert (tok.eos_id, tok.end_ids, tok.start_id) == (3, (3,), 2)
    config = {"eos_token": "<|im_end|>", "bos_token": None, "pad_token": {"content": "<|eot|>"}}
    chat = saved(tmp_path, tok, tokenizer_config=config | {"chat_template": "{{ messages }}"})
    assert (chat.eos_id, chat.pad_id, chat.sep_id) == (end, other, end)
    assert chat.role_names == {"eos": "<|im_end|>", "pad": "<|eot|>"}
    assert chat.fingerprint != tok.fingerprint
    # ids, where the files have no names
    generation = {"eos_token_id": [end, other], "decoder_start_token_id": start}
    model = {"model_type": "llama", "bos_token_id": start, "eos_token_id": 3}
    again = saved(tmp_path, tok, tokenizer_config={}, generation_config=generation, config=model)
    assert (again.eos_id, again.end_ids, again.bos_id, again.start_id) == (
        3,
        (3, end, other),
        start,
        start,
    )
    # they are kept with the tokenizer of a run
    (tmp_path / "run").mkdir()
    for tok in (chat, again):
        tok.save(tmp_path / "run")
        kept = tokenizer.load(tmp_path / "run")
        for name in ("roles", "end_ids", "start_id", "fingerprint", "special_ids", "chat_template"):
            assert getattr(kept, name) == getattr(tok, name), name
        assert pickle.loads(pickle.dumps(tok)).roles == tok.roles
        for path in (tmp_path / "run").iterdir():
            path.unlink()


def test_ids_of_another_vocabulary_in_config_json_do_not_count(tmp_path, trained):
    # the defaults of transformers' Llama, where id 1 and 2 are pieces of text
    model = {"model_type": "llama", "bos_token_id": 40, "eos_token_id": 41}
    tok = saved(tmp_path, trained["byte_bpe"], config=model)
    assert (tok.bos_id, tok.eos_id, tok.special_ids) == (2, 3, {0, 1, 2, 3, 4})


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (
            ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"],
            ("bos", "eos", "pad"),
        ),
        (["<BOS_TOKEN>", "<EOS_TOKEN>", "<PAD>", "<UNK>"], ("bos", "eos", "pad", "unk")),
        (["<|im_start|>", "<|im_end|>"], (None, "eos")),
    ],
)
def test_usual_names_of_roles(names, roles):
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.add_special_tokens(names)
    tok = tokenizer.Tokenizer(backend)
    for i, role in enumerate(roles):
        assert role is None or getattr(tok, f"{role}_id") == i


def test_control_tokens_of_the_vocabulary_count_though_they_are_not_marked(tmp_path):
    vocab = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "a": 4, "b": 5, "ab": 6, "<EOS_TOKEN>": 7}
    model = tokenizers.models.WordLevel(vocab, unk_token="<unk>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))
    tok = tokenizer.load(tmp_path)
    assert tok.special_ids == {0, 1, 2, 3, 7}
    assert tok.encode("a </s> ab") == tok.encode_batch(["a </s> ab"])[0].tolist() == [4, 1, 1, 6]
    # a piece of a BPE that its merges make of text is not one
    merges = [("<", "s"), ("<s", ">")]
    vocab = {"<": 0, "s": 1, ">": 2, "<s": 3, "<s>": 4}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    backend.save(str(tmp_path / "tokenizer.json"))
    tok = tokenizer.load(tmp_path)
    assert (tok.special_ids, tok.encode("<s>")) == (set(), [4])


def test_a_unigram_of_others_makes_no_control_token_of_text(tmp_path, trained):
    backend = tokenizers.Tokenizer.from_str(trained["unigram"].backend.to_str())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(split=False)  # as T5's
    assert 3 in backend.encode("a fox <eos> b").ids
    backend.save(str(tmp_path / "tokenizer.json"))
    tok = tokenizer.load(tmp_path)
    ids = tok.encode("a fox <eos> b")
    assert not set(ids) & {0, 2, 3, 4}
    assert ids[:3] == tok.encode("a fox")[:3]
    assert tok.fingerprint == tokenizer.Tokenizer(backend).fingerprint  # the file stays as it is


def test_long_runs_without_a_sign_of_a_word_are_single_tokens(trained):
    ids = np.array(trained["char"].encode("a " + "fox" * 6 + " dog"))
    starts = trained["char"].word_starts(ids)
    assert np.flatnonzero(starts).tolist() == [0, 1, *range(2, 20), 20, 21]
    # 16 tokens are a word
    ids = np.array(trained["char"].encode("a " + "f" * 16 + " d"))
    assert np.flatnonzero(trained["char"].word_starts(ids)).tolist() == [0, 1, 2, 18, 19]


def bpe(pre_tokenizer=None, **options):
    """A tokenizer of letters with one merge."""
    vocab = {piece: i for i, piece in enumerate(["<unk>", *"abcd", "ab", *options.pop("more", ())])}
    merges = options.pop("merges", [("a", "b")])
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", **options))
    backend.pre_tokenizer = pre_tokenizer
    return tokenizer.Tokenizer(backend)


def test_words_that_a_suffix_ends():
    spaces = pre_tokenizers.WhitespaceSplit()
    tok = bpe(spaces, end_of_word_suffix="</w>", more=["d</w>", "b</w>"], merges=[])
    ids = np.array(tok.encode("abd cd ab"))
    assert [tok.backend.id_to_token(i) for i in ids] == [
        *("a", "b", "d</w>"),
        *("c", "d</w>"),
        *("a", "b</w>"),
    ]
    assert np.flatnonzero(tok.word_starts(ids)).tolist() == [0, 3, 5]


def test_pieces_that_do_not_show_words_are_refused():
    tok = bpe(pre_tokenizers.Whitespace())
    with pytest.raises(ValueError, match=r"do not show where words begin.*task\.unit=token"):
        tok.word_starts(np.array(tok.encode("abd cd")))


def test_sentences_end_in_every_script_and_with_their_closing_quotes():
    texts = {
        "en": 'He said: "I saw it." She left',
        "hi": "\u0915\u0964 \u0916",
        "ar": "\u0645\u061f \u0646",
        "am": "\u1210\u1362 \u1218",
        "hy": "\u0561\u0589 \u0562",
        "my": "\u1000\u104b \u1001",
        "zh": "\u72d0\u3002\u300d\u72f8",
    }
    tok = tokenizer.train([*texts.values()], TokenizerConfig(kind="char", vocab_size=100))
    # the last character of each sentence: a quote or bracket behind the mark belongs to it
    want = {"en": [19], "hi": [1], "ar": [1], "am": [1], "hy": [1], "my": [1], "zh": [2]}
    for name, text in texts.items():
        ids = np.array(tok.encode(text))
        assert np.flatnonzero(tok.sentence_ends(ids)).tolist() == want[name], name


def test_new_control_tokens_come_behind_all_pieces_of_a_vocabulary_with_holes(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n\n\nc\nd\ne\n")
    tok = tokenizer.load(tmp_path / "vocab.txt")
    more = tok.with_tokens(["<extra_id_0>", "<extra_id_1>"])
    assert more.ids_of(["<extra_id_0>", "<extra_id_1>"]).tolist() == [12, 13]
    assert more.encode("a d <extra_id_0>")[:2] == [5, 10]
    assert 12 not in more.encode("a d <extra_id_0>")
    assert {12, 13} <= more.special_ids
    # a random replacement is never an id without a piece
    assert {7, 8} <= tok.not_text


def test_form_feeds_and_vertical_tabs_are_blanks():
    clean = vocabulary.cleaner(CleaningConfig())
    assert clean.normalize_str("a\fb\vc\x1ed\x07e") == "a b c de"


def test_an_id_that_would_take_all_memory_is_refused(tmp_path, trained):
    description = json.loads(trained["word"].backend.to_str())
    for change in (
        lambda d: d["model"]["vocab"].update(zebra=4_000_000_000),
        lambda d: d["added_tokens"][0].update(id=4_000_000_000),
    ):
        changed = json.loads(json.dumps(description))
        change(changed)
        (tmp_path / "tokenizer.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="has the id 4000000000"):
            tokenizer.load(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"tokenizer\.json: .*nested too deeply"):
        tokenizer.load(tmp_path / "tokenizer.json")
