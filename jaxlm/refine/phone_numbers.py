"""Where a text has phone numbers: with a country code, in a national form, or after a word that announces one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from jaxlm.refine.personal_patterns import Span

# calling codes of countries (ITU-T E.164)
_COUNTRY = (
    r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|2[1-69]\d|3[578]\d|42\d|5[09]\d|6[789]\d|8[0578]\d|9[679]\d)"
)
_INTERNATIONAL = re.compile(
    rf"(?<![A-Za-z0-9_+])(?:\+ ?{_COUNTRY}|(?<!\d )00{_COUNTRY}(?=[ ./-]))"
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


def phones(text: str, parts: Iterable[Span]) -> Iterator[Span]:
    """Numbers with a country code, of North America, Chinese mobiles and landlines, any after a word such as Tel."""
    for part in parts:
        for match in _INTERNATIONAL.finditer(text, *part):
            # a date or another number may follow after a space
            ends = [group.end() for group in re.finditer(r"\d+(?= |\)?$)", match[0])]
            for end in reversed(ends):
                if _is_international(match[0][:end]):
                    yield match.start(), match.start() + end
                    break
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
