import dataclasses
import functools
import gzip
import json
import pickle

import numpy as np
import pyarrow
import pytest

from jaxlm.cli import main as cli
from jaxlm.config import DataConfig, DecoderConfig, TokenizerConfig, TrainConfig
from jaxlm.data import corpora, shard_writer, shards, sources, tokenizer
from jaxlm.data.loader import BatchAt
from jaxlm.data.rows import TextRows
from jaxlm.tasks import CausalLMConfig
from jaxlm.tasks.pretraining.causal_lm import CausalLM
from jaxlm.tasks.task import dataset

TEXTS = [f"Document {i} has {i * i} words, or so it says. " * (i % 7 + 1) for i in range(200)]


@pytest.fixture(scope="module")
def tok():
    return tokenizer.train(TEXTS, TokenizerConfig(kind="bpe", vocab_size=200))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def config(source, **changes):
    return DataConfig(train=(str(source),), validation_fraction=0.1, seq_len=32, **changes)


def write(folder, data, tok, **changes):
    options = dict(command="test", processes=0, shard_tokens=1500)
    return shard_writer.write(folder, data, tok, **options | changes)


@pytest.fixture
def folder(tmp_path, source, tok):
    write(tmp_path / "shards", config(source), tok)
    return tmp_path / "shards"


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_shards_contain_the_tokens_of_the_text(folder, source, tok, monkeypatch):
    data = config(source)
    for split in ("train", "validation"):
        want = sources.load_texts(data, split).token_documents(tok)
        got = shards.load(str(folder), split).token_documents(tok)
        assert [got[i].tolist() for i in range(len(got))] == [
            want[i].tolist() for i in range(len(want))
        ]
    manifest = shards.read_manifest(folder)
    files = manifest["splits"]["train"]["files"]
    assert len(files) == 1  # all in one chunk
    assert manifest["splits"]["train"]["tokens"] == sum(f["tokens"] for f in files)
    assert (manifest["dtype"], manifest["rows_read"]) == ("uint16", 200)


def test_shards_do_not_fit_an_encoder_with_a_tokenizer_of_its_own(folder, tok):
    two = tokenizer.TwoTokenizers.of(
        tok, tokenizer.train(TEXTS, TokenizerConfig(kind="char", vocab_size=64))
    )
    with pytest.raises(ValueError, match="hold the tokens of one tokenizer, but encoder and"):
        shards.load(str(folder), "train").token_documents(two)


def test_the_result_is_the_same_after_interruptions(tmp_path, source, tok, monkeypatch):
    monkeypatch.setattr(shard_writer, "_CHUNK", 900)
    whole = write(tmp_path / "whole", config(source), tok)
    assert len(whole["splits"]["train"]["files"]) > 3

    class Killed(Exception):
        pass

    def kill_after(limit, documents):
        if documents > limit:
            raise Killed

    for limit in (30, 90, 150):
        kill = functools.partial(kill_after, limit)
        with pytest.raises(Killed):
            write(tmp_path / "parts", config(source), tok, progress=lambda d, t, kill=kill: kill(d))
        with pytest.raises(ValueError, match="unfinished"):
            shards.load(str(tmp_path / "parts"), "train")
        # what a crash left behind the last record
        with open(tmp_path / "parts/train-00000.tokens", "ab") as file:
            file.write(b"xy" * 40)
    for _ in range(2):  # the second time there is nothing to do
        write(tmp_path / "parts", config(source), tok)
        assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    first = np.fromfile(tmp_path / "whole/train-00000.tokens", np.uint16)
    assert first.size == whole["splits"]["train"]["files"][0]["tokens"] >= 1500
    with pytest.raises(ValueError, match="has finished shards with different text_column"):
        write(tmp_path / "parts", config(source, text_column="body"), tok)


