"""Adapters of peft: read with its outputs, written as it reads them, and refused where they do not fit."""

import json
import shutil

import golden
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlm import hf
from jaxlm.hf import description, peft, peft_export
from jaxlm.models import lora
from jaxlm.run import convert

ROOT = golden.ROOT / "peft"
NAMES = sorted(path.name for path in ROOT.iterdir())


def base_of(name):
    settings = json.loads((ROOT / name / "adapter_config.json").read_text())
    return settings["base_model_name_or_path"].rsplit("/", 1)[-1]


def expected(name):
    return load_file(ROOT / name / "expected.safetensors")["logits"]


def check(got, name):
    """Against the logits of peft, at the positions of real tokens."""
    _, want = golden.expected(base_of(name))
    theirs, got = expected(name), np.asarray(got)
    real = want["real"] if theirs.ndim == 3 else np.ones(len(theirs), bool)
    np.testing.assert_allclose(got[real], theirs[real], atol=1e-5)


def with_adapter(name):
    """The base of an adapter with its own class, and its parameters with the adapter beside the matrices."""
    adapter = peft.read(ROOT / name)
    loaded = hf.load(ROOT / name, compute=golden.F32)
    found = peft.describe(adapter, golden.FOLDERS[base_of(name)])
    # the adapter is merged in what was loaded, so the base comes from its own folder, and a head from the adapter
    base = hf.load(golden.FOLDERS[base_of(name)], compute=golden.F32).params
    base = base | {k: loaded.params[k] for k in ("head",) if k in loaded.params and adapter.whole}
    shapes = {path: x.shape for path, x in lora.flat(base).items()}
    parts = peft.parameters(
        adapter,
        found.family,
        found.architecture,
        shapes,
        "base",
        is_tied=found.config.tie_embeddings,
    )
    return loaded, found, lora.put(base, parts)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_peft(name):
    inputs, _ = golden.expected(base_of(name))
    got = hf.load(ROOT / name, compute=golden.F32)(**inputs)
    check(got, name)
    plain = golden.load(base_of(name))(**inputs)
    assert np.abs(np.asarray(plain) - expected(name)).max() > 0.1


@pytest.mark.parametrize("name", [n for n in NAMES if n != "llama_patterns"])
def test_what_is_written_reads_as_the_same_and_names_the_same_modules(name, tmp_path):
    loaded, found, params = with_adapter(name)
    whole = [path for path in lora.trained_whole(params, None) if "classes" in path]
    peft_export.save(
        tmp_path / "out",
        found.family,
        found.architecture,
        params,
        base=str(golden.FOLDERS[base_of(name)]),
        trained=whole,
    )
    inputs, _ = golden.expected(base_of(name))
    again = hf.load(tmp_path / "out", compute=golden.F32)
    check(again(**inputs), name)
    theirs = load_file(ROOT / name / peft.WEIGHTS)
    ours = load_file(tmp_path / "out" / peft.WEIGHTS)
    assert set(ours) == set(theirs)
    # a module of three parameters gets the sum of their ranks
    fused = ("c_attn", "query_key_value")
    for key, tensor in theirs.items():
        if not any(x in key for x in fused):
            np.testing.assert_allclose(ours[key], tensor, rtol=1e-6)
    settings = json.loads((tmp_path / "out" / peft.CONFIG).read_text())
    original = json.loads((ROOT / name / peft.CONFIG).read_text())
    if not any(char.isdigit() for char in "".join(original["target_modules"])):
        assert set(settings["target_modules"]) == set(original["target_modules"])
    assert not any(char.isdigit() for char in "".join(settings["target_modules"]))
    for field in ("task_type", "fan_in_fan_out", "peft_type"):
        assert settings[field] == original[field], field
    assert loaded.config == again.config


