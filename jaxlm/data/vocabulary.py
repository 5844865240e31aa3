"""Trains a vocabulary on text, and tells which of its pieces begin a word or end a sentence.

The trainers of `tokenizers` iterate over hash tables, whose order differs between processes. So that the result is
reproducible, what depends on that order (the alphabet, its continuation pieces, the scores) is fixed here.
"""

from __future__ import annotations

import collections
import functools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from jaxlm.config.data import CleaningConfig, TokenizerConfig

_SPECIAL = ["<pad>", "<unk>", "<bos>", "<eos>", "<mask>"]
_BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Words, numbers and punctuation, each with the space before it, and other whitespace (after GPT-2's pattern).
_WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s"
# The trainers of BPE and WordPiece take time quadratic in the length of a word, so that a line of 400,000 letters (a
# genome, base64) would stall them. In training only, words are cut after each LONGEST_WORD characters; text without
# such words gives exactly the same vocabulary. Encoding needs no cuts: its time is linear.
LONGEST_WORD = 1000
# of each kind, the classes of characters that words consist of
_CLASSES = {
    "byte_bpe": (r"\p{L}", r"\p{N}", r"[^\s\p{L}\p{N}]", r"\s"),
    "bpe": (r"[\p{L}\p{M}]", r"\p{N}", r"[^\s\p{L}\p{M}\p{N}]"),
    "wordpiece": (r"[^\s\p{P}$+<=>^`|~]",),
}


def train(texts: Sequence[str], config: TokenizerConfig) -> Tokenizer:
    """A trained backend with its normalizer, pre-tokenizer and decoder.

    Raises:
        ValueError: the vocabulary is too small for the kind.
    """
    build = {
        "byte_bpe": _train_byte_bpe,
        "bpe": _train_bpe,
        "wordpiece": _train_wordpiece,
        "unigram": _train_unigram,
        "char": _train_char,
        "word": _train_word,
    }[config.kind]
    return build(texts, config.vocab_size, cleaner(config.cleaning))


def cleaner(config: CleaningConfig) -> normalizers.Normalizer | None:
    """The normalizer for the configured cleaning; None: there is nothing to clean."""
    steps: list[normalizers.Normalizer] = []
    if config.unicode != "none":
        steps.append({"nfc": normalizers.NFC, "nfkc": normalizers.NFKC}[config.unicode]())
    if config.strip_control:
        steps.append(normalizers.Replace(Regex(r"\r\n?"), "\n"))
        # they are between words: vertical tab, form feed, separators
        steps.append(normalizers.Replace(Regex(r"[\x0b\x0c\x1c-\x1f]"), " "))
        steps.append(normalizers.Replace(Regex(r"[\p{Cc}&&[^\t\n]]"), ""))
    if config.collapse_spaces:
        steps.append(normalizers.Replace(Regex(r"[^\S\n]+"), " "))
    if config.lowercase:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(steps) if steps else None


def _train_byte_bpe(texts, vocab_size, normalizer) -> Tokenizer:
    minimum = 256 + len(_SPECIAL)
    if vocab_size < minimum:
        raise ValueError(
            f"data.tokenizer.vocab_size={vocab_size} is too small for byte_bpe: "
            f"256 bytes and {len(_SPECIAL)} control tokens need {minimum}"
        )
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    _fit(backend, texts, trainer, "byte_bpe")
    return backend


def _fit(backend: Tokenizer, texts: Iterable[str], trainer: trainers.Trainer, kind: str) -> None:
    """Trains the model of a backend, with words cut at `LONGEST_WORD`."""
    words = backend.pre_tokenizer
    long = Regex("|".join(f"{chars}{{{LONGEST_WORD}}}" for chars in _CLASSES[kind]))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(long, "isolated"), words])
    backend.train_from_iterator(texts, trainer)
    backend.pre_tokenizer = words


def _sentencepiece_like(model: models.Model, normalizer) -> Tokenizer:
    """Splits into words with the space before each as "▁"; lossless: decoding returns the cleaned text."""
    backend = Tokenizer(model)
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
        ]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="never", split=False)
    return backend


