"""Chinese prose passes where menus and spam do not, and how a rule takes the conventions of a language."""

import json

import pytest

pytest.importorskip("datatrove")
from datatrove.data import Document

from jaxlm.refine import languages, thresholds, words
from jaxlm.refine.c4 import C4
from jaxlm.refine.fineweb import FineWeb
from jaxlm.refine.lines import Lines
from jaxlm.refine.quality import Quality
from jaxlm.refine.repetition import Repetition

CHAIN = [Repetition(), Quality(), Lines(), C4(), FineWeb()]

CLEAN = {
    "zh, encyclopedia": """造纸术是中国古代的重要发明之一。早期的书写材料有甲骨、竹简和丝绸，它们不是太重就是太贵，很难在民间普及。
东汉时期，蔡伦总结前人的经验，用树皮、麻头、破布和旧渔网作为原料，经过切碎、蒸煮、捣浆和抄造，制成了轻便而便宜的纸张。
从此以后，书籍的抄写变得容易了，知识也因此传播得更快。大约在公元七世纪，这项技术传到了朝鲜和日本，后来又经过中亚传入阿拉伯世界。
十二世纪前后，欧洲人开始自己造纸。有了纸，印刷术才可能发展起来，学校和图书馆也才能为更多的人服务。
今天，虽然电子屏幕已经代替了许多纸张，但是人们在包装、绘画和写信的时候仍然离不开它。""",
    "zh, traditional": """颱風過後的第三天，村裡的老人終於打開了那座古廟的大門。他們發現神像並沒有被雨水損壞，只是香爐裡積滿了泥沙。
年輕人從城裡趕回來，一面清理街道，一面聽長輩講述五十年前那場更大的洪水。他們說，當時整個村子都被淹沒，只有廟頂露出水面。
後來政府修建了新的堤防，河道也往東移了將近兩公里。從那以後，這裡再也沒有發生過嚴重的水災。
不過老人們仍然相信，是廟裡的神明保佑了大家。每年農曆三月，他們都會舉行盛大的慶典來表達感謝。
今年的慶典雖然延後了，但是參加的人反而比以前更多。""",
    "zh, forum": """我去年夏天也买了这一款相机，用到现在快一年了，总的来说还是比较满意的。
优点是机身很轻，出门旅行挂在脖子上一整天也不觉得累，而且电池比上一代耐用了不少。
缺点也有，就是在光线不好的地方对焦有点慢，拍小孩子和宠物的时候经常拍糊。
如果你主要是拍风景，那我觉得完全够用了；要是想拍体育比赛，还是再加点钱买更高级的吧。
镜头方面，我建议先用套机镜头练手，等你知道自己喜欢拍什么了，再去考虑别的。""",
    "en": """Paper was one of the great inventions of ancient China. Before it, people wrote on bone, bamboo and silk.
These materials were either too heavy or too expensive to be used by many people, and few could own a book.
In the second century an official found that bark, hemp and old nets could be boiled and beaten into a pulp.
The pulp was spread on a frame and dried, and the sheet that was left could be written on with a brush.
The art of making it reached Japan and then the Arab world, and with it came libraries and schools.
It took another thousand years until the mills of Europe began to make paper of their own.""",
    "de": """Das Papier gehört zu den großen Erfindungen des alten China. Vorher schrieb man auf Knochen, Bambus und Seide.
Diese Stoffe waren entweder zu schwer oder zu teuer, und nur wenige Menschen konnten ein eigenes Buch besitzen.
Im zweiten Jahrhundert entdeckte ein Beamter, dass sich Rinde, Hanf und alte Netze zu einem Brei verarbeiten lassen.
Der Brei wurde auf einem Rahmen verteilt und getrocknet, und auf dem Bogen konnte man mit dem Pinsel schreiben.
Die Kunst gelangte nach Japan und in die arabische Welt, und mit ihr entstanden Bibliotheken und Schulen.""",
    "fr": """Le papier est l'une des grandes inventions de la Chine ancienne. Avant lui, on écrivait sur des os et de la soie.
Ces matières étaient trop lourdes ou trop chères pour être utilisées par beaucoup de gens, et les livres étaient rares.
Au deuxième siècle, un fonctionnaire découvrit que l'écorce, le chanvre et les vieux filets donnaient une pâte.
La pâte était étalée sur un cadre et séchée, et sur la feuille ainsi obtenue on pouvait écrire au pinceau.
Cet art gagna le Japon puis le monde arabe, et avec lui vinrent les bibliothèques et les écoles.""",
    "es": """El papel es uno de los grandes inventos de la China antigua. Antes se escribía sobre huesos, bambú y seda.
Estos materiales eran demasiado pesados o demasiado caros para que los usara mucha gente, y había pocos libros.
En el siglo segundo un funcionario descubrió que la corteza, el cáñamo y las redes viejas daban una pasta.
La pasta se extendía sobre un marco y se secaba, y en la hoja que quedaba se podía escribir con un pincel.
El arte llegó a Japón y al mundo árabe, y con él vinieron las bibliotecas y las escuelas.""",
}
# text, the stage that drops it first
DIRTY = {
    "menu": ("首页\n新闻中心\n产品展示\n关于我们\n联系我们\n在线留言\n人才招聘\n登录\n注册\n收藏本站\n网站地图\n友情链接\n"
             "企业文化\n资质荣誉\n技术支持\n下载中心\n会员服务\n常见问题\n法律声明\n版权所有", "quality"),
    "spam": ("代开发票加微信一二三四五，" * 12, "repetition"),
    "keywords": ("手机 电脑 笔记本 平板 相机 耳机 音响 电视 冰箱 洗衣机 空调 热水器 微波炉 电饭煲 吸尘器 净化器 加湿器 "
                 "剃须刀 吹风机 电动牙刷 体重秤 路由器 硬盘 内存 显卡 主板 键盘 鼠标 显示器 打印机 投影仪 游戏机", "quality"),
    "price list": ("\n".join(f"型号{i * 37 % 91} 价格{i * 53 % 97 + 100} 库存{i * 7 % 31} 颜色黑白" for i in range(30)), "repetition"),
    "short": ("这是一个很短的页面，没有什么内容。", "quality"),
    "buttons": ("\n".join(["这个店的菜真的很好吃，服务员的态度也不错，下次我们还要来。", "点赞 12", "3条评论", "转发(5)", "回复", "举报"] * 1
                          + ["他们家的位置有点难找，在地铁口出来以后还要走十分钟左右，但是很值得。", "点赞 7", "1条评论", "回复"]), "lines"),
    "cookies": ("\n".join(["本网站使用cookie来改善您的体验，继续浏览即表示您同意我们的做法，而且也接受。"] * 1
                          + ["请阅读我们的隐私政策和使用条款，以了解我们如何收集和保护您的个人信息，以及您的权利。",
                             "如果您不同意本隐私政策，请不要使用本网站的任何服务，也不要提交您的资料给我们。"]), "c4"),
}  # fmt: skip


