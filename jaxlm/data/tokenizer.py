"""Tokenizers: text to ids and back, loaded from the usual files or trained on a corpus.

`encode` never returns control tokens: "<eos>" in a text is encoded as plain text, and callers add control tokens by id.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from jaxlm.config.data import TokenizerConfig
from jaxlm.data import vocabulary

# role -> names of its token in the usual families, the most specific first
_ROLES = {
    "pad": ("[PAD]", "<pad>", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>"),
    "unk": ("[UNK]", "<unk>", "<|unk|>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
    "bos": ("<bos>", "<s>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"),
    "eos": ("<eos>", "</s>", "<|end_of_text|>", "<|endoftext|>"),
    "cls": ("[CLS]", "<cls>", "<|cls|>"),
    "sep": ("[SEP]", "<sep>", "<|sep|>"),
}
_FALLBACK = {"bos": "cls", "cls": "bos", "eos": "sep", "sep": "eos"}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and its text cleaning; `backend` is a tokenizer of the `tokenizers` library."""

    backend: tokenizers.Tokenizer

    def __post_init__(self):
        self.backend.no_padding()
        self.backend.no_truncation()
        # text of users must not become a control token
        self.backend.encode_special_tokens = True

    def __reduce__(self):
        # unpickled by __init__, because the backend's pickle loses encode_special_tokens
        return Tokenizer, (self.backend,)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without control tokens."""
        with _panics_as_errors():
            return self.backend.encode(_encodable(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text in the smallest dtype that fits, computed on all cores."""
        with _panics_as_errors():
            encodings = self.backend.encode_batch_fast(
                [_encodable(text) for text in texts], add_special_tokens=False
            )
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of ids; control tokens are skipped or written by name."""
        with _panics_as_errors():
            return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    @functools.cached_property
    def vocab(self) -> dict[str, int]:
        """Piece, as it is written in the vocabulary -> id."""
        return self.backend.get_vocab(with_added_tokens=True)

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return max(self.vocab.values()) + 1

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """uint16 if every id fits, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the control tokens."""
        added = self.backend.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    def _role(self, role: str) -> int | None:
        for name in _ROLES[role] + _ROLES.get(_FALLBACK.get(role, ""), ()):
            if name in self.vocab:
                return self.vocab[name]
        return None

    @functools.cached_property
    def pad_id(self) -> int | None:
        """Id of the padding token, if there is one."""
        return self._role("pad")

    @functools.cached_property
    def unk_id(self) -> int | None:
        """Id of the token for text that the vocabulary cannot represent, if there is one."""
        return self._role("unk")

    @functools.cached_property
    def mask_id(self) -> int | None:
        """Id of the mask token of masked language modeling, if there is one."""
        return self._role("mask")

    @functools.cached_property
    def bos_id(self) -> int | None:
        """Id of the token before a text; that of [CLS] if there is no other."""
        return self._role("bos")

    @functools.cached_property
    def eos_id(self) -> int | None:
        """Id of the token after a text; that of [SEP] if there is no other."""
        return self._role("eos")

    @functools.cached_property
    def cls_id(self) -> int | None:
        """Id of the token whose vector represents the text; that of the bos token if there is no other."""
        return self._role("cls")

    @functools.cached_property
    def sep_id(self) -> int | None:
        """Id of the token between two texts; that of the eos token if there is no other."""
        return self._role("sep")

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer's JSON with sorted keys: equal if and only if two tokenizers are the same."""
        return hashlib.sha256(_canonical(self.backend).encode()).hexdigest()

    @functools.cached_property
    def text_fingerprint(self) -> str:
        """The fingerprint without control tokens and templates: equal if two tokenizers encode text alike."""
        parts = json.loads(self.backend.to_str())
        for name in ("post_processor", "truncation", "padding"):
            parts.pop(name, None)
        parts["added_tokens"] = [t for t in parts["added_tokens"] if not t["special"]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def _word_edges(self) -> tuple[np.ndarray, np.ndarray]:
        return vocabulary.word_edges(self.backend, self.vocab, self.vocab_size)

    def word_starts(self, ids: np.ndarray) -> np.ndarray:
        """Whether a word begins at each of the ids [..., T], bool [..., T]."""
        begins, ends_in_space = self._word_edges
        starts = begins[ids]
        starts[..., 1:] |= ends_in_space[ids[..., :-1]]
        starts[..., :1] = True
        return starts

    @functools.cached_property
    def _sentence_ends(self) -> np.ndarray:
        return vocabulary.sentence_ends(self.backend, self.vocab, self.vocab_size)

    def sentence_ends(self, ids: np.ndarray) -> np.ndarray:
        """Whether each of the ids [...] ends a sentence: with a full stop, question or exclamation mark, or newline."""
        return self._sentence_ends[ids]

    def with_tokens(self, names: Sequence[str]) -> Tokenizer:
        """This tokenizer with control tokens of these names; missing ones are added after all other tokens."""
        missing = [name for name in names if name not in self.vocab]
        if not missing:
            return self
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        backend.add_special_tokens(missing)
        return Tokenizer(backend)

    def ids_of(self, names: Sequence[str]) -> np.ndarray:
        """The ids of existing tokens by name [n] int32."""
        return np.array([self.vocab[name] for name in names], np.int32)

    def save(self, path: str | pathlib.Path) -> None:
        """Writes tokenizer.json to the file or folder `path`."""
        path = pathlib.Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        os.replace(temporary, path)


@dataclasses.dataclass(frozen=True)
class TwoTokenizers(Tokenizer):
    """The tokenizer of a decoder, with that of an encoder that has another vocabulary."""

    encoder: Tokenizer

    def __reduce__(self):
        return TwoTokenizers, (self.backend, self.encoder)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of both fingerprints."""
        both = Tokenizer(self.backend).fingerprint + self.encoder.fingerprint
        return hashlib.sha256(both.encode()).hexdigest()

    def with_tokens(self, names: Sequence[str]) -> Tokenizer:
        """Control tokens of these names are added on both sides."""
        decoder = Tokenizer(self.backend).with_tokens(names)
        return TwoTokenizers(decoder.backend, self.encoder.with_tokens(names))


def _canonical(backend: tokenizers.Tokenizer) -> str:
    return json.dumps(json.loads(backend.to_str()), sort_keys=True, ensure_ascii=False)


def _encodable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot represent, replaced by question marks."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Turns a panic of the Rust code, which is not an Exception and so is not caught by handlers, into a ValueError."""
    try:
        yield
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizer fails on this text, is its file sound? {e}") from None


def load(path: str | pathlib.Path) -> Tokenizer:
    """Reads tokenizer.json, vocab.txt (WordPiece), vocab.json with merges.txt (GPT-2), or a folder with one of them.

    Raises:
        ValueError: there is no such file, or it is not a tokenizer.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        names = ("tokenizer.json", "vocab.txt", "vocab.json")
        files = [path / name for name in names if (path / name).is_file()]
        if not files:
            raise ValueError(f"{path}: the folder has none of {', '.join(names)}")
        path = files[0]
    if not path.is_file():
        raise ValueError(f"{path}: no such tokenizer file")
    readers = {"vocab.txt": _load_wordpiece, "vocab.json": _load_gpt2}
    read = readers.get(path.name, _load_wordpiece if path.suffix == ".txt" else _load_json)
    try:
        with _panics_as_errors():
            return Tokenizer(read(path))
    except Exception as e:  # the library raises bare Exceptions for everything
        reason = " ".join(str(e).split())
        message = reason if reason.startswith(str(path)) else f"{path}: not a tokenizer: {reason}"
        raise ValueError(message) from e


def from_json(text: str) -> Tokenizer:
    """The tokenizer of a JSON string that `backend.to_str` returned."""
    return Tokenizer(tokenizers.Tokenizer.from_str(text))


def _load_json(path: pathlib.Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(path))


def _load_wordpiece(path: pathlib.Path) -> tokenizers.Tokenizer:
    pieces = path.read_text(encoding="utf-8").split("\n")
    vocab = {piece.rstrip("\r"): i for i, piece in enumerate(pieces) if piece.rstrip("\r")}
    if "[UNK]" not in vocab:
        raise ValueError(f"{path}: no line [UNK]; a WordPiece vocabulary has one piece per line")
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    settings = path.with_name("tokenizer_config.json")
    if settings.is_file():
        lowercase = bool(
            json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case", True)
        )
    else:
        # a cased vocabulary has pieces with capitals, besides names such as [unused1] and <S>
        lowercase = not any(p[0] not in "[<" and re.search("[A-Z]", p) for p in vocab)
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    _mark_special(backend, vocab)
    _add_bert_template(backend)
    return backend


def _load_gpt2(path: pathlib.Path) -> tokenizers.Tokenizer:
    merges = path.with_name("merges.txt")
    if not merges.is_file():
        raise ValueError(f"{path}: merges.txt is missing in the same folder")
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(path), str(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    _mark_special(backend, backend.get_vocab())
    return backend


def _names() -> list[str]:
    return [name for names in _ROLES.values() for name in names]


def _mark_special(backend: tokenizers.Tokenizer, vocab: dict[str, int]) -> None:
    special = sorted((name for name in set(_names()) if name in vocab), key=vocab.__getitem__)
    backend.add_special_tokens(special)


def _add_bert_template(backend: tokenizers.Tokenizer) -> None:
    """Adds a template, by which other programs add [CLS] and [SEP] as BERT does; `encode` does not use it."""
    tokens = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    if all(i is not None for _, i in tokens):
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=tokens
        )


def train(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Trains a tokenizer of `config.kind` on the texts; the same texts give the same fingerprint.

    Raises:
        ValueError: no text, or a vocabulary too small for the kind.
    """
    texts = [_encodable(text) for text in texts]
    if not any(texts):
        raise ValueError("data.tokenizer: no text to train on")
    with _panics_as_errors():
        backend = vocabulary.train(texts, config)
    if config.kind == "wordpiece":
        _add_bert_template(backend)
    return Tokenizer(backend)
