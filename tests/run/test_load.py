"""Models from runs and folders: they write, chat and embed, in Python and by the commands."""

import concurrent.futures
import dataclasses
import json
import pathlib
import re

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.cli import generate
from jaxlm.cli.main import main
from jaxlm.config import TokenizerConfig
from jaxlm.data import tokenizer as tokenizers
from jaxlm.generation.requests import Request
from jaxlm.generation.speculative import LookUp
from jaxlm.hf import export
from jaxlm.run import load

# whole runs: too long for a quick pass
pytestmark = pytest.mark.slow

TEXTS = ["the cat sat on the mat.", "User: hello, who are you? the end"] * 10
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
FILL = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
SHORT = dict(max_new_tokens=6, temperature=0.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small untrained models in the Hugging Face layout: name -> folder."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = tokenizers.train(TEXTS, TokenizerConfig(kind="byte_bpe", vocab_size=300))
    tokenizer = tokenizer.with_tokens(["<|im_start|>", "<|im_end|>", *FILL])
    sizes = dict(
        vocab_size=tokenizer.vocab_size, dim=16, num_layers=1, num_heads=2, mlp_dim=32, max_len=64
    )
    made = {
        "decoder": jaxlm.CausalLM(jaxlm.DecoderConfig(**sizes, **jaxlm.llama_style())),
        "encoder": jaxlm.MaskedLM(jaxlm.EncoderConfig(**sizes)),
        "encoder_decoder": jaxlm.Seq2SeqLM(
            jaxlm.EncoderDecoderConfig(**sizes | dict(max_len=512), **jaxlm.t5_style())
        ),
    }
    for name, model in made.items():
        chat = (
            dataclasses.replace(tokenizer, chat_template=CHATML) if name == "decoder" else tokenizer
        )
        params = jaxlm.init_params(model, jax.random.key(1))
        export.save(root / name, model, params, tokenizer=chat)
    return {name: root / name for name in made}


@pytest.fixture(scope="module")
def models(folders):
    return {name: jaxlm.load(folder) for name, folder in folders.items()}


def test_several_prompts_are_continued_as_each_alone(models):
    model = models["decoder"]
    prompts = ["the cat", "User:", "the"]
    together = model.generate(prompts, **SHORT)
    assert together == [model.generate(prompt, **SHORT) for prompt in prompts]
    assert together == ["".join(model.stream(prompt, **SHORT)) for prompt in prompts]
    drafted = [model.stream(prompt, draft=LookUp(), **SHORT) for prompt in prompts]
    assert together == ["".join(pieces) for pieces in drafted]
    assert all(together)


def test_runs_write_and_embed(capsys):
    # runs of an older jaxlm, see golden/make_version_1.py
    runs = pathlib.Path(__file__).parents[1] / "golden" / "version_1"
    run, texts = runs / "unclipped", ["the", "a b", "import"]
    decoder = jaxlm.load(run)
    assert decoder.kind == "decoder"
    together = decoder.generate(texts, **SHORT)
    assert together == [decoder.generate(text, **SHORT) for text in texts]
    # after the token that training put before a text
    assert decoder.frame("the") == [decoder.tokenizer.bos_id, *decoder.tokenizer.encode("the")]
    assert main(["generate", str(run), "--prompt", "the", "--sampling.temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith(together[0])
    encoder = jaxlm.load(runs / "masked")
    assert encoder.kind == "encoder"
    assert encoder.embed(texts).shape == (3, encoder.model.config.dim)


def test_what_is_written_are_the_tokens_of_the_engine(models):
    model = models["encoder_decoder"]
    assert model.kind == "encoder_decoder"
    request = model.request("the cat sat", model.settings(**SHORT))
    framed = model.tokenizer.backend.encode("the cat sat", add_special_tokens=True).ids
    assert request.source == framed
    (tokens,) = model.engine(slots=1).run([Request(*request)])
    ids = [token.id for token in tokens if token.id not in request.settings.stop_ids]
    assert model.generate("the cat sat", **SHORT) == model.tokenizer.decode(ids)


def test_what_is_between_two_texts_follows_the_tokens_of_the_task(models, folders, capsys):
    model = models["decoder"]
    vocab, encode = model.tokenizer.vocab, model.tokenizer.encode
    before, after, middle = (vocab[name] for name in FILL)
    request = model.fill_request("the cat", "the mat", model.settings(**SHORT))
    expected = [*model.before, before, *encode("the cat"), after, *encode("the mat"), middle]
    assert list(request.prompt) == expected
    written = model.fill("the cat", "the mat", **SHORT)
    options = ["--sampling.max-new-tokens", "6", "--sampling.temperature", "0"]
    given = ["--prompt", "the cat", "--suffix", "the mat"]
    main(["generate", str(folders["decoder"]), *given, *options])
    assert capsys.readouterr().out == written + "\n"


def test_weights_may_be_of_another_dtype_while_writing(folders):
    model = jaxlm.load(folders["decoder"], dtype="bfloat16")
    engine = model.engine(slots=1)
    assert {x.dtype.name for x in jax.tree.leaves(engine.params)} == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves(model.params)} == {"float32"}
    assert model.generate("the cat", **SHORT)


def test_a_conversation_is_written_with_the_models_template(models):
    model = models["decoder"]
    messages = [{"role": "user", "content": "hello"}]
    request = model.chat_request(messages, model.settings(**SHORT))
    text = model.tokenizer.decode(request.prompt, skip_special=False)
    assert text == "<|im_start|>user\nhello<|im_end|>\n"
    (tokens,) = model.engine(slots=1).run([request])
    ids = [token.id for token in tokens if token.id not in request.settings.stop_ids]
    assert "".join(model.chat(messages, **SHORT)) == model.tokenizer.decode(ids)


def test_vectors_do_not_depend_on_the_other_texts(models):
    model = models["encoder"]
    texts = ["the cat", "hello, who are you? the end the end the end", "the"]
    together = model.embed(texts)
    assert together.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, together):
        np.testing.assert_allclose(model.embed(text), vector, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_a_beam_search_finds_texts_at_least_as_probable_as_the_greedy_one(models, folders, capsys):
    for kind in ("decoder", "encoder_decoder"):
        model = models[kind]
        searched = model.beam_search(["the cat", "User:"], beams=3, max_new_tokens=4)
        (single,) = model.beam_search(["the cat"], beams=1, max_new_tokens=4)
        for texts in searched:
            scores = [score for _, score in texts]
            assert scores == sorted(scores, reverse=True)
        assert searched[0][0][1] >= single[0][1] - 1e-5
        # one beam that ends nowhere is the greedy text
        assert single[0][0] == model.generate("the cat", temperature=0.0, max_new_tokens=4)
    command = ["generate", str(folders["decoder"]), "--prompt", "the cat", "--beams", "3"]
    assert main([*command, "--sampling.max-new-tokens", "4"]) == 0
    best = models["decoder"].beam_search(["the cat"], beams=3, max_new_tokens=4)[0][0][0]
    assert capsys.readouterr().out == best + "\n"


@pytest.mark.parametrize(
    ("kind", "use", "message"),
    [
        ("encoder", lambda m: m.generate("a"), "is an encoder"),
        ("decoder", lambda m: m.embed("a"), "is no encoder"),
        ("encoder_decoder", lambda m: list(m.chat([])), "only decoders chat"),
        ("decoder", lambda m: m.generate("a", temprature=1), "no setting 'temprature'"),
        ("decoder", lambda m: m.generate("a" * 900, **SHORT), "more than the 63"),
        ("decoder", lambda m: m.generate("a", top_p=2.0), "top_p=2.0 is out of range"),
    ],
)
def test_what_a_model_cannot_do_is_said(models, kind, use, message):
    with pytest.raises(ValueError, match=message):
        use(models[kind])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda models, folder: models["encoder"].fill("a", "b"), "only decoders fill in"),
        (lambda models, folder: jaxlm.load(folder, dtype="int8"), "dtype 'int8' is not one of"),
    ],
)
def test_what_cannot_be_filled_in_or_cast_is_said(models, folders, use, message):
    with pytest.raises(ValueError, match=message):
        use(models, folders["decoder"])


