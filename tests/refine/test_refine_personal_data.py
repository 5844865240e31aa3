"""Personal data: hand-made texts with and without it, with the recall and precision of each kind."""

import pathlib
import pickle
import random
from collections import Counter

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document

from jaxlm.refine.personal_data import PLACEHOLDERS, PersonalData

# kind -> texts in which « » enclose all personal data; numbers are made up or are the issuers' test numbers
POSITIVE = {
    "email": [
        "Write to «john.doe+lists@mail.example.co.uk», please.",
        "我的邮箱是«abc_123@qq.com»，欢迎来信",
        "(«a@b.io») and '«c@d.org»' <«e-f@g.travel»>",
        "mailto:«info@example.com»?subject=x",
        "«JOHN@EXAMPLE.COM»\n«müller@example.de»",
        "contact «jane [at] example [dot] org» or «joe(at)example.com»",
        "联系：«ｚｈａｎｇ＠１６３．ｃｏｍ»。",
        "x@«y@example.com»",
    ],
    "phone": [
        "Call «+1 (415) 555-2671» or «+14155552671».",
        "«+44 (0)20 7946 0958», «+49 30 1234567», «0049 30 1234567», «+33 1 23 45 67 89»",
        "«(415) 555-2671»; «415-555-2671»; «415.555.2671»; «1-800-555-0199»",
        "numbers: «415-555-2671» «212-555-0123»",
        "我的电话«13800138000»，她的是«139 0013 9000»或«138-0013-8000»。",
        "手机：«+86 138 0013 8000»，«+8613800138000»，«86-13800138000»",
        "座机«010-62345678»，（«0755»-x）".replace("（«0755»-x）", "传真：«(0755) 2345678»"),
        "上海«（０２１）６２３４５６７８»",
        "Tel: «4155552671», phone «020 7946 0958», Fax: «030/1234567», 电话：«62345678»",
        "Telefon «0711 123456-78»; Tél. «01 23 45 67 89»",
        "«+49 30 1234567» 2020-10-10",
    ],
    "ip": [
        "from «8.8.8.8» to «66.249.65.3»:8080",
        "服务器«8.8.4.4»的日志，«2001:4860:4860::8888»。",
        "http://«93.184.216.34»/index «2a00:1450:4001:81b:0:0:0:200e»",
        "«8.8.8.8» is a resolver",
        "range «8.8.8.8»-«8.8.4.4», net «8.8.8.0»/24",
    ],
    "card": [
        "Visa «4111 1111 1111 1111» 12/28, «4111111111111111».",
        "MasterCard «5500-0000-0000-0004»; «2223003122003222»",
        "Amex «378282246310005», «3782 822463 10005»",
        "Discover «6011111111111117» Diners «30569309025904» JCB «3530111333300000»",
        "银行卡号«6212345678901232»，谢谢",
    ],
    "iban": [
        "«DE89 3704 0044 0532 0130 00», BIC follows",
        "«GB82WEST12345698765432» and «FR1420041010050500013M02606»",
        "IBAN: «NO9386011117947» IS MINE, «CH93 0076 2011 6238 5295 7» AND MORE",
    ],
    "chinese_id": ["身份证号«11010519491231002X»，另一个«440308199901101512»。", "ID «11010519491231002x»"],
}  # fmt: skip
# kind -> texts that look like it
NEGATIVE = {
    "email": [
        "icon@2x.png, lodash@4.17.21, @user, user@host, a@b, a@b.1, foo@, @foo.com",
        "look (at) this. Then look [at] me, 5 @ 3.50",
        "a" * 65 + "@example.com",
    ],
    "phone": [
        "In 1999-2000 and 2001 2002 2003, on 2020-12-11, 12/11/2020 and 11.12.2020 at 12:30:45",
        "ISBN 978-0-306-40615-7, ISBN 0-306-40615-2, 9780306406157, ISSN 2049-3630",
        "$1,234,567.89, €1.234.567,89, 1 000 000, 13,800,138,000 people, ¥13800138000, 13800138000元",
        "version 10.0.19041.1415, v1.2.3-4567, 3.14159265358979, 1.800.555.01991",
        "order 202011120001234567, id 4155552671234, timestamp 1609459200 and 1609459200000",
        "GMT +7 2020-10-10, UTC+8 2020-10-10, +33 000 000 people, +20%, 1+1=2, +100000, +1 000 000 000, score +3 -4",
        "iPhone 13 2021-09-14, phone 5 of 10, Tel Aviv 1909, tel: 2020-12-11",
        "40.7128, -74.0060 and 37.774929,-122.419416; 1920x1080; 555-1234",
        "订单号123456789012，增长13800138000万，第2020001期，2020年12月11日",
        "abc13800138000, 138001380001, 0.13800138000, 2138-0013-8000-11",
        "sha 415-555-2671a, 415-555-26712, 1415-555-2671, p. 123-456",
    ],
    "ip": [
        "v1.2.3.4, version 1.2.3.4, Version: 8.8.8.8, Chrome/87.0.4280.88, build 1.2.3.4, 版本1.2.3.4",
        "192.168.1.1, 10.0.0.1, 127.0.0.1, 172.16.0.1, 0.0.0.0, 255.255.255.255, 203.0.113.5",
        "1.2.3.4 Introduction\n2.3.4.5 Methods\nSection 3.2.1.4, §4.5.6.7, OID 1.3.6.1.4.1.311",
        "1.2.3, 1.2.3.4.5, 300.1.1.1, 1.2.3.999, x1.2.3.4, lib-1.2.3.4.tar.gz, 1.2.3.4-beta",
        "12:30:45, 00:1a:2b:3c:4d:5e, std::vector, a::b, ::, ::1, fe80::1, 2001:db8::1, 1:2:3, Mark 2:3-4",
    ],
    "card": [
        "4111 1111 1111 1112, 5500-0000-0000-0005, 0000 0000 0000 0000, 1234567812345670",
        "4111111111111111111111, 41111111111111110, 9 4111 1111 1111 1111 2, 4111-1111-1111-1111-1",
        "9780306406157, 1609459200000, a4111111111111111, $4111111111111111",
    ],
    "iban": [
        "DE88 3704 0044 0532 0130 00, DE8937040044053201300, XX89370400440532013000, GB29 NWBK",
        "AB12CDEFGHIJKLMNOPQ",
    ],
    "chinese_id": [
        "110105194912310021, 110105194913310029, 990105194912310020, 11010519491231002X1",
        "a11010519491231002X, 11010519491231002",
    ],
}  # fmt: skip


