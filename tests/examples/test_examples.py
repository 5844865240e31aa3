"""The programs of examples/, with tiny models that know nothing and stand-ins that know the answer."""

import dataclasses
import http.server
import importlib
import json
import pathlib
import re
import sys
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from runs import small_runs

import jaxlm
from jaxlm.config import TokenizerConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.hf import export

# whole runs
pytestmark = pytest.mark.slow

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
SHOP = EXAMPLES / "data" / "shop"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture(scope="module")
def programs():
    """The modules of examples/ by name."""
    names = ("customer_service", "documents", "intents", "models", "passages")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        found = {name: importlib.import_module(name) for name in (*names, "translator", "writer")}
        yield SimpleNamespace(**found)
        for name in found:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small untrained models in the Hugging Face layout: kind -> folder."""
    root = tmp_path_factory.mktemp("models")
    texts = ["the cat sat on the mat.", "User: hello, who are you? the end", "我在看书。"] * 10
    tokenizer = tokenizers.train(texts, TokenizerConfig(kind="byte_bpe", vocab_size=320))
    tokenizer = tokenizer.with_tokens(["<|im_start|>", "<|im_end|>"])
    sizes = dict(
        vocab_size=tokenizer.vocab_size, dim=16, num_layers=1, num_heads=2, mlp_dim=32, max_len=2048
    )
    made = {
        "decoder": jaxlm.CausalLM(jaxlm.DecoderConfig(**sizes, **jaxlm.llama_style())),
        "encoder": jaxlm.MaskedLM(jaxlm.EncoderConfig(**sizes)),
        "encoder_decoder": jaxlm.Seq2SeqLM(
            jaxlm.EncoderDecoderConfig(**sizes | dict(max_len=512), **jaxlm.t5_style())
        ),
    }
    made["chat"] = made["decoder"]
    for name, model in made.items():
        template = CHATML if name == "chat" else None
        params = jaxlm.init_params(model, jax.random.key(1))
        own = dataclasses.replace(tokenizer, chat_template=template)
        export.save(root / name, model, params, tokenizer=own)
    return {name: str(root / name) for name in made}


@pytest.fixture
def call(programs, monkeypatch, capsys):
    """Runs a program as its command does; returns what it printed, and its exit code."""

    def run(name, *words, typed=None):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        if typed is not None:
            lines = iter(typed)
            monkeypatch.setattr("builtins.input", lambda _: next(lines, None) or end())
        path = EXAMPLES / f"{name}.py"
        try:
            exec(
                compile(path.read_text(), str(path), "exec"),
                {"__name__": "__main__", "__file__": str(path)},
            )
            code = 0
        except SystemExit as e:
            code = e.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    def end():
        raise EOFError

    return run


class WordCounts:
    """An embedder of which two texts are the more similar the more words they share."""

    def __init__(self):
        self.embedded = []

    def embed(self, texts):
        several = [texts] if isinstance(texts, str) else texts
        self.embedded += several
        vectors = np.zeros((len(several), 4096), np.float32)
        for row, text in zip(vectors, several):
            for word in text.lower().replace("?", " ").replace(".", " ").split():
                row[int.from_bytes(word.encode()[:12]) % 4093] += 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-6
        return vectors[0] if isinstance(texts, str) else vectors


@pytest.mark.parametrize("name", ["customer_service", "documents", "translator", "writer"])
def test_help_names_every_option_and_fits_a_screen(call, name):
    code, out, _ = call(name, "--help")
    assert code == 0
    assert f"python examples/{name}.py" in out
    # a reader sees a program at one sitting
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 180


# ---- documents


def test_passages_have_the_lines_of_their_documents(programs):
    for path in sorted((SHOP / "pages").iterdir()):
        lines = path.read_text().splitlines()
        found = list(programs.passages.split(path.name, programs.passages.read_lines(path), 300))
        assert len(found) > 1
        for passage in found:
            assert len(passage.text.encode()) <= 300 + 3 * 20 or path.name == "门店.md"
            for number, text in passage.lines:
                assert text.removeprefix("# ")[:40].strip() in lines[number - 1]
        text = "".join(passage.text for passage in found)
        assert "not text" not in text and "margin" not in text
        # nothing is lost: compared without spaces and marks of headings
        bare = lambda x: "".join(c for c in x if not c.isspace() and c != "#")
        if path.suffix != ".html":
            assert bare(text) == bare(path.read_text())


def test_a_heading_begins_a_passage_and_is_not_left_alone(programs):
    lines = list(enumerate(["# A", "", "one two", "", "## B", "three"], 1))
    found = list(programs.passages.split("f", lines, 100))
    assert [p.lines for p in found] == [((1, "# A"), (3, "one two")), ((5, "## B"), (6, "three"))]
    assert found[0].line_at(found[0].text.index("one")) == 3


def test_tags_inside_of_a_line_do_not_cut_it(programs, tmp_path):
    page = "<p>a <b>b</b> <i>c</i>d\n<b>e</b></p><h2>f <em>g</em></h2>\n<p>h<br>i"
    (tmp_path / "page.html").write_text(page)
    lines = [line for line in programs.passages.read_lines(tmp_path / "page.html") if line[1]]
    assert lines == [(1, "a b cd"), (2, "e"), (2, "# f g"), (3, "h"), (3, "i")]


def test_a_long_line_is_cut_between_sentences(programs):
    line = "One sentence is here. " * 20 + "这是一句话。" * 40
    found = list(programs.passages.split("f", [(7, line)], 200))
    assert {number for p in found for number, _ in p.lines} == {7}
    assert all(len(p.text.encode()) < 220 for p in found)
    assert all(p.text[-1] in ".。" for p in found)


def test_only_new_passages_are_embedded(programs, tmp_path):
    model = WordCounts()
    first = programs.documents.embed(model, ["a b", "c d"], tmp_path)
    model.embedded.clear()
    again = programs.documents.embed(model, ["c d", "e f", "a b"], tmp_path)
    assert model.embedded[1:] == ["e f"]  # the first one tells which model it is
    np.testing.assert_array_equal(again[[2, 0]], first)
    other = SimpleNamespace(embed=lambda texts: -model.embed(texts))
    np.testing.assert_array_equal(programs.documents.embed(other, ["a b"], tmp_path), -first[:1])


class Finder:
    """A reader that answers with a text if the context has it."""

    def __init__(self, answer):
        self.answer = answer

    def predict(self, rows):
        several = [rows] if isinstance(rows, dict) else rows
        found = []
        for row in several:
            start = row["context"].find(self.answer)
            text = self.answer if start >= 0 else ""
            found.append(dict(answer=text, start=start, score=1.0, probability=0.9))
        return found[0] if isinstance(rows, dict) else found


def test_an_answer_has_the_file_and_line_of_its_source(call, monkeypatch, tmp_path):
    made = {"embedder": WordCounts(), "reader": Finder("18 euros")}
    monkeypatch.setattr(jaxlm, "load", made.__getitem__)
    words = ["--embedder", "embedder", "--reader", "reader", "--cache", tmp_path]
    code, out, err = call(
        "documents", *words, "--ask", "What does a zip costs 18 euros repairs zips"
    )
    assert code == 0, err
    page = (SHOP / "pages" / "warranty.html").read_text().splitlines()
    line = next(i for i, text in enumerate(page, 1) if "18 euros" in text)
    assert f"18 euros\n  warranty.html:{line} (probability 0.90)" in out
    code, out, _ = call("documents", *words, "--least", "1.1", typed=["zip", " ", "seam"])
    assert out.count("Nothing here is about that") == 2


def test_a_chat_model_gets_the_passages_also_over_the_protocol(
    call, folders, monkeypatch, tmp_path
):
    bodies = []

    class Server(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [{"id": "some-model"}]}).encode())

        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            for text in ("It costs ", "18 euros."):
                event = {"choices": [{"delta": {"content": text}}]}
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    words = ["--embedder", folders["encoder"], "--cache", tmp_path, "--least", "-1"]
    code, out, err = call("documents", *words, "--chat", address, "--ask", "how much is a zip?")
    server.shutdown()
    server.server_close()
    thread.join()
    assert code == 0, err
    assert "It costs 18 euros.\n[1] " in out
    [body] = bodies
    assert body["model"] == "some-model"
    assert "how much is a zip?" in body["messages"][1]["content"]
    assert "[3] " in body["messages"][1]["content"]
    code, _, err = call("documents", *words, "--chat", address, "--ask", "x")
    assert code == 2
    assert "no answer" in err and "jaxlm serve" in err
    # and a model of this process
    code, out, err = call("documents", *words, "--chat", folders["chat"], "--ask", "x")
    assert code == 0, err
    assert "[1] " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["documents", "{tmp}"], "no text in .txt, .md or .html files"),
        (["documents", "{tmp}/none", "--ask", "x"], "none: no such folder"),
        (["documents", "{tmp}/bad.tsv", "--ask", "x"], "bad.tsv: no such folder"),
        (["documents", "--ask", " "], "the text is empty"),
        (
            [
                "translator",
                "{encoder_decoder}",
                "--file",
                "{tmp}/bad.tsv",
                "--out",
                "{tmp}/bad.tsv",
            ],
            "is the file that is read",
        ),
        (["documents", "--chat", "{decoder}"], "has no chat template"),
        (["documents", "--embedder", "{decoder}", "--ask", "x"], "only encoders embed"),
        (["translator", "{decoder}", "--text", "x"], "is no encoder-decoder"),
        (["translator", "{encoder_decoder}", "--best", "5"], "--best 5 is more than --beams 4"),
        (["translator", "{encoder_decoder}", "--out", "x"], "--out goes with --file"),
        (["translator", "{tmp}/run", "--train", "{tmp}/bad.tsv"], "must name the column source"),
        (["writer", "--model", "{decoder}", "--summarise", "{tmp}/bad.tsv"], "needs a chat model"),
        (["writer", "--model", "{encoder}", "--prompt", "x"], "writes none"),
        (["customer_service", "--data", "{tmp}"], "intents.tsv"),
    ],
)
def test_what_cannot_be_done_is_one_line(call, folders, tmp_path, words, message):
    (tmp_path / "bad.tsv").write_text("english\tchinese\na\tb\n")
    if words[0] == "documents" and "--embedder" not in words:
        words = [*words, "--embedder", "{encoder}", "--cache", "{tmp}"]
    if (
        words[0] == "translator"
        and "--train" in words
        and not (EXAMPLES.parent / "configs" / "translate.py").exists()
    ):
        pytest.skip("no configs/translate.py")
    code, _, err = call(*(word.format(tmp=tmp_path, **folders) for word in words))
    assert code == 2
    assert message in err
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err


# ---- customer service


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "faq.jsonl:2: Expecting"),
        ('{"intent": "order_status", "question": "x"}', "2: needs the texts intent, question, ans"),
        ("3", "2: needs the texts"),
    ],
)
def test_an_entry_of_the_list_that_cannot_be_used_is_named(call, shop, monkeypatch, line, message):
    made = {"intents": Keywords(), "words": WordCounts()}
    monkeypatch.setattr(jaxlm, "load", made.__getitem__)
    path = shop / "faq.jsonl"
    path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n")
    words = ["--data", shop, "--intents", "intents", "--embedder", "words", "--init", "none"]
    code, _, err = call("customer_service", *words, "--ask", "where is it")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_a_model_of_another_kind_finds_no_intents(call, shop, monkeypatch):
    class Numbers:
        def predict(self, texts):
            return {"value": 1.0} if isinstance(texts, str) else [{"value": 1.0} for _ in texts]

    made = {"intents": Numbers(), "words": WordCounts()}
    monkeypatch.setattr(jaxlm, "load", made.__getitem__)
    words = ["--data", shop, "--intents", "intents", "--embedder", "words", "--init", "none"]
    code, _, err = call("customer_service", *words, "--ask", "where is it")
    assert code == 2 and "--intents finds no intents" in err


class Keywords:
    """A classifier of intents that knows some words."""

    WORDS = {"parcel": "order_status", "refund": "refund_status", "person": "talk_to_person"}

    def predict(self, texts):
        several = [texts] if isinstance(texts, str) else texts
        found = []
        for text in several:
            label = next((v for k, v in self.WORDS.items() if k in text.lower()), None)
            found.append({"label": label or "order_status", "probability": 0.9 if label else 0.1})
        return found[0] if isinstance(texts, str) else found


@pytest.fixture
def shop(tmp_path):
    """A small shop with two intents and a hand-over."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.txt").write_text("We refund within 5 working days.\n")
    held = [
        ("where is the parcel", "order_status"),
        ("when will my refund be paid", "refund_status"),
    ]
    held += [("who painted that", "out_of_scope"), ("tell me a joke", "out_of_scope")]
    rows = "".join(f"{a}\t{b}\n" for a, b in held)
    (tmp_path / "intents_held_out.tsv").write_text(f"text\tlabel\n{rows}")
    # phrases of the intents; one is far from all questions of the list
    phrases = [
        ("where is the parcel now", "order_status"),
        ("refund xyzzy plugh quux", "refund_status"),
        ("let me speak to a person", "talk_to_person"),
    ]
    rows = "".join(f"{a}\t{b}\n" for a, b in phrases)
    (tmp_path / "intents.tsv").write_text(f"text\tlabel\n{rows}")
    faq = [
        ("order_status", "Where is my parcel?", "Open Track."),
        ("refund_status", "When is my refund paid?", "In 5 days."),
    ]
    lines = [json.dumps(dict(intent=i, question=q, answer=a, page="a.txt")) for i, q, a in faq]
    (tmp_path / "faq.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_question_is_answered_or_goes_to_a_person(call, shop, monkeypatch):
    made = {
        "intents": Keywords(),
        "embedder": WordCounts(),
        "reader": Finder("within 5 working days"),
    }
    monkeypatch.setattr(jaxlm, "load", made.__getitem__)
    words = ["--data", shop, "--intents", "intents", "--embedder", "embedder"]
    typed = ["where is my parcel now", "let me speak to a person", "what is love"]
    typed.append("refund xyzzy plugh")
    code, out, err = call("customer_service", *words, typed=typed)
    assert code == 0, err
    parcel, person, love, far = out.strip().split("\n\n")
    assert re.match(r"intent order_status, familiar 0\.\d\d \(from 0\.\d\d on\)\n", parcel)
    assert parcel.endswith("=> Open Track. (a.txt)")
    assert person.endswith("=> a person takes over: talk_to_person")
    assert love.endswith("=> a person takes over: out_of_scope")
    assert far.endswith("=> a person takes over: unsure")
    code, out, _ = call(
        "customer_service", *words, "--reader", "reader", "--ask", "when is my refund paid"
    )
    assert out.endswith("=> within 5 working days (a.txt)\n")
    (shop / "test.tsv").write_text(
        "text\tlabel\nparcel where is my\trefund_status\nwhat?\tout_of_scope\n"
    )
    code, out, _ = call("customer_service", *words, "--test", shop / "test.tsv")
    assert out.endswith("1 of 2 right\n")


def test_the_threshold_separates_what_is_known_from_what_is_not(programs):
    scores = np.array([0.9, 0.8, 0.3, 0.4, 0.2, 0.1])
    known = np.array([True, True, True, False, False, False])
    assert programs.intents.threshold(scores, known) == pytest.approx(0.25)
    assert programs.intents.threshold(scores[[0, 1, 3, 4]], known[[0, 1, 3, 4]]) == pytest.approx(
        0.6
    )


def test_the_data_of_the_shop_fit_together(programs):
    train = programs.intents.read_tsv(SHOP / "intents.tsv")
    held = programs.intents.read_tsv(SHOP / "intents_held_out.tsv")
    test = programs.intents.read_tsv(SHOP / "test_questions.tsv")
    names = {row["label"] for row in train}
    assert (
        {row["label"] for row in held} == {row["label"] for row in test} == names | {"out_of_scope"}
    )
    texts = [row["text"].lower().strip("?. ") for row in [*train, *held, *test]]
    assert len(set(texts)) == len(texts)
    faq = [json.loads(line) for line in (SHOP / "faq.jsonl").read_text().splitlines()]
    assert {entry["intent"] for entry in faq} == names - {"talk_to_person"}
    assert all((SHOP / "pages" / entry["page"]).is_file() for entry in faq)


@pytest.mark.slow
def test_the_first_call_trains_intents_from_nothing(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with small_runs():
        code, out, err = call("customer_service", "--init", "none", "--test", SHOP / "intents.tsv")
        assert code == 0, err
        # 144 phrases of the training data, of 12 intents
        assert int(out.splitlines()[-1].split()[0]) > 72
        code, _, err = call("customer_service", "--init", "none", "--ask", "where is my order")
    assert code == 0
    assert "training" not in err


# ---- translator and writer


def test_lines_are_translated_in_order_with_candidates(call, folders, tmp_path):
    (tmp_path / "in.txt").write_text("the cat\n\nhello\n")
    model = folders["encoder_decoder"]
    out_file = tmp_path / "out.txt"
    short = ["--length", "4", "--beams", "2"]
    code, _, err = call(
        "translator", model, "--file", tmp_path / "in.txt", "--out", out_file, *short
    )
    assert code == 0, err
    expected = jaxlm.load(model).beam_search(["the cat", "hello"], beams=2, max_new_tokens=4)
    assert out_file.read_text().split("\n") == [expected[0][0][0], "", expected[1][0][0], ""]
    code, out, _ = call("translator", model, "--text", "hello", "--best", "2", *short)
    assert [line.split("\t")[0] for line in out.splitlines()[:2]] == [
        f"{s:.3f}" for _, s in expected[1]
    ]


def test_drafts_are_ranked_by_the_models_own_probability(programs, folders):
    model = jaxlm.load(folders["decoder"])
    drafts = programs.writer.write(model, "the cat", False, 3, max_new_tokens=5, seed=1)
    assert len({draft.text for draft in drafts}) == 3
    scores = [draft.score for draft in drafts]
    assert scores == sorted(scores, reverse=True)
    engine = model.engine(slots=2)
    for draft in drafts:
        assert draft.text.startswith("the cat")
    # the same numbers as for given texts
    request = model.request("the cat", model.settings(max_new_tokens=5, seed=1, logprobs=0))
    [tokens] = engine.run([request])
    [given] = engine.score([[*request.prompt, *(token.id for token in tokens)]])
    assert np.mean(given.log_probs[-5:]) == pytest.approx(
        next(
            d.score
            for d in drafts
            if d.text == model.tokenizer.decode([*request.prompt, *(t.id for t in tokens)]).strip()
        ),
        abs=1e-4,
    )


def test_a_judge_ranks_drafts(programs, call, folders, monkeypatch):
    writer = programs.writer
    drafts = [writer.Draft("bad", -1.0, True), writer.Draft("good", -2.0, True)]
    probability = lambda text: {"good": float(text == "good"), "bad": float(text == "bad")}
    classes = SimpleNamespace(
        predict=lambda texts: [{"probabilities": probability(t)} for t in texts]
    )
    numbers = SimpleNamespace(predict=lambda texts: [{"value": len(t)} for t in texts])
    assert [d.text for d in writer.judge(classes, drafts, "good")] == ["good", "bad"]
    assert [d.score for d in writer.judge(numbers, drafts, None)] == [4, 3]
    for judge, wanted in ((classes, None), (classes, "goood"), (numbers, "good")):
        with pytest.raises(ValueError, match="--wanted"):
            writer.judge(judge, drafts, wanted)


def test_the_writer_asks_a_chat_model_and_continues_with_others(call, folders, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat.")
    short = ["--length", "4", "--drafts", "2"]
    for kind in ("chat", "encoder_decoder"):
        words = ["--model", folders[kind], "--summarise", tmp_path / "text.txt", *short]
        code, out, err = call("writer", *words)
        assert code == 0, err
        assert out.startswith("--- draft 1 (score -")
    code, out, _ = call("writer", "--model", folders["decoder"], "--prompt", "the cat", *short)
    assert "cut off)\nthe cat" in out


@pytest.mark.slow
def test_a_translator_is_trained_from_nothing(call, tmp_path):
    if not (EXAMPLES.parent / "configs" / "translate.py").exists():
        pytest.skip("no configs/translate.py")
    pytest.importorskip("sacrebleu")
    with small_runs():
        words = [tmp_path / "run", "--train", EXAMPLES / "data" / "en_zh.tsv", "--steps", "20"]
        code, out, err = call("translator", *words, "--text", "We like to swim.", "--length", "8")
    assert code == 0, err
    assert out.splitlines()