def test_processes_give_the_same_files(tmp_path, source, tok, monkeypatch):
    monkeypatch.setattr(shard_writer, "_CHUNK", 4000)
    for n in (0, 2):
        write(tmp_path / str(n), config(source), tok, processes=n)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def test_other_settings_cannot_resume(tmp_path, source, tok):
    def kill(documents, tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", config(source), tok, progress=kill)
    with pytest.raises(ValueError, match="different max_documents"):
        write(tmp_path / "out", config(source, max_documents=9), tok)
    with pytest.raises(ValueError, match="different columns, on_bad_row"):
        write(tmp_path / "out", config(source, columns=("text",), on_bad_row="skip"), tok)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty, it contains thesis\.txt"):
        write(tmp_path / "full", config(source), tok)
    # a disk was full before anything was there
    (tmp_path / "full/thesis.txt").rename(tmp_path / "full/progress.json.tmp")
    write(tmp_path / "full", config(source), tok)


def test_compressed_sources_are_read_like_plain_ones(tmp_path, source, tok):
    raw = source.read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(raw))
    with pyarrow.output_stream(str(tmp_path / "a.jsonl.zst"), compression="zstd") as file:
        file.write(raw)
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        read = sources.load_texts(config(tmp_path / name), "train")
        assert read.texts == sources.load_texts(config(source), "train").texts
    (tmp_path / "b.jsonl.zst").write_bytes(raw)
    with pytest.raises(ValueError, match=r"b\.jsonl\.zst: cannot be read"):
        sources.load_texts(config(tmp_path / "b.jsonl.zst"), "train")


def rows(run, tok):
    text = corpora.load(run.data, {})
    model = DecoderConfig(vocab_size=512, dim=16, num_layers=1, num_heads=2)
    run = dataclasses.replace(
        run, model=model, data=dataclasses.replace(run.data, seq_len=32), task=CausalLMConfig()
    )
    task = CausalLM(run, tok)
    validation = None
    if text.validation is not None:
        validation = dataset(task, text.validation, "validation")
    return dataset(task, text.train, "train"), validation


@pytest.mark.parametrize("name", ["{}", "shards:{}"])
def test_training_reads_shards_as_it_reads_text(folder, source, tok, name):
    text = TrainConfig(data=config(source), task=CausalLMConfig())
    sharded = dataclasses.replace(text, data=config(name.format(folder)))
    splits = list(zip(rows(text, tok), rows(sharded, tok)))
    for a, b in splits:
        assert len(a) == len(b)
        b = pickle.loads(pickle.dumps(b))
        for step in (0, 3, 50):
            want, got = BatchAt(a, 8, 1)(step), BatchAt(b, 8, 1)(step)
            for key, x in want.items():
                np.testing.assert_array_equal(got[key], x)
    # control tokens that a task adds do not make it another tokenizer
    assert len(rows(sharded, tok.with_tokens(["<extra_id_0>"]))[0]) == len(splits[0][0])
    assert shards.tokenizer_path(sharded.data).samefile(folder / "tokenizer.json")


def test_sources_are_mixed_by_their_weights(folder, source, tok):
    both = dataclasses.replace(config(source), train=(str(folder), str(source)), weights=(3, 1))
    run = TrainConfig(task=CausalLMConfig(), data=both)
    train, _ = rows(run, tok)
    np.testing.assert_allclose(train.fractions, [0.75, 0.25])
    assert train.describe(100).count("read each") == 2
    hot = dataclasses.replace(both, weights=(9, 1), temperature=2.0)
    np.testing.assert_allclose(
        rows(TrainConfig(task=CausalLMConfig(), data=hot), tok)[0].fractions, [0.75, 0.25]
    )
    plain = dataclasses.replace(both, weights=())
    train, validation = rows(TrainConfig(task=CausalLMConfig(), data=plain), tok)
    np.testing.assert_allclose(train.fractions, [0.5, 0.5])
    assert len(validation) == len(validation.parts[0]) * 2