def first_drop(text: str, language: str):
    document = Document(text, "0", metadata={"language": language})
    for rule in CHAIN:
        if drop := rule.check(document):
            return rule.name, drop
    return None


@pytest.mark.parametrize("name", CLEAN)
def test_clean_prose_passes_unchanged(name):
    text, language = CLEAN[name], name[:2]
    document = Document(text, "0", metadata={"language": language})
    for rule in CHAIN:
        assert rule.check(document) is None, rule.name
    assert document.text == text


@pytest.mark.parametrize("name", DIRTY)
def test_chinese_menus_and_spam_do_not(name):
    text, stage = DIRTY[name]
    result = first_drop(text, "zh")
    assert result and result[0] == stage, result


def test_english_thresholds_would_drop_chinese_prose():
    text = CLEAN["zh, encyclopedia"]
    drop = Quality(by_language=False).check(Document(text, "0", metadata={"language": "zh"}))
    assert drop.rule == "min_mean_word_length"
    assert C4(by_language=False).check(Document(text, "0")).rule == "min_sentences"


def test_codes_of_a_language():
    for name in ("zh", "zh-Hant", "zh_TW", "cmn_Hani", "ZH-cn", "yue"):
        assert languages.code(name) == "zh"
        assert not languages.conventions(name).spaced
    assert languages.code("eng_Latn") == "en"
    assert languages.conventions("tlh").spaced
    # a language without a list has no stop-word rule, rather than the English one
    assert languages.conventions("tlh").stop_words == ()


def test_conventions_are_well_formed():
    for language, conventions in languages.CONVENTIONS.items():
        for word in conventions.stop_words:
            assert words.split(word) == [word], (language, word)
        for phrase in conventions.policies:
            assert phrase == phrase.lower()
        assert len(set(conventions.stop_words)) == len(conventions.stop_words)


def test_what_the_user_sets_holds_in_every_language():
    assert Quality().adapted("zh").min_words == 70
    assert Quality(min_words=20).adapted("zh").min_words == 20
    assert Quality(min_words=20).adapted("zh").min_mean_word_length is None
    assert Quality(min_words=None).adapted("zh").min_words is None
    given = {"zh": {"min_words": 33}}
    assert Quality(min_words=20, thresholds=given).adapted("zh-TW").min_words == 33
    assert Quality(min_words=20, thresholds=given).adapted("en").min_words == 20
    assert Quality(by_language=False).adapted("zh").min_words == 50
    with pytest.raises(
        ValueError, match=r"thresholds\['zh'\] of quality: no fields \['min_word'\]"
    ):
        Quality(thresholds={"zh": {"min_word": 3}})
    with pytest.raises(ValueError, match="stop_words: 'two words' is not one word"):
        Quality(stop_words=("two words",))