def _train_bpe(texts, vocab_size, normalizer) -> Tokenizer:
    backend = _sentencepiece_like(models.BPE(unk_token="<unk>"), normalizer)
    alphabet = ["▁" if c == " " else c for c in _alphabet(texts, normalizer, vocab_size // 2)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=_SPECIAL,
        initial_alphabet=alphabet,
        limit_alphabet=len(set(alphabet)),
    )
    _fit(backend, texts, trainer, "bpe")
    return backend


def _train_unigram(texts, vocab_size, normalizer) -> Tokenizer:
    backend = _sentencepiece_like(models.Unigram(), normalizer)
    # the trainer keeps every character, which may exceed the size of the vocabulary
    rare = {ord(c): " " for c in _alphabet(texts, normalizer)[vocab_size // 2 :]}
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=_SPECIAL,
        unk_token="<unk>",
    )
    backend.train_from_iterator(
        (text.translate(rare) for text in texts) if rare else texts, trainer
    )
    pieces = _reproducible(json.loads(backend.to_str())["model"]["vocab"][len(_SPECIAL) :])
    backend.model = models.Unigram([(s, 0.0) for s in _SPECIAL] + pieces, unk_id=1)
    return backend


def _reproducible(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Pieces in a fixed order, with scores that do not differ between two trainings on the same text.

    Threads sum expected counts in any order, so that the last digits are noise. And to characters that it adds again at
    the end, the trainer gives the lowest score plus 0.0001 times their position in a hash table.
    """
    lowest = min(score for _, score in pieces)
    highest_added = lowest + 1e-4 * (1 + sum(len(piece) == 1 for piece, _ in pieces))
    scores = [
        (p, round(lowest if len(p) == 1 and score <= highest_added else score, 4))
        for p, score in pieces
    ]
    return sorted(scores, key=lambda x: (-x[1], x[0]))


def _train_wordpiece(texts, vocab_size, normalizer) -> Tokenizer:
    # each ideograph is a word, as in BERT
    ideographs = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    normalizer = normalizers.Sequence([normalizer, ideographs] if normalizer else [ideographs])
    words = pre_tokenizers.BertPreTokenizer()
    alphabet = [c for c in _alphabet(texts, normalizer, vocab_size // 3) if not c.isspace()]
    # pieces for characters inside a word; passed as control tokens only for training, because otherwise their ids
    # would depend on the order of a hash table
    inner = ["##" + c for c in alphabet if len(words.pre_tokenize_str(f"a{c}")) == 1]
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.normalizer, scratch.pre_tokenizer = normalizer, words
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=_BERT_SPECIAL + inner,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    _fit(scratch, texts, trainer, "wordpiece")
    backend = Tokenizer(models.WordPiece(scratch.get_vocab(), unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, words
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(_BERT_SPECIAL)
    return backend


def _train_char(texts, vocab_size, normalizer) -> Tokenizer:
    alphabet = _alphabet(texts, normalizer, vocab_size - len(_SPECIAL))
    vocab = {piece: i for i, piece in enumerate(_SPECIAL + alphabet)}
    # a BPE without merges has one piece per character, and is faster than splitting the text
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    backend.normalizer = normalizer
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(_SPECIAL)
    return backend


def _train_word(texts, vocab_size, normalizer) -> Tokenizer:
    """Each run of characters without whitespace is a word; words beyond the most frequent are <unk>.

    So is a word that is spelled like a control token, which text must not become.
    """
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update((normalizer.normalize_str(text) if normalizer else text).split())
    for piece in _SPECIAL:
        counts.pop(piece, None)
    words = sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - len(_SPECIAL)]
    vocab = {piece: i for i, piece in enumerate([*_SPECIAL, *words])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    control = Regex(rf"(?<!\S)(?:{'|'.join(_SPECIAL)})(?!\S)")
    replace = normalizers.Replace(control, "<unk>")
    backend.normalizer = normalizers.Sequence([normalizer, replace] if normalizer else [replace])
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(_SPECIAL)
    return backend


def _alphabet(texts: Sequence[str], normalizer, limit: int | None = None) -> list[str]:
    """The characters of the cleaned texts by frequency, then by code point; at most `limit` of them."""
    counts = np.zeros(0x110000, np.int64)
    for chunk in chunks(texts, 1 << 20):
        joined = "\n".join(chunk)
        cleaned = normalizer.normalize_str(joined) if normalizer else joined
        counts += np.bincount(
            np.frombuffer(cleaned.encode("utf-32-le"), np.uint32), minlength=0x110000
        )
        counts[ord("\n")] -= len(chunk) - 1
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    return [chr(code) for code in order[:limit]]


def chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """The texts in lists of about `size` characters."""
    chunk: list[str] = []
    size_so_far = 0
    for text in texts:
        chunk.append(text)
        size_so_far += len(text)
        if size_so_far >= size:
            yield chunk
            chunk, size_so_far = [], 0
    if chunk:
        yield chunk


def cuts(control: Sequence[str], pieces: Sequence[str]) -> tuple[str, list[str]]:
    """A pattern of where to cut text that spells control tokens, and those of them that are not cut in a safe place.

    It matches what is before a cut. Safe is between two letters that no piece has beside each other and that are not
    both unknown: there, nothing but the control token is lost.
    """
    beside = {text[i : i + 2] for text in pieces for i in range(len(text) - 1)}
    letters = {text for text in pieces if len(text) == 1}
    unsafe = []
    ends: dict[str, list[str]] = {}
    for text in sorted(control):
        safe = (
            i
            for i in range(1, len(text))
            if text[i - 1 : i + 1] not in beside and letters & {text[i - 1], text[i]}
        )
        at = next(safe, 0)
        if not at:
            unsafe.append(text)
        ends.setdefault(text[: at or 1], []).append(re.escape(text[at or 1 :]))
    alternatives = (f"{re.escape(x)}(?={'|'.join(rest)})" for x, rest in ends.items())
    return "|".join(alternatives), unsafe


def word_edges(
    backend: Tokenizer, vocab: dict[str, int], vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each id, whether it begins a word, and whether it ends one, so that the next begins one: bool [V] each.

    Raises:
        ValueError: the pieces do not show where words begin.
    """
    description = json.loads(backend.to_str())
    model = description["model"]
    kind = model["type"]
    special = {token["content"] for token in description["added_tokens"]}
    # what a piece within a word begins with, and what the last piece of a word ends with
    inner, last = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    if kind not in ("WordPiece", "WordLevel") and not (inner or last):
        _check_marks(backend)
    begins = np.zeros(vocab_size, bool)
    ends = np.zeros(vocab_size, bool)
    bytes_of = _bytes_of(description)
    for piece, i in vocab.items():
        if piece in special or kind == "WordLevel":
            begins[i] = ends[i] = True
        elif inner:
            begins[i] = not piece.startswith(inner)
        elif last:
            ends[i] = piece.endswith(last)
        else:
            data = bytes_of(piece)
            # the lead bytes of U+3000 to U+9FFF: kana and ideographs, which are written without spaces
            begins[i] = data[:1].isspace() or b"\xe3" <= data[:1] <= b"\xe9"
            ends[i] = data[-1:].isspace()
    return begins, ends


def _check_marks(backend: Tokenizer) -> None:
    """Raises ValueError if the spaces between words are lost before the text is divided into pieces."""
    split = backend.pre_tokenizer
    parts = ["a b"] if split is None else [part for part, _ in split.pre_tokenize_str("a b")]
    if parts == ["a", "b"]:
        raise ValueError(
            "this tokenizer's pieces do not show where words begin, because its pre-tokenizer drops the spaces: use "
            "task.unit=token"
        )


def sentence_ends(
    backend: Tokenizer, vocab: dict[str, int], vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each id, whether a sentence ends with it, and whether it only closes quotes and brackets: bool [V] each."""
    description = json.loads(backend.to_str())
    special = {token["content"] for token in description["added_tokens"]}
    bytes_of = _bytes_of(description)
    ends = np.zeros(vocab_size, bool)
    closes = np.zeros(vocab_size, bool)
    marks = sentence_marks()
    for piece, i in vocab.items():
        if piece not in special:
            # a piece may begin or end within a character
            text = bytes_of(piece).decode(errors="ignore")
            bare = text.rstrip().rstrip(_CLOSING)
            ends[i] = "\n" in text or bare[-1:] in marks
            closes[i] = bool(text.strip()) and not bare.strip()
    return ends, closes


@functools.cache
def sentence_marks() -> frozenset[str]:
    """The characters that end a sentence: those with Unicode's property Sentence_Terminal, and the ellipsis."""
    marks = "".join(chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) == "Po")
    terminal = normalizers.Replace(Regex(r"\P{Sentence_Terminal}"), "").normalize_str(marks)
    return frozenset(terminal) | {"…"}


# closing quotes and brackets, and those that do not say whether they open or close
_CLOSING = "".join(
    chr(i)
    for i in range(0x10000)
    if unicodedata.category(chr(i)) in ("Pe", "Pf") or chr(i) in "\"'“”„‟"
)


def _bytes_of(description: dict) -> Callable[[str], bytes]:
    """A function from a piece of the vocabulary to the bytes that it represents."""
    if "ByteLevel" in json.dumps(description["decoder"]):
        return _piece_bytes
    return lambda piece: piece.replace("▁", " ").encode()


def _piece_bytes(piece: str) -> bytes:
    """The bytes that a piece of a byte-level vocabulary represents (GPT-2's table)."""
    if all(c in _BYTE_OF for c in piece):
        return bytes(_BYTE_OF[c] for c in piece)
    return piece.encode()


def _byte_table() -> dict[str, int]:
    """Printable bytes are represented by themselves, the others by U+0100 and up in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE_OF = _byte_table()