@pytest.mark.parametrize("texts", [None, 5, b"abc", [1, 2], {"a": 1}, ["a", None], "\ud800"])
def test_what_is_no_text_is_said(models, texts):
    with pytest.raises(ValueError, match=r"give a text or a list of texts|has half a character"):
        models["decoder"].generate(texts)


def test_only_a_line_feed_ends_a_prompt_of_a_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffOnce\u2028upon\x0ca time\r\n\nnext\n".encode())
    assert generate._read_prompts(path) == ["Once\u2028upon\x0ca time", "next"]
    path = path.rename(tmp_path / "prompts.jsonl")
    path.write_text('{"prompt": "a\u2028b"}\n', encoding="utf-8")
    assert generate._read_prompts(path) == ["a\u2028b"]
    path.write_text("\n")
    with pytest.raises(ValueError, match="no prompts"):
        generate._read_prompts(path)


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        load.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"no config\.json"):
        load.load(tmp_path)


FLAGS = ("--sampling.temperature", "0", "--sampling.max-new-tokens", "4")


def test_the_command_writes_a_line_for_each_prompt_and_goes_on_where_it_stopped(
    folders, models, tmp_path, capsys
):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    texts = ["the cat", "User: hello", "the"]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    command = ["generate", str(folders["decoder"]), "--prompts", str(prompts), "--out", str(out)]
    assert main([*command, *FLAGS]) == 0
    lines = out.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prompt"] for row in rows] == texts
    want = models["decoder"].generate(texts, temperature=0.0, max_new_tokens=4)
    assert [row["text"] for row in rows] == want
    assert {row["reason"] for row in rows} <= {"stop", "length"}
    # stopped in the middle of the second line
    out.write_text(lines[0] + "\n" + lines[1][:9])
    assert main([*command, *FLAGS]) == 0
    assert out.read_text().splitlines() == lines
    assert "1 of 3 are there already" in capsys.readouterr().err
    # written with other settings
    assert main([*command, *FLAGS, "--sampling.max-new-tokens", "2"]) == 2
    assert "its last line was written with another model or other settings" in (
        capsys.readouterr().err
    )
    assert out.read_text().splitlines() == lines
    # a text of somebody else, with and without an end of line
    for text in ("precious", '{"prompt": "precious"}\nprecious'):
        notes = tmp_path / "notes.txt"
        notes.write_text(text)
        assert main([*command[:-1], str(notes), *FLAGS]) == 2
        assert notes.read_text() == text
        capsys.readouterr()
    # of other prompts
    prompts.write_text("another\n")
    prompts = prompts.rename(tmp_path / "prompts.txt")
    command[3] = str(prompts)
    assert main([*command, *FLAGS]) == 2
    assert "line 1 is no result of this prompt" in capsys.readouterr().err


