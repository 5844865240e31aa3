"""API keys, and who a client is."""

from __future__ import annotations

import hashlib
import hmac
import pathlib
from collections.abc import Iterable

from jaxlm.serve.refusal import Refusal


class Keys:
    """The keys that are accepted; none: everybody is."""

    def __init__(self, keys: Iterable[str] = ()):
        # digests, so that the comparison takes as long for every key, and no key is in a traceback
        self._names = {_digest(key): f"key-{_digest(key).hex()[:8]}" for key in keys}

    def __bool__(self) -> bool:
        return bool(self._names)

    def client(self, authorization: str | None, address: str) -> str:
        """Who asks: the name of the key (the beginning of its SHA-256), or the address if there are no keys.

        Raises:
            Refusal: 401.
        """
        if not self._names:
            return address
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Refusal(401, "an API key is needed: send it as Authorization: Bearer KEY")
        digest = _digest(key.strip())
        names = [name for known, name in self._names.items() if hmac.compare_digest(known, digest)]
        if not names:
            raise Refusal(401, "the API key is not known", code="invalid_api_key")
        return names[0]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(path: pathlib.Path | None, environment: str | None) -> Keys:
    """The keys of a file (one a line; # begins a comment) and of JAXLM_API_KEYS (with commas between them).

    Raises:
        ValueError: a source that is given has none, or a key is too short.
    """
    keys: list[str] = []
    for source, text in (("JAXLM_API_KEYS", environment), (str(path), _read(path))):
        if text is None:
            continue
        lines = text.split(",") if source == "JAXLM_API_KEYS" else text.splitlines()
        named = [line.partition("#")[0].strip() for line in lines]
        named = [key for key in named if key]
        if not named:
            # an empty file that let everybody in would be a surprise
            raise ValueError(f"{source} has no API key")
        for key in named:
            if len(key) < 8 or not key.isascii() or any(c.isspace() for c in key):
                raise ValueError(
                    f"{source}: an API key must have at least 8 ASCII characters without spaces, such as "
                    '`python -c "import secrets; print(secrets.token_urlsafe())"` prints'
                )
        keys += named
    return Keys(keys)


def _read(path: pathlib.Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"--api-keys {path}: {getattr(e, 'strerror', None) or 'not UTF-8'}") from e
