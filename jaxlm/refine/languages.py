"""What rules have to know about a language: stop words, punctuation, phrases of menus.

Chinese is simplified and traditional at once: pages mix them, and no rule here is helped by telling them apart.
"""

from __future__ import annotations

import dataclasses

from datatrove.utils.text import TERMINAL_PUNCTUATION

ENGLISH_ENDS = (".", "?", "!", '"', "'")
WESTERN_ENDS = (*ENGLISH_ENDS, "”", "’", "»", "“")
CHINESE_ENDS = (
    *ENGLISH_ENDS,
    "。",
    "！",
    "？",
    "；",
    "…",
    "”",
    "’",
    "」",
    "』",
    "．",
    "｡",
    "﹗",
    "﹖",
)
ALL_ENDS = tuple(sorted({*TERMINAL_PUNCTUATION, *WESTERN_ENDS, *CHINESE_ENDS}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conventions:
    """How a language is written on the web.

    Args:
        spaced: spaces stand between words; without them lengths of lines are counted in characters.
        stop_words: of Gopher's stop-word rule; empty: the rule does not apply.
        line_ends: what ends a sentence at the end of a line, for C4's rule.
        ellipses: spellings of an ellipsis.
        bullets: what list items start with.
        policies: lower-case phrases of cookie and privacy notices, for C4's rule.
        counted: what counters of social buttons count (regular expressions), such as "3 likes".
        counted_first: the noun stands before the number, or a measure word between ("3条评论").
        anywhere, at_end, at_start: phrases that are cut from short lines.
    """

    spaced: bool = True
    stop_words: tuple[str, ...] = ()
    line_ends: tuple[str, ...] = ALL_ENDS
    ellipses: tuple[str, ...] = ("...", "…")
    bullets: tuple[str, ...] = ("•", "-")
    policies: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    counted_first: bool = False
    anywhere: tuple[str, ...] = ()
    at_end: tuple[str, ...] = ()
    at_start: tuple[str, ...] = ()


# of the web in any language
COUNTED = (
    "likes?", "shares?", "comments?", "(?:re)?tweets?", "reposts?", "quotes?", "bookmarks?", "upvotes?",
    "downvotes?", "downloads?", "views?", "followers?", "replies", "reply",
)  # fmt: skip
POLICIES = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
AT_START = ("sign-in", "signin", "log-in", "login", "sign-up", "signup")
WESTERN_BULLETS = ("•", "-", "–", "‣", "▪", "●")

CONVENTIONS: dict[str, Conventions] = {
    # Gopher, table A1 and text; C4's punctuation and phrases
    "en": Conventions(
        stop_words=("the", "be", "to", "of", "and", "that", "have", "with"),
        line_ends=ENGLISH_ENDS,
        policies=POLICIES,
        counted=COUNTED,
        anywhere=("items in cart",),
        at_end=("read more...", "read more…", "read more"),
        at_start=AT_START,
    ),
    # stop words: the most frequent words of Wikipedia in FineWeb2's configuration (configs/deu_Latn.yml and so on)
    "de": Conventions(
        stop_words=("der", "und", "die", "in", "von", "im", "den", "des", "mit", "das", "er", "dem", "als", "für",
                    "ist", "nicht", "auf", "zu", "sich", "eine", "ein"),
        line_ends=WESTERN_ENDS,
        bullets=WESTERN_BULLETS,
        policies=(*POLICIES, "datenschutzerklärung", "nutzungsbedingungen", "verwendet cookies", "verwenden cookies",
                  "verwendung von cookies", "nutzt cookies", "einsatz von cookies"),
        counted=(*COUNTED, "gefällt mir(?:-angaben)?", "kommentare?", "aufrufe?", "abonnenten", "antworten?",
                 "mal geteilt", "mal angesehen"),
        anywhere=("items in cart", "artikel im warenkorb", "produkte im warenkorb"),
        at_end=("read more...", "weiterlesen...", "weiterlesen…", "weiterlesen", "mehr lesen", "mehr erfahren"),
        at_start=(*AT_START, "anmelden", "einloggen", "registrieren"),
    ),
    "fr": Conventions(
        stop_words=("de", "la", "le", "et", "à", "en", "des", "du", "les", "est", "un", "une", "il", "dans", "par",
                    "au", "que", "qui", "pour"),
        line_ends=WESTERN_ENDS,
        bullets=WESTERN_BULLETS,
        policies=(*POLICIES, "politique de confidentialité", "conditions d'utilisation", "conditions d’utilisation",
                  "utilise des cookies", "utilisation de cookies", "utilisation des cookies", "politique de cookies"),
        counted=(*COUNTED, "j['’]aime", "mentions j['’]aime", "commentaires?", "partages?", "vues?", "abonnés?",
                 "réponses?"),
        anywhere=("items in cart", "articles dans le panier", "articles dans votre panier"),
        at_end=("read more...", "lire la suite...", "lire la suite…", "lire la suite", "en savoir plus"),
        at_start=(*AT_START, "se connecter", "s'identifier", "s’identifier", "s'inscrire", "s’inscrire"),
    ),
    "es": Conventions(
        stop_words=("de", "la", "en", "el", "y", "a", "que", "del", "los", "se", "por", "un", "con", "una", "las",
                    "su", "no", "es"),
        line_ends=WESTERN_ENDS,
        bullets=WESTERN_BULLETS,
        policies=(*POLICIES, "política de privacidad", "términos de uso", "condiciones de uso", "utiliza cookies",
                  "usa cookies", "uso de cookies", "utilizamos cookies", "política de cookies"),
        counted=(*COUNTED, "me gusta", "comentarios?", "(?:veces )?compartidos?", "visitas?", "vistas?",
                 "visualizaciones", "seguidores", "respuestas?"),
        anywhere=("items in cart", "artículos en el carrito", "productos en el carrito"),
        at_end=("read more...", "leer más...", "leer más…", "leer más", "seguir leyendo", "ver más"),
        at_start=(*AT_START, "iniciar sesión", "inicia sesión", "regístrate", "registrarse"),
    ),
    # stop characters: a word is a character here, so they stand for themselves and for the words they begin
    "zh": Conventions(
        spaced=False,
        stop_words=("的", "是", "了", "在", "和", "有", "不", "这", "這", "我", "他", "也", "就", "都", "而", "与",
                    "與", "为", "為", "于", "於", "以", "对", "對", "到", "被", "从", "從", "但", "所", "之", "其",
                    "及", "因", "由"),
        line_ends=CHINESE_ENDS,
        ellipses=("...", "…", "。。。", "・・・"),
        bullets=("•", "-", "·", "・", "●", "○", "◆", "◇", "■", "□", "★", "☆", "▪", "►", "▶", "※", "－", "—"),
        policies=(*POLICIES, "隐私政策", "隐私权政策", "隱私政策", "隱私權政策", "隐私声明", "使用条款", "使用條款",
                  "服务条款", "服務條款", "用户协议", "用戶協議", "使用cookie", "使用 cookie"),
        counted=(*COUNTED, "点赞", "點讚", "赞同?", "讚", "评论", "評論", "留言", "转发", "轉發", "分享", "收藏",
                 "喜欢", "喜歡", "回复", "回覆", "回應", "阅读(?:量|数|次数)?", "閱讀", "浏览(?:量|数|次数)?",
                 "瀏覽(?:次數)?", "播放(?:量|数|次数)?", "观看(?:次数)?", "觀看(?:次數)?", "粉丝", "粉絲",
                 "关注", "關注", "下载(?:量|次数)?", "下載", "点击(?:量|数|次数)?", "點擊",
                 "弹幕", "人气", "人氣", "跟帖", "顶", "踩"),
        counted_first=True,
        anywhere=("items in cart", "加入购物车", "加入購物車", "件商品在购物车", "我的购物车", "我的購物車"),
        at_end=("read more...", "阅读全文", "閱讀全文", "查看全文", "展开全文", "展開全文", "查看更多", "显示更多",
                "顯示更多", "阅读更多", "閱讀更多", "更多>>", "详细>>", "[详细]", "【详细】", "点击查看"),
        at_start=(*AT_START, "登录", "登入", "登錄", "登陆", "注册", "註冊", "登录注册", "登錄註冊", "请登录", "請登入",
                  "免费注册", "免費註冊"),
    ),
} | {code: Conventions(spaced=False) for code in ("ja", "th", "lo", "km", "my", "bo")}  # fmt: skip

# ISO 639-3 and others -> codes used here
CODES = {
    "eng": "en", "deu": "de", "ger": "de", "fra": "fr", "fre": "fr", "spa": "es", "zho": "zh", "chi": "zh",
    "cmn": "zh", "yue": "zh", "jpn": "ja", "tha": "th", "lao": "lo", "khm": "km", "mya": "my", "bod": "bo",
}  # fmt: skip

UNLISTED = Conventions()


def code(language: str) -> str:
    """`zh` for `zh`, `zh-Hant`, `zh_TW` and `cmn_Hani`; the first part of any other code, in lower case."""
    first = language.replace("_", "-").partition("-")[0].lower()
    return CODES.get(first, first)


def conventions(language: str) -> Conventions:
    """Conventions of a language; of one that is not listed: spaces, any terminal punctuation, no
    words and phrases."""
    return CONVENTIONS.get(code(language), UNLISTED)