def test_an_adapter_of_a_fused_projection_comes_back_or_is_refused(tmp_path):
    def written(name):
        loaded, found = golden.load(name), description.describe(golden.FOLDERS[name])
        config = lora.LoraConfig(rank=2, targets=("query", "key", "value", "up"))
        keys = iter(jax.random.split(jax.random.key(0), 50))
        adapted = jax.tree.map_with_path(
            lambda path, x: (
                jax.random.normal(next(keys), x.shape) if path[-1].key.endswith("_lora_b") else x
            ),
            lora.add(loaded.params, jax.random.key(0), config),
        )
        where = (tmp_path / name, found.family, found.architecture)
        peft_export.save(*where, adapted, base=str(golden.FOLDERS[name]))
        return adapted

    want = lora.merge(written("phi3"))
    again = hf.load(tmp_path / "phi3", compute=golden.F32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), again.params, want)
    with pytest.raises(ValueError, match="because it is grouped by heads: merge with peft"):
        written("falcon")


def test_a_tied_table_has_the_same_adapter_at_both_ends(tmp_path):
    loaded = golden.load("gpt2")
    base = loaded.params
    assert "head" not in base
    adapted = lora.add(base, jax.random.key(0), lora.LoraConfig(rank=2, targets=("embedding",)))
    token = adapted["backbone"]["embed"]["token"]
    token["embedding_lora_a"] = jax.random.normal(jax.random.key(1), (32, 2))
    found = description.describe(golden.FOLDERS["gpt2"])
    base_folder = str(golden.FOLDERS["gpt2"])
    peft_export.save(tmp_path / "out", found.family, found.architecture, adapted, base=base_folder)
    inputs, _ = golden.expected("gpt2")
    again = hf.load(tmp_path / "out", compute=golden.F32)
    run = lambda p: loaded.model.apply({"params": p}, np.asarray(inputs["input_ids"]))
    np.testing.assert_allclose(run(again.params), run(adapted), atol=1e-5)
    tensors = load_file(tmp_path / "out" / peft.WEIGHTS)
    assert any("lm_head.lora_A" in name for name in tensors)
    # only one end, as peft has it by itself
    one = {name: x for name, x in tensors.items() if "lm_head" not in name}
    save_file(one, tmp_path / "out" / peft.WEIGHTS)
    with pytest.raises(ValueError, match="changes only one of them"):
        hf.load(tmp_path / "out")


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(ROOT / "llama", tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_of_another_base_is_refused_by_name(copied, tmp_path):
    with pytest.raises(ValueError, match=r"q_proj.lora_A.weight belongs to no matrix of .*gpt2"):
        hf.load(copied, base=golden.FOLDERS["gpt2"])
    tensors = load_file(copied / peft.WEIGHTS)
    name = next(n for n in tensors if "v_proj.lora_B" in n)
    save_file(tensors | {name: np.zeros((9, 3), np.float32)}, copied / peft.WEIGHTS)
    with pytest.raises(
        ValueError, match=r"v_proj.lora_B.weight is \[9, 3\], but .* needs \[8, 3\]"
    ):
        hf.load(copied, base=golden.FOLDERS["llama"])
    del tensors[name]
    save_file(tensors, copied / peft.WEIGHTS)
    with pytest.raises(ValueError, match="is one of two matrices, and the other is missing"):
        hf.load(copied, base=golden.FOLDERS["llama"])


def test_another_base_whose_shapes_fit_is_told(copied, tmp_path):
    shutil.copytree(golden.FOLDERS["llama"], tmp_path / "other")
    with pytest.warns(UserWarning, match=r"was trained on ../../llama, and is put on .*other"):
        hf.load(copied, base=tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(peft_type="IA3"), "peft_type='IA3' is not supported"),
        (dict(use_dora=True), "use_dora=True is not supported"),
        (dict(bias="all"), "bias='all' is not supported"),
        (dict(base_model_name_or_path=None), "base_model_name_or_path is missing; name the model"),
    ],
)
def test_other_kinds_of_adapters_are_refused(copied, changes, message):
    path = copied / peft.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        hf.load(copied)


def test_a_base_is_for_adapters_only():
    with pytest.raises(ValueError, match="base=x is for adapters, and this is none"):
        hf.load(golden.FOLDERS["llama"], base="x")