def damage(folder, change, name="manifest.json"):
    path = folder / name
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_corrupt_files_are_errors_of_one_line(folder, tok, monkeypatch):
    monkeypatch.setattr(shards, "_MOST_VERIFIED", 0)
    tokens = folder / "train-00000.tokens"
    loaded = shards.load(str(folder), "train")
    docs = loaded.token_documents(tok)
    first = docs[0]
    other = tokenizer.train(TEXTS, TokenizerConfig(kind="char", vocab_size=99))
    with pytest.raises(ValueError, match="but this run uses"):
        loaded.token_documents(other)
    whole = tokens.read_bytes()

    # during the run: the file is truncated, or removed before it is first read
    tokens.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="the file is truncated"):
        docs[0]
    with pytest.raises(ValueError, match="the file is truncated"):
        shards.load(str(folder), "train")
    tokens.write_bytes(whole)
    np.testing.assert_array_equal(docs[0], first)
    late = pickle.loads(pickle.dumps(docs))
    tokens.unlink()
    with pytest.raises(ValueError, match="cannot be read any more"):
        late[0]
    with pytest.raises(ValueError, match="no such file, but the manifest lists it"):
        shards.load(str(folder), "train")

    outside = np.frombuffer(whole, np.uint16).copy()
    outside[5] = 60_000
    tokens.write_bytes(outside.tobytes())
    with pytest.raises(ValueError, match="token id 60000 is outside of the vocabulary"):
        shards.load(str(folder), "train").docs[0]
    tokens.write_bytes(whole)
    (folder / "train.ends").write_bytes(b"\0" * 8)
    with pytest.raises(ValueError, match=r"train\.ends: missing, or not 1,384 bytes"):
        shards.load(str(folder), "train")
    damage(folder, lambda m: m.pop("splits"))
    with pytest.raises(ValueError, match=r"manifest\.json: lacks splits"):
        shards.load(str(folder), "train")
    damage(folder, lambda m: m.update(version=7))
    with pytest.raises(ValueError, match="version 7"):
        shards.load(str(folder), "train")
    with pytest.raises(ValueError, match="no shards"):
        shards.load(f"shards:{folder.parent}", "train")


def test_a_flipped_bit_is_found_at_the_start(folder, monkeypatch):
    for name in ("train-00000.tokens", "train.ends", "validation.ends"):
        path = folder / name
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[8] ^= 1
        path.write_bytes(flipped)
        split = name.split("-")[0].split(".")[0]
        with pytest.raises(ValueError, match=rf"{name}: not what was written"):
            shards.load(str(folder), split)
        path.write_bytes(whole)
        assert shards.load(str(folder), split) is not None
    # of large shards it takes minutes: only sizes and the order of the ends are checked, or everything if asked for
    monkeypatch.setattr(shards, "_MOST_VERIFIED", 0)
    path = folder / "train-00000.tokens"
    path.write_bytes(bytes(path.stat().st_size))
    assert shards.load(str(folder), "train") is not None
    with pytest.raises(ValueError, match="not what was written"):
        shards.load(str(folder), "train", "always")
    ends = np.fromfile(folder / "train.ends", np.int64)
    ends[3] = ends[2] - 1
    ends.tofile(folder / "train.ends")
    with pytest.raises(
        ValueError, match=r"train\.ends: the ends of the documents are not in order"
    ):
        shards.load(str(folder), "train")


@pytest.mark.parametrize("name", ["../victim.txt", "/tmp/victim.txt", "train-00001.tokens", ""])
def test_no_name_leads_out_of_the_folder(tmp_path, source, tok, name):
    """Neither while it is written, nor when it is read."""
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")

    def stop(documents, tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "shards", config(source), tok, progress=stop)
    damage(tmp_path / "shards", lambda m: rename(m, name), "progress.json")
    with pytest.raises(ValueError, match=r"progress\.json: splits\.train\.files\[0\]\.name is"):
        write(tmp_path / "shards", config(source), tok)
    write(tmp_path / "whole", config(source), tok)
    damage(tmp_path / "whole", lambda m: rename(m, name))
    with pytest.raises(ValueError, match=r"manifest\.json: splits\.train\.files\[0\]\.name is"):
        shards.load(str(tmp_path / "whole"), "train")
    assert victim.read_text() == "precious"


def rename(manifest, name):
    manifest["splits"]["train"]["files"][0]["name"] = name


