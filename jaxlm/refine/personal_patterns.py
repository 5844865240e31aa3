"""Where a text has personal data of a recognizable form: one function a kind, which yields spans.

All are conservative: a number is personal data only if its form, a checksum or the words before it say so. Every
function takes a text that `plain` has prepared, some also its `long_numbers`, and time linear in its length.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
from collections.abc import Iterable, Iterator

# start and end, in characters
Span = tuple[int, int]

# full-width letters, digits and the signs of numbers and addresses, and hyphens and spaces of other kinds -> ASCII, one
# for one, so that offsets stay
_PLAIN = {
    chr(0xFEE0 + ord(c)): c for c in map(chr, range(0x21, 0x7F)) if c.isalnum() or c in "()+-./:@_"
}
_PLAIN |= dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
_PLAIN |= dict.fromkeys("\xa0\u2002\u2003\u2007\u2009\u202f\u3000", " ")
_OTHER_FORM = re.compile(f"[{''.join(_PLAIN)}]")
# neither a letter nor a digit of ASCII; \b would take 电话13800138000 for one word
_NOT_AFTER = r"(?![A-Za-z0-9_])"


def plain(text: str) -> str:
    """The text with full-width characters, hyphens and spaces as ASCII, of the same length."""
    return _OTHER_FORM.sub(lambda match: _PLAIN[match[0]], text)


# letters of names in Latin script, but no ideographs: 邮箱abc@x.com
_MAIL_CHAR = r"A-Za-z0-9À-ɏ.!#$%&'*+/=?^_`{|}~\-"
_LOCAL_PART = re.compile(rf"[{_MAIL_CHAR}]+")
_MAIL_DOMAIN = re.compile(rf"@(?:[A-Za-z0-9À-ɏ-]{{1,63}}\.){{1,8}}([A-Za-z]{{2,24}}){_NOT_AFTER}")
_HIDDEN_AT = re.compile(r"[\[(]\s?at\s?[\])]", re.IGNORECASE)
_HIDDEN_MAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9._+-]{1,64} ?[\[(]\s?at\s?[\])] ?[A-Za-z0-9-]{1,63}"
    r"(?:(?: ?[\[(]\s?dot\s?[\])] ?|\.)[A-Za-z0-9-]{1,63}){1,4}",
    re.IGNORECASE | re.ASCII,
)
# names of files such as icon@2x.png
_FILES = frozenset(
    (
        *("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "ts", "mjs"),
        *("json", "html", "htm", "php", "py", "md", "pdf"),
    )
)
# characters that may begin an address by the letter of the standard, and in texts never do
_OPENING = "'\"`({[*~.!/=&%#$?^|"


def emails(text: str) -> Iterator[Span]:
    """Addresses (RFC 5322 without quoted names), and those written with [at] and [dot]."""
    for match in _MAIL_DOMAIN.finditer(text):
        # backwards from the sign, at most 64 characters
        before = _LOCAL_PART.match(text[max(match.start() - 65, 0) : match.start()][::-1])
        local = before[0][::-1].lstrip(_OPENING) if before else ""
        if 0 < len(local) <= 64 and match[1].lower() not in _FILES:
            yield match.start() - len(local), match.end()
    if _HIDDEN_AT.search(text):
        for match in _HIDDEN_MAIL.finditer(text):
            yield match.span()


# digits with what separates their groups
_NUMBER = re.compile(r"\d(?:[ ().+/-]{0,3}\d){6,}", re.ASCII)
# characters before and after such a number that decide what it is
_BEFORE, _AFTER = 32, 10


def long_numbers(text: str) -> Iterator[Span]:
    """Parts of a text that have seven digits or more in a row, which are few, with their surroundings."""
    start = end = 0
    for match in _NUMBER.finditer(text):
        if match.start() - _BEFORE > end:
            if end:
                yield start, end
            start = match.start() - _BEFORE
        end = match.end() + _AFTER
    if end:
        yield max(start, 0), min(end, len(text))


# the lookbehind stands after the digit, so that the search jumps from digit to digit
_IPV4 = re.compile(
    r"\d(?<![A-Za-z0-9_.]\d)\d{0,2}(?:\.\d{1,3}){3}"
    r"(?![A-Za-z0-9_]|\.\d|-[A-Za-z]|-\d{1,3}(?![\d.]))",
    re.ASCII,
)
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(
    r"(?<![A-Za-z0-9_:.])(?:[0-9A-Fa-f]{1,4}:|:){2,7}(?:[0-9A-Fa-f]{1,4})?(?![A-Za-z0-9_:])"
)
# what stands before four numbers that are a version or a section
_VERSION = re.compile(
    r"(?:(?<![A-Za-z])(?:versions?|ver|v|releases?|build|firmware|driver|update|patch|sections?|sec|chapter|figure|fig"
    r"|table|item|rule|oid|clause)|[A-Za-z][/-]|§|版本号?|固件|第|章|节)[.:：\s]{0,3}$",
    re.IGNORECASE,
)
_TITLE = re.compile(r"\s[A-Z\u3400-\u9fff]")


def ips(text: str, *, public_only: bool = True) -> Iterator[Span]:
    """Addresses of IPv4 and IPv6.

    Args:
        text: from `plain`.
        public_only: leave addresses of private networks, which point at nobody.
    """
    for match in _IPV4.finditer(text):
        start = match.start()
        if _VERSION.search(text, max(start - 12, 0), start) or _is_heading(text, match):
            continue
        with contextlib.suppress(ValueError):  # a number over 255
            if ipaddress.IPv4Address(match[0]).is_global or not public_only:
                yield match.span()
    for match in _IPV6.finditer(text) if _COLONS.search(text) else ():
        try:
            address = ipaddress.IPv6Address(match[0])
        except ValueError:
            continue
        # global unicast is 2000::/3; a::b in source code is no address
        is_public = address.packed[0] >> 5 == 1 and address.is_global
        if is_public or (not public_only and len(match[0]) > 6):
            yield match.span()


def _is_heading(text: str, match: re.Match) -> bool:
    """Whether four small numbers begin a line, and a title follows."""
    begins = match.start() == 0 or text[match.start() - 1] == "\n"
    small = all(int(octet) < 30 for octet in match[0].split("."))
    return begins and small and _TITLE.match(text, match.end()) is not None


# the length of a number and how its first digits read (ISO/IEC 7812)
_CARD_KINDS = (
    (r"4", (13, 16, 19)),
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),
    (r"3[47]", (15,)),
    (r"6011|64[4-9]|65", (16, 19)),
    (r"30[0-5]|36|3[89]", (14, 16)),
    (r"35(?:2[89]|[3-8])", (16, 19)),
    (r"62|81", (16, 17, 18, 19)),
    (r"220[0-4]", (16,)),
    (r"50|5[678]|6304|67", (16, 18, 19)),
)
_CARD = re.compile(
    r"(?<![A-Za-z0-9_.,$€£¥])(?<!\d[ -])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?"
    r"|\d{4}([ -])\d{6}\2\d{4,5})(?![A-Za-z0-9_]|[.,-]\d| \d(?!\d?/\d\d))",
    re.ASCII,
)


def cards(text: str, parts: Iterable[Span]) -> Iterator[Span]:
    """Numbers of payment cards: prefix and length of a known network, and Luhn's checksum."""
    for match in (m for part in parts for m in _CARD.finditer(text, *part)):
        digits = re.sub("[ -]", "", match[0])
        known = any(re.match(p, digits) and len(digits) in lengths for p, lengths in _CARD_KINDS)
        if known and _luhn(digits) and len(set(digits)) > 1:
            yield match.span()


