"""Faults that planted.py puts into texts: near-duplicates, shared spans, spam, lines, personal data."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Mapping, Sequence

from planted_texts import WORD, words

SIMILARITIES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
SPANS = (30, 49, 50, 51, 100, 300)
CONTAMINATIONS = (8, 12, 13, 20, 50)
SHINGLE = 5


@dataclasses.dataclass(frozen=True)
class Phrases:
    """What pages in a language are full of besides their text."""

    boilerplate: Sequence[str]
    menu: Sequence[str]
    keywords: Sequence[str]
    ellipsis: str
    # joins words
    space: str


PHRASES = {
    "en": Phrases(
        boilerplate=("3 likes", "Read more...", "SHARE THIS PAGE", "12 comments", "2,418", "Sign-in"),
        menu=(
            "Home", "About us", "Shop", "Contact", "Log in", "Register", "Search", "Categories", "Help",
            "Cookie settings", "Terms of use", "Privacy policy", "Careers", "Press", "Newsletter",
            "Sitemap", "Prices", "Partners", "Imprint", "Next page",
        ),
        keywords=("cheap", "shoes", "buy", "online", "best", "price", "discount", "sale", "free", "shipping"),
        ellipsis="...",
        space=" ",
    ),
    "zh": Phrases(
        boilerplate=("3 赞", "阅读更多...", "12 条评论", "2,418", "登录", "查看全文"),
        menu=(
            "首页", "关于我们", "商城", "联系方式", "登录", "注册", "搜索", "分类", "隐私政策", "使用条款",
            "招聘信息", "新闻中心", "订阅", "网站地图", "帮助", "价格", "合作伙伴", "版权声明", "下一页", "上一页",
        ),
        keywords=("便宜", "鞋子", "购买", "正品", "特价", "优惠", "包邮", "促销", "免费", "批发"),
        ellipsis="……",
        space="",
    ),
}  # fmt: skip


def shingles(text: str) -> set[tuple[str, ...]]:
    """The word 5-grams of a text."""
    of = words(text)
    return {tuple(of[i : i + SHINGLE]) for i in range(len(of) - SHINGLE + 1)}


def jaccard(a: str, b: str) -> float:
    """Similarity of two texts: the fraction of their word 5-grams that both have."""
    x, y = shingles(a), shingles(b)
    return len(x & y) / max(len(x | y), 1)


def near_duplicate(
    text: str, similarity: float, vocabulary: Sequence[str], rng: random.Random
) -> str:
    """The text with words replaced until its similarity is as near to what is asked as one more word allows.

    The words that are replaced are spread over the text, and the last few are added at its end, where a word changes
    one 5-gram instead of five.
    """
    places = [found.span() for found in WORD.finditer(text)]
    of, original = words(text), shingles(text)
    order = list(range(len(places)))
    rng.shuffle(order)
    replaced: dict[int, str] = {}

    def measure() -> float:
        now = {tuple(of[i : i + SHINGLE]) for i in range(len(of) - SHINGLE + 1)}
        return len(now & original) / len(now | original)

    for i in order:
        old, of[i] = of[i], _other(of[i], vocabulary, rng)
        if measure() < similarity:
            of[i] = old
            break
        replaced[i] = of[i]
    added = []
    while measure() > similarity:
        added.append(_other("", vocabulary, rng))
        of.append(added[-1])
    parts, at = [], 0
    for i in sorted(replaced):
        start, end = places[i]
        parts += [text[at:start], replaced[i]]
        at = end
    last = _join(["", *added]).strip().capitalize() + text[-1] if added else ""
    return "".join([*parts, text[at:], "\n" if added else "", last])


def _other(word: str, vocabulary: Sequence[str], rng: random.Random) -> str:
    while (new := rng.choice(vocabulary)) == word:
        pass
    return new


def _join(of: Sequence[str]) -> str:
    """Words as a line: Chinese characters without spaces."""
    space = "" if any(re.match(r"[\u3400-\u9fff]", word) for word in of) else " "
    return space.join(of)


def insert(text: str, line: str, rng: random.Random) -> str:
    """The text with a line of its own, somewhere between two sentences and not at an end."""
    ends = [found.end() for found in re.finditer(r"[.!?]\s+|[。！？]\s*|\n", text)]
    middle = [end for end in ends if 0.15 * len(text) < end < 0.85 * len(text)] or [len(text)]
    at = rng.choice(middle)
    return f"{text[:at].rstrip()}\n{line}\n{text[at:].lstrip()}".rstrip()


def shared_span(
    texts: tuple[str, str], donor: str, length: int, rng: random.Random
) -> tuple[str, str, str] | None:
    """Both texts with the same span of `length` words, and the span. None: the donor is too short.

    The span has words only and stands between two words, other ones in each text, so that it is as long for those who
    count punctuation as for those who do not.
    """
    of = words(donor)[:length]
    if len(of) < length:
        return None
    span = _join(of)
    first, (before, after) = _between_words(texts[0], span, rng, ("", ""))
    second, _ = _between_words(texts[1], span, rng, (before, after))
    return first, second, span


def _between_words(
    text: str, span: str, rng: random.Random, other: tuple[str, str]
) -> tuple[str, tuple[str, str]]:
    """The text with a span between two words that differ from the others; and these two words."""
    found = list(WORD.finditer(text))
    middle = range(len(found) // 5, len(found) * 4 // 5)
    for i in rng.sample(middle, len(middle)):
        left, right = found[i], found[i + 1]
        between = text[left.end() : right.start()]
        sides = left[0].lower(), right[0].lower()
        if between in ("", " ") and sides[0] != other[0] and sides[1] != other[1]:
            parts = (text[: left.end()], between, span, between, text[right.start() :])
            return "".join(parts), sides
    raise AssertionError(f"no two words of {text!r} stand side by side")


# ---- what document rules look for; each makes a page of a clean text


def repeated_lines(text: str, phrases: Phrases, rng: random.Random) -> str:
    lines = [line.strip() for line in re.split(r"(?<=[.!?。！？])\s*", text) if line.strip()][:3]
    return "\n".join(lines * 12)


def keyword_stuffing(text: str, phrases: Phrases, rng: random.Random) -> str:
    some = rng.sample(phrases.keywords, 4)
    lines = [phrases.space.join(rng.choices(some, k=20)) for _ in range(15)]
    return "\n".join(lines)


def short(text: str, phrases: Phrases, rng: random.Random) -> str:
    places = [found.end() for found in WORD.finditer(text)]
    return text[: places[rng.randrange(8, 30)]] + ("。" if phrases.space == "" else ".")


def symbols(text: str, phrases: Phrases, rng: random.Random) -> str:
    count = iter(range(10**9))
    return WORD.sub(lambda found: found[0] + (" # " if next(count) % 3 == 0 else ""), text)


def bullets(text: str, phrases: Phrases, rng: random.Random) -> str:
    lines = re.split(r"(?<=[.!?。！？])\s*", text)
    return "\n".join(f"• {line.strip()}" for line in lines if line.strip())


def ellipses(text: str, phrases: Phrases, rng: random.Random) -> str:
    lines = [line.rstrip(" .!?。！？") for line in re.split(r"(?<=[.!?。！？])\s*", text)]
    return "\n".join(line + phrases.ellipsis for line in lines if line)


def no_stop_words(text: str, phrases: Phrases, rng: random.Random) -> str:
    """A list of numbers and long words, as catalogues and word lists are."""
    long = sorted({word for word in words(text) if len(word) > 6}) or ["catalogue"]
    if phrases.space == "":
        return "、".join(str(rng.randrange(10**5, 10**6)) for _ in range(90))
    return ", ".join(f"{rng.choice(long)} {rng.randrange(10, 1000)}" for _ in range(90))


def menu_page(text: str, phrases: Phrases, rng: random.Random) -> str:
    """A text of which every tenth line or more is a line that the corrections take out."""
    lines = re.split(r"(?<=[.!?。！？])\s*", text)
    lines = [line for line in lines if line.strip()]
    every = [
        f"{rng.randrange(2, 900)} likes" if phrases.space else f"{rng.randrange(2, 900)} 赞",
        str(rng.randrange(1000, 90000)),
    ]
    top = rng.sample(phrases.menu, 16)
    out = []
    for i, line in enumerate(lines):
        out += [line, every[i % 2]]
    return "\n".join([*top, *out])


def program_code(text: str, phrases: Phrases, rng: random.Random) -> str:
    return text + "\nfunction show(id) { document.getElementById(id).style.display = 'block'; }"


def lorem_ipsum(text: str, phrases: Phrases, rng: random.Random) -> str:
    return insert(text, "Lorem ipsum dolor sit amet, consectetur adipiscing elit.", rng)


def line_list(text: str, phrases: Phrases, rng: random.Random) -> str:
    """Short lines without punctuation, all different, as lists of links are."""
    of, out, at = words(text), [], 0
    while at < len(of):
        step = rng.randrange(2, 6) if phrases.space else rng.randrange(5, 12)
        out.append(phrases.space.join(of[at : at + step])[:28])
        at += step
    return "\n".join(out)


PAGES: Mapping[str, Callable[[str, Phrases, random.Random], str]] = {
    "repeated_lines": repeated_lines,
    "keyword_stuffing": keyword_stuffing,
    "short": short,
    "symbols": symbols,
    "bullets": bullets,
    "ellipses": ellipses,
    "no_stop_words": no_stop_words,
    "menu_page": menu_page,
    "program_code": program_code,
    "lorem_ipsum": lorem_ipsum,
    "line_list": line_list,
}


# ---- personal data, valid and not; what is not valid has to stay


def luhn(digits: str) -> str:
    """The digits with the check digit of cards (ISO/IEC 7812)."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if i % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)


