"""What a folder says of its tokenizer besides the vocabulary: roles of control tokens, added tokens, chat template.

Read from tokenizer_config.json, special_tokens_map.json, added_tokens.json, generation_config.json and config.json.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

import tokenizers

from jaxlm.config import json_text
from jaxlm.config.disk import check_no_link

# several templates of one model by name: the one called "default", and perhaps one for requests with tools
Template = str | Mapping[str, str]
ROLES = ("pad", "unk", "mask", "bos", "eos", "cls", "sep")
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
_OTHERS = "additional_chat_templates"
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


@dataclasses.dataclass(frozen=True)
class Config:
    """The files beside a vocabulary."""

    # tokenizer_config.json
    settings: dict[str, Any]
    # role -> name of its token, or its id where a file names only that
    roles: dict[str, str | int]
    template: Template | None
    # ids of all tokens that end a text, by generation_config.json or config.json
    ends: tuple[int, ...]
    # added tokens by name: flags, and the id if a file gives it
    added: dict[str, dict[str, Any]]
    folder: pathlib.Path
    # of config.json; empty if there is none
    model_type: str

    @property
    def tokenizer_class(self) -> str:
        """The class in transformers without `Fast`, or an empty text."""
        name = self.settings.get("tokenizer_class")
        return re.sub("Fast$", "", name) if isinstance(name, str) else ""


def read(folder: pathlib.Path) -> Config:
    """Reads the files that a folder has.

    Raises:
        ValueError: a file is not what it should be.
    """
    settings = _object(folder / CONFIG)
    older = _object(folder / "special_tokens_map.json")
    roles: dict[str, str | int] = {}
    added: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        token = settings.get(f"{role}_token", older.get(f"{role}_token"))
        name = token.get("content") if isinstance(token, dict) else token
        if isinstance(name, str):
            roles[role] = name
    model = _object(folder / "config.json")
    generation = _object(folder / "generation_config.json")
    if "model_type" in model:  # otherwise it is a run's
        for role in ("bos", "eos", "pad"):
            _set_id(roles, role, model.get(f"{role}_token_id"))
    for source in (generation, model):
        _set_id(roles, "start", source.get("decoder_start_token_id"))
    given = generation.get("eos_token_id", model.get("eos_token_id"))
    ends = tuple(i for i in (given if isinstance(given, list) else [given]) if _is_id(i))
    for name, i in _object(folder / "added_tokens.json").items():
        added[name] = {"id": i, "special": name in roles.values()}
    for i, token in _dict(settings.get("added_tokens_decoder")).items():
        if isinstance(token, dict) and isinstance(token.get("content"), str) and i.isdigit():
            added[token["content"]] = {**token, "id": int(i)}
    for source in (older, settings):
        for token in source.get("additional_special_tokens") or ():
            name = token.get("content") if isinstance(token, dict) else token
            if isinstance(name, str):
                added[name] = added.get(name, {}) | {"special": True}
    kind = model.get("model_type")
    kind = kind if isinstance(kind, str) else ""
    return Config(settings, roles, read_template(folder), ends, added, folder, kind)


def _set_id(roles: dict[str, str | int], role: str, i: Any) -> None:
    if isinstance(i, list) and i:
        i = i[0]
    if _is_id(i) and role not in roles:
        roles[role] = i


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _object(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    return json_text.read_object(path) if path.is_file() else {}


def add_tokens(backend: tokenizers.Tokenizer, config: Config) -> None:
    """Adds the tokens that the files list and the vocabulary file lacks, and marks control tokens as such.

    Raises:
        ValueError: an added token would get another id than its file says.
    """
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    order = sorted(config.added.items(), key=lambda x: x[1].get("id", 2**62))
    for name, token in order:
        special = bool(token.get("special"))
        if name in known and (known[name].special or not special):
            continue
        flags = {flag: bool(token[flag]) for flag in _FLAGS if flag in token}
        made = tokenizers.AddedToken(name, special=special, **{"normalized": not special} | flags)
        (backend.add_special_tokens if special else backend.add_tokens)([made])
        given, wanted = backend.token_to_id(name), token.get("id")
        if wanted is not None and given != wanted:
            raise ValueError(
                f"{config.folder}: the added token {name!r} has id {wanted!r:.40} in added_tokens.json or "
                f"tokenizer_config.json, but behind the vocabulary it gets {given}; a tokenizer.json is needed"
            )


def names_of_roles(
    backend: tokenizers.Tokenizer, config: Config, usual: Collection[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """role -> name of its token, of those that are in the vocabulary; and the names of all tokens that end a text.

    An id in config.json counts only if its token is marked as special or has one of the `usual` names: many files have
    ids of another vocabulary there, from the defaults of a class.
    """
    special = {t.content for t in backend.get_added_tokens_decoder().values() if t.special}

    def name_of(token: str | int) -> str | None:
        if isinstance(token, str):
            return token if backend.token_to_id(token) is not None else None
        name = backend.id_to_token(token)
        return name if name in special or name in usual else None

    named = {role: name_of(token) for role, token in config.roles.items()}
    roles = {role: name for role, name in named.items() if name is not None}
    ends = tuple(name for i in config.ends if (name := name_of(i)) is not None)
    return roles, ends if set(ends) != {roles.get("eos")} else ()


def read_template(folder: pathlib.Path) -> Template | None:
    """The chat template of a model's or a run's folder; None: it has none.

    chat_template.jinja goes before `chat_template` in tokenizer_config.json, which is a string or a list of named ones.

    Raises:
        ValueError: a file is not readable or not a template.
    """
    folder = pathlib.Path(folder)
    named = parse_template(_object(folder / CONFIG).get("chat_template"), str(folder / CONFIG))
    try:
        for file in sorted((folder / _OTHERS).glob("*.jinja")):
            named[file.stem] = file.read_text(encoding="utf-8")
        if (folder / TEMPLATE).is_file():
            named["default"] = (folder / TEMPLATE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{folder}: its chat template cannot be read: {e}") from e
    return named["default"] if set(named) == {"default"} else named or None


def parse_template(given: Any, where: str) -> dict[str, str]:
    """The templates by name of a `chat_template` of tokenizer_config.json; `where` is for messages."""
    if not given:
        return {}
    if isinstance(given, str):
        return {"default": given}
    try:
        named = {entry["name"]: entry["template"] for entry in given}
    except (TypeError, KeyError) as e:
        raise ValueError(f"{where}: chat_template is neither a string nor named ones") from e
    if not all(isinstance(x, str) for pair in named.items() for x in pair):
        raise ValueError(f"{where}: chat_template is neither a string nor named ones")
    return named


def write_template(folder: pathlib.Path, template: Template | None) -> None:
    """Writes the files that `read_template`, and transformers, read."""
    named = {"default": template} if isinstance(template, str) else template or {}
    for name, text in named.items():
        if not re.fullmatch(r"[\w\-]+", name):
            raise ValueError(f"a chat template's name is {name!r}, which is not a file name")
        path = folder / TEMPLATE if name == "default" else folder / _OTHERS / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        check_no_link(path)
        path.write_text(text, encoding="utf-8")


def write(
    folder: pathlib.Path,
    roles: Mapping[str, str],
    template: Template | None,
    ids: Mapping[str, Any],
) -> None:
    """Writes what `read` reads of a run's tokenizer beside its tokenizer.json; `ids` go to generation_config.json."""
    names = {f"{role}_token": name for role, name in roles.items() if role in ROLES}
    for name, content in ((CONFIG, names), ("generation_config.json", ids)):
        if content:
            text = json.dumps(content, indent=2, ensure_ascii=False)
            check_no_link(folder / name)
            (folder / name).write_text(text + "\n", encoding="utf-8")
    write_template(folder, template)