@pytest.fixture(scope="module")
def llama_shapes():
    return {path: x.shape for path, x in lora.flat(golden.load("llama").params).items()}


def parameters(folder, shapes):
    """The parts of an adapter of the golden llama."""
    adapter = peft.read(folder)
    found = peft.describe(adapter, golden.FOLDERS["llama"])
    where = (adapter, found.family, found.architecture, shapes, "base")
    return peft.parameters(*where, is_tied=found.config.tie_embeddings)


def first(tensors, part):
    return next(name for name in tensors if part in name)


def without(*parts):
    return lambda tensors: {n: x for n, x in tensors.items() if not any(p in n for p in parts)}


def changed(part, change):
    return lambda tensors: tensors | {(n := first(tensors, part)): change(tensors[n])}


NAN = changed(
    "v_proj.lora_B", lambda x: np.where(np.arange(x.size).reshape(x.shape) == 1, np.nan, x)
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (NAN, r"v_proj.lora_B.weight has 1 values that are not finite numbers"),
        (without("layers.1.self_attn.q_proj"), "has no adapter of layers.1.self_attn.q_proj, which"),
        (without("lora"), "there are no tensors in it, so the adapter would change nothing"),
        (changed("q_proj.lora_A", lambda x: x[0]), r"lora_A.weight is \[\d+\], not a matrix"),
        (changed("q_proj.lora_A", lambda x: x.astype("i1")), "has dtype int8, not one of floats"),
        (lambda x: x | {first(x, "lora_A").replace("lora_A", "lora_C"): x[first(x, "lora_A")]},
         "is no matrix of LoRA"),
        (dict(r=4), "q_proj.lora_A.weight is of rank 3, but adapter_config.json says 4"),
        (dict(r=0), "r=0 is not a positive whole number"),
        (dict(lora_alpha=0), "lora_alpha=0 is not a number other than 0"),
        (dict(lora_alpha="16"), "lora_alpha='16' is not a number other than 0"),
        (dict(lora_alpha=float("nan")), "lora_alpha=nan is not a number other than 0"),
        (dict(alpha_pattern={"q_proj": 0}), r"alpha_pattern\['q_proj'\]=0 is not a number"),
        (dict(rank_pattern={"(q": 3}), r"rank_pattern: '\(q' is not a pattern"),
        (dict(rank_pattern=[3]), r"rank_pattern=\[3\] is not an object"),
        (dict(target_modules=["k_proj"]), "q_proj, which target_modules of its settings does not"),
        (dict(target_modules="(q"), r"target_modules: '\(q' is not a pattern"),
        (dict(target_modules=7), "target_modules=7 is not a list of names"),
        (dict(modules_to_save=["lm_head"]), "the tensors of lm_head are missing, which modules_to"),
        (dict(init_lora_weights="pissa"), "'pissa' is not supported, because peft changes the base"),
        (dict(use_rslora="no"), "use_rslora='no' is not supported"),
    ],
)  # fmt: skip
def test_a_damaged_adapter_is_refused_by_name(copied, llama_shapes, change, message):
    if isinstance(change, dict):
        path = copied / peft.CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    else:
        save_file(change(load_file(copied / peft.WEIGHTS)), copied / peft.WEIGHTS)
    with pytest.raises(ValueError, match=message):
        parameters(copied, llama_shapes)


def test_layers_that_the_settings_leave_out_need_no_adapter(copied, llama_shapes):
    path = copied / peft.CONFIG
    settings = json.loads(path.read_text()) | {"layers_to_transform": [0]}
    path.write_text(json.dumps(settings))
    tensors = without("layers.1.")(load_file(copied / peft.WEIGHTS))
    save_file(tensors, copied / peft.WEIGHTS)
    found = parameters(copied, llama_shapes)
    assert all(x["b"][0].any() and not x["b"][1].any() for x in found.values())


def test_options_of_whole_models_are_refused_for_an_adapter(tmp_path):
    with pytest.raises(ValueError, match="--dtype and --max-shard-size are for whole models"):
        convert.convert(tmp_path / "run", tmp_path / "out", adapter=True, dtype="bfloat16")
