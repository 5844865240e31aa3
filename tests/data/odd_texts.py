"""Texts on which tokenizers differ: blanks, accents, compatibility forms, control tokens as text, and mixtures."""

import random

FIXED = [
    *(
        "",
        " ",
        "  ",
        "a",
        " a",
        "a ",
        "  a  b  ",
        "\n",
        "\n\n",
        "a\nb",
        "\ta\t\tb",
        "Hello, World!",
    ),
    *("<s>", "</s>", "<unk>", "<pad>", "a</s>b", "<<</s>>>", "<mask>", "<0x0A>", "x<0x41>y"),
    *("<extra_id_0>", "ﬁ ﬂ", "①②③", "Ａ Ｂ　Ｃ", "e\u0301 é", "\u200b zero \u200d width"),
    *("\u00a0nbsp\u00a0", "日本語のテキスト", "한국어 텍스트 각", "नमस्ते दुनिया", "مرحبا بالعالم"),
    *("ก็ได้ไทย", "😀😃 👨‍👩‍👧‍👦 🇩🇪", "\ufeffbom", "a\u0000b", "\u0007bell", "don't we'll I'M"),
    *("3.14 1,000 2026-11-27 １２３", "http://x.y/z?a=b&c=d#e", "a" * 32, "x" * 300, "ab " * 100),
    *(
        "    indented\n        more",
        "`code` ``` *b* _i_ ~~s~~",
        "ſ ß ẞ İ ı",
        "\u2028line\u2029para",
    ),
    *("ᾳ ǆ ﷺ", "½ ¼ ² ™ ℃", "▁ under ▁▁ x", "\U0010ffff \ue000", "\u0301", "\u1100\u1161"),
    *("𝕳𝖊𝖑𝖑𝖔", "a\r\nb\rc", "\x85next", "“quotes” ‘x’ — – … «»", "' ' '' \" \"\"", "....!!!???"),
    *("\u0e33 ำ", "\u3000\u3000x", "C++ c# f(x)=x**2;", "～ ㋿", "ﬁ\u0301"),
]
_PARTS = [
    *(
        "the ",
        "of",
        " and",
        "ing",
        "tion",
        "a",
        "B",
        "9",
        "  ",
        "\n",
        ".",
        ",",
        "é",
        "ß",
        "中",
        "文",
    ),
    *(
        "か",
        "न",
        "ा",
        "ع",
        "😀",
        "\u0301",
        "<",
        "/",
        "s",
        ">",
        "</s>",
        "_",
        "▁",
        "ﬁ",
        "\u00a0",
        "\t",
    ),
    *("'s", "!", "-", "x", "Q", "①", "\u200d", "ж", "я ", "ﾊﾟ", "Ⅷ", "\u0000", "\u3000", "㌀"),
    *("각", "\u1112\u1161\u11ab"),
]
_BLOCKS = [
    *((32, 127), (160, 0x250), (0x370, 0x600), (0x900, 0xD00), (0x2000, 0x2200), (0x3040, 0x3100)),
    *((0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF00, 0xFFEF), (0x1F300, 0x1F700)),
]


def texts(count=500):
    """The fixed texts, and random ones up to this number, always the same."""
    random_ = random.Random(0)
    result = [*FIXED]
    while len(result) < count:
        length = random_.choice([3, 6, 12, 40])
        if random_.random() < 0.7:
            letters = (random_.choice(_PARTS) for _ in range(length))
        else:
            letters = (chr(random_.randrange(*random_.choice(_BLOCKS))) for _ in range(length))
        result.append("".join(letters))
    return result
