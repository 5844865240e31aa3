"""Damaged files of every kind that jaxlm reads: each is refused in one line that names the file, within seconds."""

import json
import pathlib
import shutil
import struct

import pytest

from jaxlm import CausalLMConfig, TrainConfig, hf
from jaxlm.audit import canaries, pairs
from jaxlm.data import shards
from jaxlm.data import tokenizer as tokenizers
from jaxlm.hf import generation_config, loading, peft, sentence_transformers
from jaxlm.report import run_log, trackers
from jaxlm.run import folder as run_folder
from jaxlm.training import private_run

GOLDEN = pathlib.Path(__file__).parent / "golden"
# words of Python, or of a library, that help nobody
UNHELPFUL = (
    "Expecting value",
    "empty sequence",
    "NoneType",
    "object has no attribute",
    "unhashable",
    "not subscriptable",
    "must be str, not",
    "indices must be",
    "codec can't",
    "unpack",
    "Traceback",
)


def texts(valid):
    """Damages of a whole JSON file, by name."""
    return {
        "empty": b"",
        "blank": b" \n ",
        "not JSON": b"hello",
        "cut": valid[: len(valid) // 2],
        "text after the end": valid + b"\n{}",
        "list": b"[]",
        "number": b"7",
        "null": b"null",
        "nested": b'{"a": ' + b"[" * 100_000,
        "zeros": bytes(64),
        "latin-1": valid.replace(b"{", b'{"caf\xe9": 1, ', 1),
        "utf-16": valid.decode().encode("utf-16"),
    }


def values(valid, names):
    """Damages of a JSON object, by name: each of these members with values of other types, and twice."""
    found = {}
    for name in names:
        for wrong in (None, 7, -1, 1.5, "x", [], {}, [None], True, 1e300):
            if type(wrong) is type(valid[name]):
                continue
            found[f"{name}={wrong!r}"] = json.dumps(valid | {name: wrong}).encode()
    first = names[0]
    twice = json.dumps(valid)[:-1] + f", {json.dumps(first)}: 1}}"
    found[f"{first} twice"] = twice.encode()
    return found


def tokenizer_folder(folder):
    """A folder with the files of a WordPiece tokenizer, to which those of a test are added."""
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


MASKED, LLAMA = GOLDEN / "version_1/masked", GOLDEN / "llama"
SHARDS, ADAPTER = GOLDEN / "version_1/shards", GOLDEN / "peft/llama"
# folder, file -> what reads it
STORED = {
    (MASKED, "config.json"): run_folder.read_config,
    (MASKED, "tokenizer.json"): lambda folder: tokenizers.load(folder / "tokenizer.json"),
    (LLAMA, "config.json"): hf.describe,
    (LLAMA, "model.safetensors.index.json"): hf.describe,
    (ADAPTER, "adapter_config.json"): peft.read,
    (SHARDS, "manifest.json"): lambda folder: shards.load(str(folder), "train"),
}
# file -> a valid object, and what reads its folder
WRITTEN = {
    "summary.json": (dict(steps=3, evaluation={}), run_log.read_summary),
    "generation_config.json": (
        dict(eos_token_id=2, temperature=0.5, max_new_tokens=9, bad_words_ids=[[7]]),
        generation_config.read,
    ),
    "tokenizer_config.json": (
        dict(do_lower_case=True, cls_token="[CLS]", added_tokens_decoder={}, chat_template="x"),
        loading.read_tokenizer,
    ),
    "special_tokens_map.json": (
        dict(sep_token="[SEP]", pad_token="[PAD]"),
        loading.read_tokenizer,
    ),
    "added_tokens.json": ({"[X]": 7}, loading.read_tokenizer),
    "modules.json": (
        [dict(idx=0, name="0", path="", type="sentence_transformers.models.Transformer")],
        sentence_transformers.read,
    ),
    "canaries.json": (
        dict(template="{}", values=["a", "b"], chosen=[["a"]], repeats=[1]),
        lambda folder: canaries.load(folder / "canaries.json"),
    ),
    "pairs.json": (
        dict(templates=["{group} {attribute}"], groups=dict(a=["x"], b=["y"]), attributes=["z"]),
        lambda folder: pairs.load(folder / "pairs.json"),
    ),
    private_run.FACTS_FILE: (
        dict(
            noise_multiplier=1.0,
            delta=1e-5,
            budget=3.0,
            clip=1.0,
            sampling_probability=0.1,
            unit="row",
            units=9,
            rows_per_unit=1,
            neighbours="one",
            accountant="x",
            stated_public=["tokenizer"],
            repeatable_noise=False,
        ),
        lambda folder: private_run.statement(folder, 3),
    ),
    "trackers.json": (
        dict(wandb="a"),
        lambda folder: trackers.start(TrainConfig(task=CausalLMConfig()), folder, 1),
    ),
}


def whole_files():
    for (source, name), read in STORED.items():
        for damage, content in texts((source / name).read_bytes()).items():
            yield pytest.param(source, name, content, read, id=f"{source.name}/{name}: {damage}")
    for name, (valid, read) in WRITTEN.items():
        for damage, content in texts(json.dumps(valid).encode()).items():
            # a list is what it should be
            if not (damage == "list" and name == "modules.json"):
                yield pytest.param(None, name, content, read, id=f"{name}: {damage}")


def members():
    for (source, name), read in STORED.items():
        valid = json.loads((source / name).read_bytes())
        known = [key for key in valid if key != "version"][:8]
        for damage, content in values(valid, known).items():
            yield pytest.param(source, name, content, read, id=f"{source.name}/{name}: {damage}")
    for name, (valid, read) in WRITTEN.items():
        if isinstance(valid, dict):
            for damage, content in values(valid, list(valid)).items():
                yield pytest.param(None, name, content, read, id=f"{name}: {damage}")


def put(tmp_path, source, name, content):
    """A folder that is whole but for the damaged file."""
    folder = tmp_path / "folder"
    if source is None:
        tokenizer_folder(folder)
    else:
        shutil.copytree(source, folder)
    (folder / name).write_bytes(content)
    return folder


def check_line(error, name):
    """One line that names the file in words that help."""
    line = str(error)
    assert name in line
    assert "\n" not in line
    assert len(line) < 1000
    assert not [words for words in UNHELPFUL if words in line], line


@pytest.mark.parametrize(("source", "name", "content", "read"), [*whole_files()])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, source, name, content, read):
    folder = put(tmp_path, source, name, content)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read(folder)
    check_line(error.value, name)