def _luhn(digits: str) -> bool:
    values = [int(digit) for digit in reversed(digits)]
    doubled = sum(sum(divmod(2 * value, 10)) for value in values[1::2])
    return (sum(values[::2]) + doubled) % 10 == 0


# country -> characters of its account numbers (SWIFT IBAN registry)
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: ("NO",),
        16: ("BE",),
        18: ("DK", "FI", "FK", "FO", "GL", "NL", "SD"),
        19: ("MK", "SI"),
        20: ("AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"),
        21: ("CH", "HR", "LI", "LV"),
        22: ("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"),
        23: ("AE", "GI", "IL", "IQ", "OM", "SO", "TL"),
        24: ("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"),
        25: ("LY", "PT", "ST"),
        26: ("IS", "TR"),
        27: ("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"),
        28: ("AL", "AZ", "BY", "CY", "DO", "GT", "HN", "HU", "LB", "NI", "PL", "SV"),
        29: ("BR", "EG", "PS", "QA", "UA"),
        30: ("JO", "KW", "MU", "YE"),
        31: ("MT", "SC"),
        32: ("LC",),
        33: ("RU",),
    }.items()
    for country in countries
}
_IBAN = re.compile(
    r"([A-Z]{2})\d{2}(?<![A-Za-z0-9_][A-Z]{2}\d{2})(?:[ -]?[A-Z0-9]){11,29}", re.ASCII
)


def ibans(text: str) -> Iterator[Span]:
    """Bank accounts: length of the country, and remainder 1 modulo 97 (ISO 13616)."""
    start = 0
    while match := _IBAN.search(text, start):
        start = match.start() + 1
        end = _iban_end(match)
        if end is not None and not re.match("[A-Za-z0-9_]", text[end : end + 1]):
            number = re.sub("[ -]", "", text[match.start() : end])
            if int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1:
                yield match.start(), end
                start = end


def _iban_end(match: re.Match) -> int | None:
    """Where the number ends by its country's length: words in capitals may follow it."""
    characters = [i for i, c in enumerate(match[0]) if c not in " -"]
    length = _IBAN_LENGTHS.get(match[1])
    if length is None or len(characters) < length:
        return None
    return match.start() + characters[length - 1] + 1


_CHINESE_ID = re.compile(
    r"(?<![A-Za-z0-9_])(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3])\d{4}"
    r"((?:19\d\d|20[0-3]\d)\d{4})\d{3}[\dXx](?![A-Za-z0-9_])",
    re.ASCII,
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def chinese_ids(text: str, parts: Iterable[Span]) -> Iterator[Span]:
    """Identity numbers of the People's Republic: province, a date of birth, checksum (GB 11643-1999)."""
    for match in (m for part in parts for m in _CHINESE_ID.finditer(text, *part)):
        try:
            datetime.datetime.strptime(match[1], "%Y%m%d")
        except ValueError:
            continue
        total = sum(int(digit) * weight for digit, weight in zip(match[0], _WEIGHTS))
        if "10X98765432"[total % 11] == match[0][-1].upper():
            yield match.span()