def _card(rng: random.Random) -> str:
    digits = luhn("4" + "".join(str(rng.randrange(10)) for _ in range(14)))
    return " ".join(digits[i : i + 4] for i in range(0, 16, 4))


def _iban(rng: random.Random) -> str:
    account = "".join(str(rng.randrange(10)) for _ in range(18))
    # the letters D and E are 13 and 14 (ISO 13616)
    check = 98 - int(account + "131400") % 97
    return f"DE{check:02d}{account}"


def _identity_number(rng: random.Random) -> str:
    """Of a resident of China (GB 11643-1999)."""
    born = f"{rng.randrange(1950, 2005)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
    body = f"110105{born}{rng.randrange(1000):03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(w * int(d) for w, d in zip(weights, body)) % 11]


def _broken(value: str) -> str:
    """With its last but one digit changed, which every one of the checksums finds."""
    i = max(i for i, c in enumerate(value[:-1]) if c.isdigit())
    return value[:i] + str((int(value[i]) + 1) % 10) + value[i + 1 :]


# kind -> (valid, made)
PERSONAL_DATA: Mapping[str, tuple[bool, Callable[[random.Random], str]]] = {
    "e-mail": (True, lambda rng: f"jane.smith{rng.randrange(10**4)}@mail{rng.randrange(99)}.co.uk"),
    "phone, international": (True, lambda rng: f"+1 415-555-{rng.randrange(10**4):04d}"),
    "phone, China": (True, lambda rng: f"138{rng.randrange(10**8):08d}"),
    "IPv4 address": (True, lambda rng: f"93.184.{rng.randrange(1, 255)}.{rng.randrange(1, 255)}"),
    "IPv6 address": (True, lambda rng: f"2a00:1450:4001:{rng.randrange(4096, 65536):x}::200e"),
    "card": (True, _card),
    "card, wrong checksum": (False, lambda rng: _broken(_card(rng))),
    "IBAN": (True, _iban),
    "IBAN, wrong checksum": (False, lambda rng: _broken(_iban(rng))),
    "identity number": (True, _identity_number),
    "identity number, wrong checksum": (False, lambda rng: _broken(_identity_number(rng))),
    "not an IP address": (False, lambda rng: f"{rng.randrange(300, 999)}.184.{rng.randrange(255)}.300"),
    "year and page numbers": (False, lambda rng: f"1987, pages {rng.randrange(100, 400)}-{rng.randrange(400, 900)}"),
}  # fmt: skip


def personal_data_line(item: str, phrases: Phrases) -> str:
    """A sentence with the item."""
    if phrases.space == "":
        return f"如有问题，请记下 {item} 这个信息并与我们联系。"
    return f"For all other questions please note {item} and come back to us."
