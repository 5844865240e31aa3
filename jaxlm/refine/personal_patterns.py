"""Where a text has personal data of a recognizable form: one function a kind, which yields spans.

All are conservative: a number is personal data only if its form, a checksum or the words before it say so. Every
function takes a text that `plain` has prepared, and time linear in its length.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
from collections.abc import Iterator

# start and end, in characters
Span = tuple[int, int]

# characters in other widths -> ASCII, one for one, so that offsets stay; a comma in a number is no ，
_PLAIN: dict[int, int | str] = {0xFF01 + i: 0x21 + i for i in range(94) if i != 11}
_PLAIN |= dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-")
_PLAIN |= dict.fromkeys([0xA0, 0x2002, 0x2003, 0x2007, 0x2009, 0x202F, 0x3000], " ")
# neither a letter nor a digit of ASCII; \b would take 电话13800138000 for one word
_NOT_AFTER = r"(?![A-Za-z0-9_])"


def plain(text: str) -> str:
    """The text with full-width characters, hyphens and spaces as ASCII, of the same length."""
    return text if text.isascii() else text.translate(_PLAIN)


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


# calling codes of countries (ITU-T E.164)
_COUNTRY = (
    r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|2[1-69]\d|3[578]\d|42\d|5[09]\d|6[789]\d|8[0578]\d|9[679]\d)"
)
_INTERNATIONAL = re.compile(
    rf"(?<![A-Za-z0-9_+])(?:\+ ?{_COUNTRY}|00{_COUNTRY}(?=[ ./-]))"
    r"[ ./-]?\(?\d{1,12}\)?(?:[ ./-]{0,2}\d{2,12}){0,6}(?![\d%])",
    re.ASCII,
)
_NORTH_AMERICAN = re.compile(
    r"(?<![A-Za-z0-9_.$€£¥/-])(?<!\d,)(?:\+?1[ .-])?"
    r"(?:\([2-9]\d\d\) ?[2-9]\d\d[ .-]\d{4}|[2-9]\d\d([-.])[2-9]\d\d\1\d{4})(?![A-Za-z0-9_]|[.,-]\d)",
    re.ASCII,
)
_CHINESE_MOBILE = re.compile(
    r"(?<![A-Za-z0-9_.$€£¥/-])(?<!\d,)(?:(?:\+|00)?86[ -]?)?1[3-9]\d([ -]?)\d{4}\1\d{4}"
    r"(?![A-Za-z0-9_%]|[.,-]\d|[元块万亿年人次])",
    re.ASCII,
)
_CHINESE_LANDLINE = re.compile(
    r"(?<![A-Za-z0-9_./-])(?:\(0(?:10|2\d|[3-9]\d\d)\) ?|0(?:10|2\d|[3-9]\d\d)[ -])"
    r"[2-8](?:\d{6,7}|\d{2,3}[ -]\d{4})(?:-\d{1,6})?(?![A-Za-z0-9_]|[.,-]\d)",
    re.ASCII,
)
# any number after one of these words
_NAMED_PHONE = re.compile(
    r"(?:(?<![A-Za-z])(?:tel|telephone|phone|mobile|fax|cell|whatsapp|telefon|handy|tél|téléphone|teléfono)"
    r"(?:\.|s|no\.?| number)?|电话|電話|手机|手機|座机|传真|傳真|热线|熱線|联系方式|聯繫方式|致电)"
    r"(?:号码?|號碼?)?\s{0,2}(?:[:：]|is|是|为)?\s{0,2}(\+?\(?[0-9](?:[ ./()-]{0,2}[0-9]){6,14})(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d([-./ ])(?:0?[1-9]|1[0-2])\1\d{1,2}|\d{1,2}([-./])\d{1,2}\2(?:19|20)\d\d)(?!\d)",
    re.ASCII,
)


# digits with what separates their groups
_NUMBER = re.compile(r"\d(?:[ ().+/-]{0,3}\d){6,}", re.ASCII)
# characters before and after such a number that decide what it is
_BEFORE, _AFTER = 32, 10


def _long_numbers(text: str) -> Iterator[Span]:
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


def phones(text: str) -> Iterator[Span]:
    """Numbers with a country code, of North America, Chinese mobiles and landlines, any after a word such as Tel."""
    for part in _long_numbers(text):
        for match in _INTERNATIONAL.finditer(text, *part):
            if _is_international(match[0]):
                # the bracket may have been opened before the number
                closes = match[0].endswith(")") and "(" not in match[0]
                yield match.start(), match.end() - closes
        for pattern in (_NORTH_AMERICAN, _CHINESE_MOBILE, _CHINESE_LANDLINE):
            for match in pattern.finditer(text, *part):
                yield match.span()
        for match in _NAMED_PHONE.finditer(text, *part):
            if not _DATE.search(match[1]):
                yield match.span(1)


def _is_international(number: str) -> bool:
    digits = re.sub(r"\D", "", number).removeprefix("00")
    # without groups, a plus and a short number is a score or a sum
    least = 8 if re.search(r"\d[ ./()-]", number) else 10
    if not least <= len(digits) <= 15 or digits.endswith("000000") or _DATE.search(number):
        return False
    return not digits.startswith("1") or re.fullmatch(r"1[2-9]\d\d[2-9]\d{6}", digits) is not None


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


def cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards: prefix and length of a known network, and Luhn's checksum."""
    for match in (m for part in _long_numbers(text) for m in _CARD.finditer(text, *part)):
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


def chinese_ids(text: str) -> Iterator[Span]:
    """Identity numbers of the People's Republic: province, a date of birth, checksum (GB 11643-1999)."""
    for match in (m for part in _long_numbers(text) for m in _CHINESE_ID.finditer(text, *part)):
        try:
            datetime.datetime.strptime(match[1], "%Y%m%d")
        except ValueError:
            continue
        total = sum(int(digit) * weight for digit, weight in zip(match[0], _WEIGHTS))
        if "10X98765432"[total % 11] == match[0][-1].upper():
            yield match.span()