def marked(text):
    """The text without its marks, and where they stood."""
    plain, spans, start = "", [], 0
    for char in text:
        if char == "«":
            start = len(plain)
        elif char == "»":
            spans.append((start, len(plain)))
        else:
            plain += char
    return plain, spans


def test_recall_and_precision():
    rule = PersonalData()
    table = Counter()
    wrong = []
    for kind, texts in POSITIVE.items():
        for text in texts:
            plain, spans = marked(text)
            expected = {(start, end, kind) for start, end in spans}
            found = set(rule.find(plain))
            table[kind, "found"] += len(expected & found)
            table[kind, "missed"] += len(expected - found)
            table[kind, "false"] += len(found - expected)
            wrong += [(plain[s:e], k) for s, e, k in expected ^ found]
    for kind, texts in NEGATIVE.items():
        for text in texts:
            found = rule.find(text)
            table[kind, "false"] += len(found)
            wrong += [(text[s:e], k) for s, e, k in found]
    assert not wrong
    for kind in PLACEHOLDERS:
        print(f"{kind:10} found {table[kind, 'found']}, missed 0, false 0")
        assert table[kind, "found"] >= 3, kind


def test_what_is_replaced_is_counted():
    text = "Write to a@b.com or c@d.com, call 13800138000 or 8.8.8.8."
    document = Document(text=text, id="0", metadata={})
    assert PersonalData().check(document) is None
    assert document.text == "Write to <EMAIL> or <EMAIL>, call <PHONE> or <IP>."
    assert document.metadata["personal_data"] == {"email": 2, "ip": 1, "phone": 1}
    # for the report
    assert document.metadata["removed_lines"] == [
        ["email", "a@b.com"],
        ["email", "c@d.com"],
        ["phone", "13800138000"],
        ["ip", "8.8.8.8"],
    ]
    clean = Document(text="Nobody is named here, 1999.", id="0", metadata={})
    PersonalData().check(clean)
    assert (clean.text, clean.metadata) == ("Nobody is named here, 1999.", {})


def test_a_checksum_wins_over_a_form():
    # the identity number also begins like a bank card
    text = "卡4111111111111111，证11010519491231002X，DE89370400440532013000"
    assert PersonalData().replace(text)[0] == "卡<CARD>，证<ID>，<IBAN>"


def test_kinds_and_placeholders_are_chosen():
    rule = PersonalData(placeholders={"email": "email@example.com"}, public_ips_only=False)
    assert rule.replace("a@b.com 8.8.8.8")[0] == "email@example.com 8.8.8.8"
    rule = PersonalData(placeholders={"ip": "<IP>"}, public_ips_only=False)
    assert (
        rule.replace("a@b.com 192.168.0.1 fe80::1234 a::b ::1")[0] == "a@b.com <IP> <IP> a::b ::1"
    )