@pytest.mark.parametrize(("source", "name", "content", "read"), [*members()])
def test_a_member_of_another_type_is_read_or_refused_in_one_line(
    tmp_path, source, name, content, read
):
    folder = put(tmp_path, source, name, content)
    try:
        read(folder)
    except ValueError as e:
        check_line(e, name)


def tensors(header, body=b"\0" * 64):
    """A safetensors file."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


ENTRY = dict(dtype="F32", shape=[4, 4], data_offsets=[0, 64])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        tensors(b"[]"),
        tensors(b"{"),
        tensors(b"\xff\xfe{}"),
        tensors(b'{"a":' + b"[" * 10_000),
        tensors({"x": 7}),
        tensors({"x": []}),
        tensors({"x": ENTRY | dict(dtype="F7")}),
        tensors({"x": ENTRY | dict(dtype=None)}),
        tensors({"x": ENTRY | dict(shape="4")}),
        tensors({"x": ENTRY | dict(shape=[-4, -4])}),
        tensors({"x": ENTRY | dict(shape=[2**40, 2**40])}),
        tensors({"x": ENTRY | dict(shape=[4, 5])}),
        tensors({"x": ENTRY | dict(data_offsets=[0])}),
        tensors({"x": ENTRY | dict(data_offsets=[64, 0])}),
        tensors({"x": ENTRY | dict(data_offsets=[-64, 0])}),
        tensors({"x": ENTRY | dict(data_offsets=["0", "64"])}),
        tensors({"x": ENTRY}, b"\0" * 63),
        tensors(json.dumps({"x": ENTRY})[:-1].encode() + b', "x": {}}'),
    ],
)
def test_damaged_tensors_are_refused_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_bytes((LLAMA / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        hf.load(tmp_path)
    check_line(error.value, "model.safetensors")