def test_the_language_of_a_document_wins_over_the_rules():
    text = CLEAN["zh, encyclopedia"]
    rule = Quality(language="en")
    assert rule.check(Document(text, "0", metadata={"language": "zh"})) is None
    assert rule.check(Document(text, "0")) is not None
    assert Quality(language="zh").check(Document(text, "0")) is None
    # nonsense in the metadata of a reader does not stop a task
    for language in (7, None, "", "??", "x" * 1000):
        rule.check(Document(text, "0", metadata={"language": language}))
    assert len(rule._adapted) <= 3


def test_rules_are_pickled_and_compared():
    import pickle

    rule = Quality(min_words=7, thresholds={"zh": {"min_words": 9}})
    rule.check(Document(CLEAN["en"], "0"))
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule
    assert hash(copy) == hash(rule)
    assert copy.adapted("zh").min_words == 9


def sample(language: str) -> list[str]:
    """Clean texts: pieces of the prose above, put together anew."""
    parts = [
        part
        for name in CLEAN
        if name[:2] == language
        for part in words.sentences(CLEAN[name].replace("\n", ""))
    ]
    return ["".join(parts[(i * k) % len(parts)] for k in range(1, 7)) for i in range(1, 121)]


def test_thresholds_of_a_sample():
    texts = sample("zh")
    for method in ("quantile", "mean_std", "tail"):
        derived = thresholds.derive(texts, "zh", method, tail=0.1)
        assert json.loads(json.dumps(derived)) == derived
        assert list(derived) == ["zh"]
        assert set(derived["zh"]) == {"repetition", "quality", "fineweb"}
        assert derived["zh"]["quality"]["min_mean_word_length"] is None
        # lines do not repeat in texts of one line
        assert "max_duplicate_lines" not in derived["zh"]["repetition"]

    tail = thresholds.derive(texts, "cmn", "tail", tail=0.1)
    rule = thresholds.for_language(Repetition(), "zh", tail)
    values = thresholds.statistics(texts, "zh")["repetition"]
    fields = tail["zh"]["repetition"]
    assert "max_top_2_gram" in fields
    for field in fields:
        assert getattr(rule, field) == fields[field]
        # a rule drops no more than the tail of the sample that it was derived from
        assert (values[field] > fields[field]).mean() <= 0.1
        assert (values[field] > fields[field] - 0.002).mean() > 0.05 or (
            values[field] == 0
        ).mean() > 0.8


def test_thresholds_are_as_far_from_the_mean_as_the_english_ones():
    texts = sample("zh")
    reference = sample("en")
    derived = thresholds.derive(texts, "zh", "mean_std", reference=reference)
    ours = thresholds.statistics(texts, "zh")["repetition"]["max_top_3_gram"]
    english = thresholds.statistics(reference, "en")["repetition"]["max_top_3_gram"]
    expected = ours.mean() + (0.18 - english.mean()) / english.std() * ours.std()
    assert derived["zh"]["repetition"]["max_top_3_gram"] == pytest.approx(expected, rel=0.02)


def test_a_language_without_a_list_gets_its_frequent_words_as_stop_words():
    texts = [f"kaj la domo {i} estas en la urbo kaj la viro iras al la domo" for i in range(100)]
    derived = thresholds.derive(texts, "eo")
    stop_words = derived["eo"]["quality"]["stop_words"]
    assert stop_words[:2] == ["la", "kaj"]
    assert "0" not in stop_words
    rule = thresholds.for_language(Quality(min_words=None), "eo", json.loads(json.dumps(derived)))
    assert rule.stop_words == tuple(stop_words)
    assert rule.check(Document(texts[0] * 5, "0")) is None
    both = thresholds.with_thresholds(Quality(), derived | {"zh": {"quality": {"min_words": 7}}})
    assert both.adapted("eo").stop_words == tuple(stop_words)
    assert both.adapted("zh").min_words == 7
    assert both.adapted("en").min_words == 50


def test_a_sample_that_is_no_sample_is_refused():
    with pytest.raises(ValueError, match="texts: 3 are too few for statistics of 'zh'"):
        thresholds.derive(["一二三"] * 3, "zh")
    with pytest.raises(ValueError, match="method: 'median' is none of"):
        thresholds.derive(sample("zh"), "zh", "median")
    with pytest.raises(ValueError, match="tail: 0.7"):
        thresholds.derive(sample("zh"), "zh", "tail", tail=0.7)
    with pytest.raises(ValueError, match=r"none for 'de', only for \['zh'\]"):
        thresholds.for_language(Quality(), "de", {"zh": {}})
