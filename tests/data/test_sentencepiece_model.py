import json
import re
import unicodedata

import odd_texts
import pytest

from jaxlm.data import sentencepiece_model, tokenizer

sentencepiece = pytest.importorskip("sentencepiece")
TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps (in the sun).",
    "Größe, naïve café; 敏捷的棕色狐狸跳过了懒狗。 かな 한국어 я и ты. 1234567890 <b>/s</b> s> pad mask unk",
    "the of and ing tion a B 9 é ß 中 文 か न ا ع x Q ! - _ ' s ii iii fi fl VIII",
] * 20
MARKS = "".join(chr(i) for i in range(0x300, 0x10000) if unicodedata.combining(chr(i)))
SEVERAL_ACCENTS = f"[{MARKS}]{{2}}"
KINDS = {
    "unigram": dict(model_type="unigram", vocab_size=190),
    "unigram, bytes": dict(model_type="unigram", vocab_size=420, byte_fallback=True),
    "unigram, words of a user": dict(
        model_type="unigram", vocab_size=190, user_defined_symbols=["fox", "(", "–"], pad_id=3
    ),
    "unigram, nfkc": dict(model_type="unigram", vocab_size=190, normalization_rule_name="nfkc"),
    "bpe": dict(model_type="bpe", vocab_size=200),
    "bpe, bytes": dict(
        model_type="bpe",
        vocab_size=460,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    ),
    "bpe, no prefix": dict(
        model_type="bpe",
        vocab_size=200,
        add_dummy_prefix=False,
        user_defined_symbols=["fox", "\n\n"],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    ),
}
REFUSED = {
    "word": (dict(model_type="word", vocab_size=40), "kind word or char"),
    "char": (dict(model_type="char", vocab_size=60), "kind word or char"),
    "lower case": (dict(vocab_size=170, normalization_rule_name="nmt_nfkc_cf"), "nmt_nfkc_cf"),
    "suffix": (dict(vocab_size=190, treat_whitespace_as_suffix=True), "marks spaces"),
    "user": (dict(model_type="bpe", vocab_size=200, user_defined_symbols=["fox"]), "of a user"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    def train(name, **options):
        path = folder / f"{name}.model"
        if not path.exists():
            prefix = str(path.with_suffix(""))
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(TEXTS),
                model_prefix=prefix,
                minloglevel=2,
                hard_vocab_limit=False,
                character_coverage=1.0,
                **options,
            )
        return path

    return train


@pytest.mark.parametrize("name", KINDS)
def test_ids_are_those_of_sentencepiece(trained, name):
    path = trained(name, **KINDS[name])
    theirs = sentencepiece.SentencePieceProcessor(str(path))
    ours = tokenizer.load(path)
    assert ours.vocab_size == len(theirs)
    # NFKC orders several accents behind one letter, which the library of sentencepiece does not
    texts = [text for text in odd_texts.texts() if not re.search(SEVERAL_ACCENTS, text)]
    assert len(texts) > 480
    wanted = theirs.encode(texts)
    wrong = [(t, w, ours.encode(t)) for t, w in zip(texts, wanted) if ours.encode(t) != w]
    assert wrong == []
    known = [ids for ids in wanted if theirs.unk_id() not in ids]
    assert len(known) > 40
    assert [ours.decode(ids) for ids in known] == theirs.decode(known)
    # the control tokens are named, and text does not become one
    assert (ours.unk_id, ours.bos_id, ours.eos_id) == (0, 1, 2)
    assert {0, 1, 2} <= ours.special_ids


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_give_other_ids_is_refused(trained, name):
    options, reason = REFUSED[name]
    with pytest.raises(ValueError, match=rf"{name}.model: a sentencepiece model .*{reason}"):
        tokenizer.load(trained(name, **options))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("name", ["source.spm", "sentencepiece.bpe.model"])
def test_a_vocabulary_beside_the_model_gives_the_ids(tmp_path, trained, kind, name):
    path = trained(kind, **KINDS[kind])
    theirs = sentencepiece.SentencePieceProcessor(str(path))
    pieces = [theirs.id_to_piece(i) for i in range(len(theirs))]
    # as Marian's: other ids, no <s>, and pieces of the other language
    names = ["</s>", "<unk>", *reversed(pieces[3:]), "▁ciel", ">>fra<<", "<pad>"]
    ids = {name: i for i, name in enumerate(names)}
    (tmp_path / name).write_bytes(path.read_bytes())
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    config = dict(tokenizer_class="MarianTokenizer", eos_token="</s>", pad_token="<pad>")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = tokenizer.load(tmp_path)
    for text in odd_texts.texts(300):
        assert ours.encode(text) == [
            ids.get(piece, ids["<unk>"]) for piece in theirs.encode(text, out_type=str)
        ]
    assert (ours.eos_id, ours.unk_id, ours.pad_id) == (0, 1, ids["<pad>"])
    assert ours.encode(">>fra<< the fox") == [ids[">>fra<<"], *ours.encode("the fox")]
    assert ours.decode([ids["▁ciel"], *ours.encode("fox")]) == "ciel fox"
    (tmp_path / "target.spm").write_bytes(b"another")
    with pytest.warns(UserWarning, match=r"target.spm is not used"):
        tokenizer.load(tmp_path)


def test_a_vocabulary_that_lacks_pieces_is_refused(tmp_path, trained):
    path = trained("unigram", **KINDS["unigram"])
    (tmp_path / "source.spm").write_bytes(path.read_bytes())
    (tmp_path / "vocab.json").write_text(json.dumps({"</s>": 0, "<unk>": 1}))
    with pytest.raises(ValueError, match=r"source.spm: vocab.json lacks \d+ pieces, such as"):
        tokenizer.load(tmp_path)


def test_t5_has_its_sentinels_behind_the_vocabulary(tmp_path, trained):
    path = trained("unigram", **KINDS["unigram"])
    (tmp_path / "spiece.model").write_bytes(path.read_bytes())
    size = tokenizer.load(tmp_path).vocab_size
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    ours = tokenizer.load(tmp_path)
    assert ours.vocab_size == size + 100
    assert (ours.vocab["<extra_id_0>"], ours.vocab["<extra_id_99>"]) == (size + 99, size)
    assert not set(ours.encode("<extra_id_0>")) & ours.special_ids - {ours.unk_id}


def test_xlm_roberta_moves_the_ids(tmp_path, trained):
    path = trained("unigram", **KINDS["unigram"])
    (tmp_path / "sentencepiece.bpe.model").write_bytes(path.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    ours = tokenizer.load(tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(str(path))
    assert (ours.cls_id, ours.pad_id, ours.sep_id, ours.unk_id) == (0, 1, 2, 3)
    assert ours.mask_id == ours.vocab_size - 1 == len(theirs) + 1
    text = "the quick fox"
    assert ours.encode(text) == [i + 1 for i in theirs.encode(text)]


def test_a_class_that_cleans_in_another_way_is_refused(tmp_path, trained):
    path = trained("unigram", **KINDS["unigram"])
    (tmp_path / "spiece.model").write_bytes(path.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "AlbertTokenizer"}')
    with pytest.raises(
        ValueError, match=r"AlbertTokenizer is not supported without a tokenizer.json"
    ):
        tokenizer.load(tmp_path)


def test_damaged_files_are_errors_of_one_line(tmp_path, trained):
    data = trained("unigram", **KINDS["unigram"]).read_bytes()
    for n, content in enumerate((b"", b"text", data[:100], data[: len(data) // 2], b"\xff" * 100)):
        path = tmp_path / f"{n}.model"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a sentencepiece model") as error:
            tokenizer.load(path)
        assert "\n" not in str(error.value)
    assert sentencepiece_model.parse(data).unk_id == 0