def test_no_link_is_followed(tmp_path, source, tok, monkeypatch):
    monkeypatch.setattr(shard_writer, "_CHUNK", 900)
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")

    def stop(documents, tokens):
        if documents > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "shards", config(source), tok, progress=stop)
    folder = tmp_path / "shards"
    # temporary files are replaced, not written through
    (folder / "progress.json.tmp").symlink_to(victim)
    (folder / "tokenizer.json.tmp").symlink_to(victim)
    (folder / "train-00003.tokens").symlink_to(victim)
    ends = folder / "train.ends"
    whole = ends.read_bytes()
    ends.unlink()
    ends.symlink_to(victim)
    with pytest.raises(ValueError, match=r"train\.ends: is a link"):
        write(folder, config(source), tok)
    ends.unlink()
    ends.write_bytes(whole)
    write(folder, config(source), tok)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(splits=[]), "splits is .*, not an object"),
        (lambda m: m.update(dtype="float64"), "dtype='float64' is not uint16 or uint32"),
        (lambda m: m.update(vocab_size=0), "vocab_size=0 must be at least 1"),
        (lambda m: m.update(vocab_size=True), "vocab_size is 'True', not an integer"),
        (lambda m: m["splits"].update(test={}), r"splits\.test is not train or validation"),
        (lambda m: m["splits"]["train"].pop("documents"), r"lacks splits\.train\.documents"),
        (lambda m: m["splits"]["train"].update(files={}), r"splits\.train\.files is .*not a list"),
        (lambda m: m["splits"]["train"]["files"].append(3), r"lacks splits\.train\.files\[\d+\]"),
        (
            lambda m: m["splits"]["train"]["files"][0].update(tokens=-1),
            r".*tokens=-1 must be at least",
        ),
    ],
)
def test_manifests_of_another_shape(folder, change, words):
    damage(folder, change)
    with pytest.raises(ValueError, match=rf"manifest\.json: {words}"):
        shards.load(str(folder), "train")


def test_manifests_that_are_no_json(folder):
    path = folder / "manifest.json"
    for text in ("{", "[" * 100_000, "[]", '{"version": 1, "version": 1}', "\x00"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json: not a JSON (file|object)"):
            shards.load(str(folder), "train")


def test_shards_without_validation_are_an_error(tmp_path, source, tok):
    data = dataclasses.replace(config(source), validation_fraction=0.0)
    write(tmp_path / "out", data, tok)
    run = TrainConfig(task=CausalLMConfig(), data=config(tmp_path / "out"))
    with pytest.raises(ValueError, match="hold no validation documents"):
        corpora.load(run.data, {})
    own = dataclasses.replace(run.data, validation=(str(source),))
    assert rows(TrainConfig(task=CausalLMConfig(), data=own), tok)[1] is not None


@pytest.mark.parametrize("changes", [dict(decontaminate=("test.tsv",)), dict(max_documents=3)])
def test_documents_of_shards_cannot_be_filtered(folder, source, changes):
    run = TrainConfig(
        task=CausalLMConfig(), data=config(folder, validation=(str(source),), **changes)
    )
    with pytest.raises(ValueError, match="give it to `jaxlm tokenize`"):
        corpora.load(run.data, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(weights=(1.0, 0.0)), r"data\.weights\[1\]=0\.0 must be positive; remove b"),
        (dict(weights=(1.0,)), "1 numbers for the 2 sources"),
        (dict(temperature=0.0), "must be positive"),
        (dict(train=("a",), temperature=2.0), "no effect with a single source"),
    ],
)
def test_invalid_weights_are_errors(changes, words):
    with pytest.raises(ValueError, match=words):
        DataConfig(**dict(train=("a", "b")) | changes)


def test_the_command_writes_shards_and_more_processes_than_documents_are_fine(
    tmp_path, source, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    flags = ["--data.tokenizer.vocab-size", "300", "--data.max-documents", "3"]
    command = ["tokenize", str(source), "out", *flags, "--processes", "4"]
    assert cli.main([*command, "--data.validation-fraction", "0"]) == 0
    shown = capsys.readouterr().out
    assert "train: 3 documents" in shown
    assert "--data.train out" in shown
    assert cli.main([*command, "--data.validation-fraction", "0"]) == 0
    assert "out: was finished before; nothing to do" in capsys.readouterr().out
    assert cli.main(command) == 2
    assert "finished shards with different validation_fraction" in capsys.readouterr().err
    other = [*command, "--data.validation-fraction", "0", "--data.tokenizer.kind", "char"]
    assert cli.main(other) == 2
    assert "finished shards with different tokenizer_settings" in capsys.readouterr().err
    assert cli.main(["tokenize", str(source)]) == 2
    assert "name the sources first" in capsys.readouterr().err


def test_packed_rows_of_shards_are_those_of_the_text(folder, source, tok):
    text = sources.load_texts(config(source), "train").token_documents(tok)
    a, b = (
        TextRows.of(docs, 32, pad_id=tok.pad_id, prefix_id=tok.cls_id, suffix_id=tok.sep_id)
        for docs in (text, shards.load(str(folder), "train").docs)
    )
    members = a.members(np.arange(len(a)))
    np.testing.assert_array_equal(a.take(members).values, b.take(members).values)
