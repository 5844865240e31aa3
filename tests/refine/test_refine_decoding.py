"""Bytes of pages in the encodings of the web, declared or not, and labels that lie."""

import random

import pytest

pytest.importorskip("cchardet")
from jaxlm.refine.decoding import _READ_AS, decode

CHINESE = "今天天气很好，我们去公园玩吧。委员会星期二开会，决定在冬天到来之前修好那座旧桥。"
TRADITIONAL = "今天天氣很好，我們去公園玩吧。委員會星期二開會，決定在冬天到來之前修好那座舊橋。"
JAPANESE = "委員会は火曜日に開かれ、冬が来る前に古い橋を修理することを決めました。"
KOREAN = "위원회는 화요일에 모여 겨울이 오기 전에 낡은 다리를 고치기로 했다."
RUSSIAN = "Комитет собрался во вторник и решил починить старый мост до наступления зимы."
FRENCH = "Le comité s’est réuni mardi et a décidé de réparer le vieux pont — avant l’hiver."

# encoding -> text and the label that pages of the web give
ENCODED = {
    "gb2312": (CHINESE, "gb2312"),
    "gb18030": (CHINESE + "𠮷", "gbk"),
    "big5": (TRADITIONAL, "Big5"),
    "shift_jis": (JAPANESE, "Shift_JIS"),
    "euc_jp": (JAPANESE, "euc-jp"),
    "iso2022_jp": (JAPANESE, "ISO-2022-JP"),
    "euc_kr": (KOREAN, "ks_c_5601-1987"),
    "cp1251": (RUSSIAN, "windows-1251"),
    "koi8-r": (RUSSIAN, "koi8-r"),
    "cp1252": (FRENCH, "iso-8859-1"),
    "utf-8": (FRENCH + CHINESE, "utf-8"),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_declared_encodings(encoding):
    text, label = ENCODED[encoding]
    page = f'<html><head><meta charset="{label}"></head><p>{text}</p></html>'
    assert decode(page.encode(encoding)) == page
    old = f'<META http-equiv=Content-Type content="text/html; charset={label}"><p>{text}</p>'
    assert decode(old.encode(encoding)) == old
    xml = f'<?xml version="1.0" encoding="{label}"?><html><p>{text}</p></html>'
    assert decode(xml.encode(encoding)) == xml
    bare = f"<p>{text}</p>"
    assert decode(bare.encode(encoding), f"text/html; Charset='{label}'") == bare


@pytest.mark.parametrize("encoding", ["gb2312", "gb18030", "big5", "shift_jis", "cp1251", "utf-8"])
def test_undeclared_encodings_are_detected(encoding):
    page = f"<p>{ENCODED[encoding][0] * 4}</p>"
    assert decode(page.encode(encoding)) == page


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_believed_first(mark):
    page = f'<meta charset="gb2312"><p>{CHINESE}</p>'
    assert decode(page.encode(mark), "text/html; charset=big5") == page


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark(encoding):
    page = f"<html><p>{CHINESE}</p>"
    assert decode(page.encode(encoding)) == page
    # also behind a newline
    page = f"\n<html><head><title>x</title>{CHINESE}"
    assert decode(page.encode(encoding)) == page


def test_valid_utf8_is_believed_before_a_declaration():
    page = f'<meta charset="iso-8859-1"><p>{FRENCH}</p>'
    assert decode(page.encode(), "text/html; charset=windows-1252") == page
    # a meta tag in ASCII letters cannot be in UTF-16
    page = f'<meta charset="utf-16"><p>{CHINESE}</p>'
    assert decode(page.encode()) == page
    page = f'<meta charset="utf-16"><p>{FRENCH * 4}</p>'
    assert decode(page.encode("cp1252")) == page


def test_a_declaration_that_does_not_fit_is_not_believed():
    page = f"<p>{CHINESE * 4}</p>"
    assert decode(page.encode("gb18030"), "text/html; charset=utf-8") == page
    # the header is wrong, the meta tag is right
    page = f'<meta charset="gbk"><p>{CHINESE * 4}</p>'
    for wrong in ("euc-kr", "iso-8859-1", "utf-8", "shift_jis"):
        assert decode(page.encode("gb18030"), f"text/html; charset={wrong}") == page
    # a comment declares nothing
    page = f'<!-- <meta charset="iso-8859-1"> --><p>{CHINESE * 4}</p>'
    assert decode(page.encode("gb18030")) == page


def test_a_few_broken_bytes_do_not_change_the_encoding():
    page = f'<meta charset="gbk"><p>{CHINESE * 20}</p>'
    broken = page.encode("gb18030").replace("星".encode("gb18030"), b"\xff\xff", 1)
    text = decode(broken)
    assert "\ufffd" in text and text.count(CHINESE) == 19


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "shift_jis"])
def test_a_cut_character_at_the_end_is_dropped(encoding):
    text, label = ENCODED[encoding]
    page = f'<meta charset="{label}"><p>{text.strip("。.")}漢'
    assert decode(page.encode(encoding)[:-1]) == page[:-1]


@pytest.mark.parametrize(
    "label",
    [
        "zip",
        "hex",
        "base64",
        "rot13",
        "unicode_escape",
        "idna",
        "utf-7",
        "\ud800",
        "",
        "x" * 10_000,
    ],
)
def test_no_codec_that_is_not_of_the_web_is_used(label):
    page = b"a\\u0041+AEE- 789c"
    assert decode(page, f"text/html; charset={label}") == page.decode()


def test_every_encoding_decodes_anything():
    rng = random.Random(0)
    for label in (None, *_READ_AS):
        for size in (0, 1, 2, 7, 500):
            header = None if label is None else f"text/html; charset={label}"
            decode(rng.randbytes(size), header).encode()
    for page in (b"<meta " * 100_000, b"<!--" * 100_000, b"charset=" * 100_000, b"\xff" * 100_000):
        decode(page)