def test_what_was_replaced_once_stays():
    rule = PersonalData()
    for texts in POSITIVE.values():
        for text in texts:
            once = rule.replace(marked(text)[0])[0]
            assert rule.replace(once) == (once, Counter())


def test_hostile_texts_end():
    rule = PersonalData()
    rng = random.Random(0)
    pieces = [
        "a",
        "@",
        "a@",
        "1",
        "1 ",
        "1-",
        "(",
        "+1",
        "1.",
        ":",
        "a:",
        "GB12",
        "tel ",
        "(at)",
        "+49 ",
        "86 ",
        "a@b.",
    ]
    for piece in [*pieces, "\ud800", "\x00", "\n", "電", " "]:
        rule.replace(piece * (40_000 // len(piece)))
        rule.replace("tel: " + piece * 20_000 + "a@b.com")
    for _ in range(200):
        text = "".join(rng.choices("0123456789 ()+-.@:aA电\n/x#", k=300))
        replaced, counts = rule.replace(text)
        assert sum(counts.values()) == sum(replaced.count(p) for p in PLACEHOLDERS.values())


def test_presidio_adds_what_it_finds():
    pytest.importorskip("presidio_analyzer")
    rule = PersonalData(engine="presidio", placeholders={**PLACEHOLDERS, "crypto": "<COIN>"})
    text = "a@b.com paid to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa, 我的电话13800138000"
    assert rule.replace(text) == (
        "<EMAIL> paid to <COIN>, 我的电话<PHONE>",
        Counter(email=1, crypto=1, phone=1),
    )
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule and "_analyzer" not in copy.__dict__


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(ValueError, match="engine='spacy' is not one of patterns, presidio, tagger"):
        PersonalData(engine="spacy")
    with pytest.raises(ValueError, match="unknown kind 'name'; known: chinese_id"):
        PersonalData(placeholders={"name": "<NAME>"})
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    with pytest.raises(ValueError, match="pip install presidio-analyzer"):
        PersonalData(engine="presidio").replace("a@b.com")


def tagger(spans, **settings):
    """A rule whose model finds these words, with a probability each, wherever they stand."""

    def predict(texts):
        return [
            {
                "spans": [
                    {
                        "start": text.index(word),
                        "end": text.index(word) + len(word),
                        "label": label,
                        "probability": p,
                    }
                    for word, label, p in spans
                    if word in text
                ]
            }
            for text in texts
        ]

    rule = PersonalData(**{"engine": "tagger", "model": "m"} | settings)
    rule.__dict__["_predict"] = predict
    return rule


def test_a_tagger_adds_what_patterns_do_not_find():
    # the model takes a part of the address for a name; patterns win
    spans = [("Ann Lee", "person", 0.9), ("ann", "person", 0.9), ("Bob", "person", 0.4)]
    text = "Ann Lee <ann@b.com> and Bob"
    rule = tagger(spans)
    assert rule.replace(text) == ("<PERSON> <<EMAIL>> and Bob", Counter(person=1, email=1))
    made = [Document(text=x, id="0", metadata={}) for x in (text, "", "\ud800 Bob", "Ann Lee")]
    assert rule.check_batch(made) == [None] * 4
    assert [d.text for d in made] == ["<PERSON> <<EMAIL>> and Bob", "", "\ud800 Bob", "<PERSON>"]
    assert made[0].metadata["personal_data"] == {"email": 1, "person": 1}
    assert made[2].metadata == {}
    alone = tagger(spans, engine="tagger_alone", min_probability=0.3)
    assert alone.replace(text)[0] == "<PERSON> <<PERSON>@b.com> and <PERSON>"
    # None: what the model finds stays
    kept = tagger(spans, placeholders={**PLACEHOLDERS, "person": None})
    assert kept.replace(text)[0] == "Ann Lee <<EMAIL>> and Bob"
    # the address is what this user leaves
    kept = tagger(spans, placeholders={"person": "X"})
    assert kept.replace(text)[0] == "X <X@b.com> and Bob"
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule and "_predict" not in copy.__dict__


@pytest.mark.parametrize("settings", [dict(engine="tagger"), dict(model="runs/tagger")])
def test_a_tagger_needs_a_model_and_nothing_else_has_one(settings):
    with pytest.raises(ValueError, match="a tagger needs a model, and nothing else has one"):
        PersonalData(**settings)


def test_a_model_without_spans_is_named():
    run = pathlib.Path(__file__).parents[1] / "golden" / "version_1" / "head"
    rule = PersonalData(engine="tagger", model=str(run))
    with pytest.raises(ValueError, match=r"head: no tagger of spans; it predicts .*label"):
        rule.find("a")
