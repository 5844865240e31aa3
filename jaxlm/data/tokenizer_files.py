"""Reads the files of tokenizers: tokenizer.json, vocab.txt (WordPiece), vocab.json with merges.txt (GPT-2)."""

from __future__ import annotations

import pathlib
import re

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from jaxlm.data.tokenizer_config import Config

# files of a folder, the first that exists is read
NAMES = ("tokenizer.json", "vocab.txt", "vocab.json")
# classes that read the same files but split text in another way
_OTHER_WORDPIECE = {
    *("BertJapaneseTokenizer", "BertweetTokenizer", "PhobertTokenizer", "EsmTokenizer"),
    *("RoFormerTokenizer", "CpmAntTokenizer", "BasicTokenizer"),
}
_LIKE_GPT2 = {
    *(
        "",
        "GPT2Tokenizer",
        "RobertaTokenizer",
        "BartTokenizer",
        "LongformerTokenizer",
        "LEDTokenizer",
    ),
    *(
        "CodeGenTokenizer",
        "BlenderbotTokenizer",
        "DebertaTokenizer",
        "MvpTokenizer",
        "WhisperTokenizer",
    ),
    *("PreTrainedTokenizer", "TokenizersBackend", "GPTNeoXTokenizer"),
}


def read(path: pathlib.Path, config: Config) -> tokenizers.Tokenizer:
    """The tokenizer of a file; `config` has the files beside it.

    Raises:
        ValueError: not such a file, or a kind that is not supported.
    """
    if path.name == "vocab.json":
        return _read_gpt2(path, config)
    if path.suffix == ".txt":
        return _read_wordpiece(path, config)
    return tokenizers.Tokenizer.from_file(str(path))


def _flag(config: Config, name: str, default: bool | None) -> bool | None:
    value = config.settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(
            f"{config.folder / 'tokenizer_config.json'}: {name}={value!r} is not true or false"
        )
    return default if value is None else value


def _read_wordpiece(path: pathlib.Path, config: Config) -> tokenizers.Tokenizer:
    if config.tokenizer_class in _OTHER_WORDPIECE:
        raise ValueError(
            f"{path}: {config.tokenizer_class} is not supported, only BERT's WordPiece"
        )
    pieces = path.read_text(encoding="utf-8").split("\n")
    vocab = {piece.rstrip("\r"): i for i, piece in enumerate(pieces) if piece.rstrip("\r")}
    unknown = config.roles.get("unk", "[UNK]")
    if unknown not in vocab:
        raise ValueError(
            f"{path}: no line {unknown}; a WordPiece vocabulary has one piece per line"
        )
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=str(unknown)))
    # a cased vocabulary has pieces with capitals, besides names such as [unused1] and <S>
    cased = any(p[0] not in "[<" and re.search("[A-Z]", p) for p in vocab)
    has_file = bool(config.settings)
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=bool(_flag(config, "do_lower_case", True if has_file else not cased)),
        strip_accents=_flag(config, "strip_accents", None),
        handle_chinese_chars=bool(_flag(config, "tokenize_chinese_chars", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    add_bert_template(backend)
    return backend


def _read_gpt2(path: pathlib.Path, config: Config) -> tokenizers.Tokenizer:
    merges = path.with_name("merges.txt")
    if not merges.is_file():
        raise ValueError(f"{path}: merges.txt is missing in the same folder")
    if config.tokenizer_class not in _LIKE_GPT2:
        raise ValueError(
            f"{path}: {config.tokenizer_class} is not supported without a tokenizer.json, which transformers writes"
        )
    model = models.BPE.from_file(str(path), str(merges))
    backend = tokenizers.Tokenizer(model)
    if any(piece.endswith("</w>") for piece in backend.get_vocab()):
        raise ValueError(
            f"{path}: a vocabulary with </w> is not supported without a tokenizer.json"
        )
    space = bool(_flag(config, "add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    return backend


def add_bert_template(backend: tokenizers.Tokenizer) -> None:
    """Adds a template, by which other programs add [CLS] and [SEP] as BERT does; `encode` does not use it."""
    tokens = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    if all(i is not None for _, i in tokens):
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=tokens
        )
