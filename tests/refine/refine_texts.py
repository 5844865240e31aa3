"""Texts that look like web pages, made from a seed, for the tests of refining."""

import random

ENGLISH = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were her all she there would their we him been has when who will more no if out so said what up its about "
    "into than them can only other new some could time these two may then do first any my now such like our over man "
    "most made after also did many before must through years where much your way well down should because each just"
).split(" ")
CHINESE = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种"
MENU = [
    "Home",
    "About us",
    "CONTACT",
    "3 likes",
    "Read more...",
    "Sign-in",
    "1,204",
    "12",
    "0 items in cart",
]
MENU_ZH = [
    "首页",
    "登录",
    "注册",
    "3条评论",
    "点赞 12",
    "阅读全文",
    "加入购物车",
    "关于我们",
    "1234",
    "版权所有 © 2020",
]
ODD = [
    "{", "javascript", "lorem ipsum", "lorem[1] ipsum", "[12]", "[edit]", "…", "...", "#", "\n• item", "\n- item",
    "\u200b", "\xa0", "\x85", "\u2028", "e\u0301", "\ud800", "\x00", "\t", "🎉", "x" * 1200, "privacy policy",
    "“quoted.”", "don't", "3.14", "_", "İ", "ﬁ",
]  # fmt: skip


def sentence(rng: random.Random, chinese: bool) -> str:
    if chinese:
        parts = [
            "".join(rng.choices(CHINESE, k=rng.randint(3, 15))) for _ in range(rng.randint(1, 3))
        ]
        return "，".join(parts) + rng.choice("。。。！？…;")
    words = rng.choices(ENGLISH, k=rng.randint(2, 18))
    return " ".join(words).capitalize() + rng.choice([".", ".", ".", "!", "?", "...", ":", ""])


def page(seed: int, chinese: bool = False) -> str:
    """A page whose share of prose, menus, repetition and oddities is drawn from the seed."""
    rng = random.Random(seed)
    prose, menu, odd, repeated = (rng.random() ** 2 for _ in range(4))
    lines: list[str] = []
    for _ in range(rng.randint(1, 40)):
        kind = rng.choices(
            ["prose", "menu", "odd", "repeated", "blank"],
            [0.2 + prose, menu, odd / 3, repeated, 0.1],
        )
        match kind[0]:
            case "prose":
                glue = "" if chinese else " "
                lines.append(glue.join(sentence(rng, chinese) for _ in range(rng.randint(1, 6))))
            case "menu":
                lines.append(rng.choice(MENU_ZH if chinese else MENU))
            case "odd":
                lines.append(sentence(rng, chinese) + rng.choice(ODD) + sentence(rng, chinese))
            case "repeated" if lines:
                source = rng.choice(lines)
                start = rng.randrange(len(source) + 1)
                lines.append(
                    source if rng.random() < 0.5 else source[start : start + 60] * rng.randint(1, 8)
                )
            case _:
                lines.append("")
    return "\n".join(lines)
