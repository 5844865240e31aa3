"""Texts for the tests of refining: prose and its opposite in several languages, and pages made from a seed."""

# ruff: noqa: E501
import random

ENGLISH = """the of and to in a is that for it as was with be by on not he his but at are this have from or had an they
which one you were her all she there would their we him been has when who will more no if out so said what up its about
into than them can only other new some could time these two may then do first any my now such like our over man most
made after also did many before must through years where much your way well down should because""".split()  # noqa: SIM905
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
             "企业文化\n资质荣誉\n技术支持\n下载中心\n会员服务\n常见问题\n法律声明\n版权所有", "lines"),
    "spam": ("代开发票加微信一二三四五，" * 12, "repetition"),
    "keywords": ("手机 电脑 笔记本 平板 相机 耳机 音响 电视 冰箱 洗衣机 空调 热水器 微波炉 电饭煲 吸尘器 净化器 加湿器 "
                 "剃须刀 吹风机 电动牙刷 体重秤 路由器 硬盘 内存 显卡 主板 键盘 鼠标 显示器 打印机 投影仪 游戏机", "quality"),
    "price list": ("\n".join(f"型号{i * 37 % 91} 价格{i * 53 % 97 + 100} 库存{i * 7 % 31} 颜色黑白" for i in range(30)), "repetition"),
    "short": ("这是一个很短的页面，没有什么内容。", "repetition"),
    "buttons": ("""这个店的菜真的很好吃，服务员的态度也不错，下次我们还要来。
点赞 12
3条评论
转发(5)
回复
举报
他们家的位置有点难找，在地铁口出来以后还要走十分钟左右，但是很值得。
点赞 7
1条评论
回复""", "lines"),
    "cookies": ("""本网站使用cookie来改善您的体验，继续浏览即表示您同意我们的做法，而且也接受。
请阅读我们的隐私政策和使用条款，以了解我们如何收集和保护您的个人信息，以及您的权利。
如果您不同意本隐私政策，请不要使用本网站的任何服务，也不要提交您的资料给我们。""", "c4"),
}  # fmt: skip