def test_the_command_writes_one_text_as_it_comes(folders, models, capsys):
    command = ["generate", str(folders["decoder"]), "--prompt", "the cat", *FLAGS]
    assert main(command) == 0
    want = models["decoder"].generate("the cat", temperature=0.0, max_new_tokens=4)
    assert capsys.readouterr().out == want + "\n"
    assert main([*command, "--draft", "prompt"]) == 0
    assert capsys.readouterr().out == want + "\n"
    assert main([*command, "--mesh.data", "8"]) == 0
    assert capsys.readouterr().out == want + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no prompt"),
        (("--prompt", "a", "--n", "0"), "--n 0: must be at least 1"),
        (("--prompt", "a", "--sampling.top-p", "7"), "top_p=7"),
        (("--prompt", "a", "--sampling.json-schema", "no.json"), "no.json: cannot be read"),
        (("--prompt", "a", "--beams", "3", "--n", "2"), "--beams writes one text"),
        (("--prompts", "no.txt"), "no.txt: cannot be read"),
        (("--prompt", "a", "--beams", "2", "--length-penalty", "nan"), "must be a finite number"),
        (
            ("--prompt", "a", "--out", "/dev/stdout", "--prompt", "a" * 600),
            "prompt 2: the prompt has",
        ),
        (("--prompt", "a", "--prompt", "b", "--draft", "prompt"), "--draft is for one prompt"),
    ],
)
def test_wrong_arguments_of_the_command_are_one_line(folders, arguments, message, capsys):
    assert main(["generate", str(folders["decoder"]), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_terminal_chat_keeps_the_conversation(folders, models, capsys, monkeypatch):
    typed = iter(["hello", "/again", "/new", "hello", "/nonsense", "/exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert main(["chat", str(folders["decoder"]), *FLAGS]) == 0
    lines = capsys.readouterr().out.splitlines()
    answer = "".join(
        models["decoder"].chat(
            [{"role": "user", "content": "hello"}], temperature=0.0, max_new_tokens=4
        )
    )
    said = "\n".join(lines)
    assert said.count(answer) == 3
    assert "no command /nonsense" in said


def test_a_model_without_a_template_does_not_chat(folders, capsys):
    assert main(["chat", str(folders["encoder_decoder"])]) == 2
    assert "only decoders chat" in capsys.readouterr().err


def test_the_example_of_the_guide_runs(folders, capsys):
    page = pathlib.Path(__file__).parents[2] / "docs" / "generating.md"
    [example] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(example, {"folder": folders["decoder"]})
    assert capsys.readouterr().out


def test_several_streams_of_one_model_are_open_side_by_side(models):
    model = models["decoder"]
    settings = dict(temperature=0.0, max_new_tokens=6)
    alone = [model.generate(text, **settings) for text in ("the cat", "a dog")]
    first, second = (model.stream(text, **settings) for text in ("the cat", "a dog"))
    pieces = [[next(first)], [next(second)]]
    # a third user, while both are open
    assert model.generate("the cat", **settings) == alone[0]
    pieces[1] += second
    pieces[0] += first
    assert ["".join(part) for part in pieces] == alone
    # and from several threads
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        texts = list(
            pool.map(lambda text: model.generate(text, **settings), ["the cat", "a dog"] * 4)
        )
    assert texts == alone * 4
