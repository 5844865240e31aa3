"""Configs: validation, derived values, and files."""

import dataclasses
import json
import re

import pytest

from jaxlm import config as c
from jaxlm import tasks as t
from jaxlm.config import files

TASKS = t.config_classes()

SIZES = dict(vocab_size=64, dim=32, num_heads=4, num_layers=2)


def pretraining(**fields):
    return c.TrainConfig(**{"task": t.CausalLMConfig(), **fields})


def finetuning(**fields):
    return c.FinetuneConfig(**{"task": t.ClassificationConfig(), **fields})


CONFIGS = {
    "defaults": pretraining(),
    "fine-tuning defaults": finetuning(),
    "phases": finetuning(
        phases=(
            c.PhaseConfig(end=10, groups=(c.GroupConfig(name="a", params=("head/*",)),)),
            c.PhaseConfig(turns=(("rest",),), groups=(c.GroupConfig(name="rest", params=("*",)),)),
        )
    ),
    "llama": c.TrainConfig(
        model=c.DecoderConfig(
            **c.llama_style(),
            **SIZES,
            num_kv_heads=2,
            rope_scaling=c.RopeScaling(kind="llama3", factor=8),
            window=16,
            layer_pattern=("local", "global"),
            attention_softcap=50.0,
        ),
        task=t.CausalLMConfig(z_loss=1e-4),
        optimizer=c.OptimizerConfig(name="muon"),
        mesh=c.MeshConfig(data=1, fsdp=-1, tensor=2),
    ),
    "bert": c.TrainConfig(
        model=c.EncoderConfig(**SIZES),
        task=t.MaskedLMConfig(unit="word"),
        data=c.DataConfig(
            train=("a.txt", "hub:b:ünïcode"),
            columns=("text", "label"),
            tokenizer=c.TokenizerConfig(kind="wordpiece"),
        ),
        curriculum=c.CurriculumConfig(ends=(100, 200), seq_lens=(64, 128)),
    ),
    "classification": c.FinetuneConfig(
        task=t.ClassificationConfig(labels=("no", "yes")), layer_decay=0.9, name="glue"
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_round_trips_through_its_file(name, tmp_path):
    path = tmp_path / "config.json"
    files.save(CONFIGS[name], path)
    assert files.load(path, c.TrainConfig, c.FinetuneConfig, tasks=TASKS) == CONFIGS[name]
    assert json.loads(path.read_text(encoding="utf-8"))["version"] == files.VERSION


def test_an_unresolved_field_keeps_its_default():
    assert files.from_dict(c.ComputeConfig, {"remat": "dots"}) == c.ComputeConfig(remat="dots")


def test_a_whole_number_is_read_as_float():
    learning_rate = files.from_dict(c.OptimizerConfig, {"learning_rate": 1}).learning_rate
    assert isinstance(learning_rate, float)


MISREAD = {
    "unknown field with a near name": (
        {"model": {"class": "DecoderConfig", "dimm": 1}},
        "model.dimm: no such field of DecoderConfig; did you mean dim?",
    ),
    "unknown field": ({"zzz": 1}, "zzz: no such field of TrainConfig; known: "),
    "word for a number": ({"mesh": {"data": "two"}}, "mesh.data: 'two' is not of type int"),
    "truth for a number": ({"steps": True}, "steps: True is not of type int"),
    "number for truth": ({"dry_run": 1}, "dry_run: 1 is not of type bool"),
    "fraction for a whole number": ({"steps": 1.5}, "steps: 1.5 is not of type int"),
    "unknown choice": (
        {"compute": {"remat": "some"}},
        "compute.remat: 'some' is not one of none, minimal, dots, offload, attention, full",
    ),
    "unknown choice in a list": (
        {"model": {"class": "DecoderConfig", "layer_pattern": ["local", "here"]}},
        "model.layer_pattern[1]: 'here' is not one of local, global",
    ),
    "text for a list": ({"data": {"train": "a.txt"}}, "data.train: 'a.txt' is not a list"),
    "number in a list of texts": ({"data": {"train": [1]}}, "data.train[0]: 1 is not of type str"),
    "unknown kind": ({"model": {"class": "RNN"}}, "model.class: 'RNN' is not one of DecoderConfig"),
    "no kind": ({"task": {}}, "task.class: '' is not one of CausalLMConfig"),
    "a task of the user": (
        {"task": {"class": "StarsConfig"}},
        f"task.class: 'StarsConfig' is not one of {', '.join(TASKS)}; the commands know only these: for a task of "
        "your own call jaxlm.run.restore.restore(run_dir, tasks=[...]) in Python",
    ),
    "no task": ({}, "task: this field of TrainConfig is missing"),
    "number for a task": ({"task": 3}, "task: 3 is not an object with a class"),
    "number for an object": ({"mesh": 8}, "mesh: 8 is not an object with fields"),
    "nothing where something is needed": ({"model": None}, "model: a value is missing"),
    "optional of another type": (
        {"model": {"class": "DecoderConfig", "window": "all"}},
        "model.window: 'all' is not of type int",
    ),
}


@pytest.mark.parametrize("case", MISREAD)
def test_a_wrong_value_is_named_by_its_dotted_field(case):
    value, message = MISREAD[case]
    with pytest.raises(ValueError, match="^" + re.escape(message)) as e:
        files.from_dict(c.TrainConfig, value, tasks=TASKS)
    assert "\n" not in str(e.value)


UNREADABLE = {
    "another version": ('{"version": 99, "class": "TrainConfig"}', "config version 99 is not one"),
    "no version": ("{}", "config version None is not one"),
    "a list": ("[]", "config version None is not one"),
    "no JSON": ("{", "not a JSON file"),
    "another kind": (
        '{"version": 1, "class": "FinetuneConfig"}',
        "a FinetuneConfig, but a TrainConfig is needed",
    ),
    "a bad field": (
        '{"version": 1, "class": "TrainConfig", "mesh": {"data": 0}}',
        "mesh.data=0 must be at least 1",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_bad_file_is_named(case, tmp_path):
    text, message = UNREADABLE[case]
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        files.load(path, c.TrainConfig, tasks=TASKS)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.json: no such file"):
        files.load(tmp_path / "nowhere.json", c.TrainConfig, tasks=TASKS)


# --- configs as Python files ---

IMPORT = "from jaxlm import *\ntask = CausalLMConfig()\n"


def load_text(tmp_path, text):
    path = tmp_path / "my_run.py"
    path.write_text(text)
    return files.load_python(path)


def test_a_python_config_is_named_after_its_file(tmp_path):
    loaded = load_text(
        tmp_path, IMPORT + "def get_config(): return TrainConfig(task=task, steps=200)"
    )
    assert loaded == pretraining(steps=200, name="my_run")


def test_a_python_config_may_name_itself(tmp_path):
    loaded = load_text(
        tmp_path, IMPORT + "def get_config(): return FinetuneConfig(task=task, name='x')"
    )
    assert loaded.name == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no function get_config"),
        ("def get_config(): return 1", "gives int, not a TrainConfig or FinetuneConfig"),
        (IMPORT + "def get_config(): return DecoderConfig()", "gives DecoderConfig, not a Train"),
        (IMPORT + "def get_config(): return TrainConfig", "gives type, not a TrainConfig"),
        ("def get_config(: pass", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError"),
        (
            IMPORT + "def get_config(): return TrainConfig(stepz=1)",
            r"my_run.py:3: stepz: no such field of TrainConfig; did you mean steps\?",
        ),
        (
            IMPORT + "def get_config():\n    phase = PhaseConfig(endd=3)",
            r"my_run.py:4: endd: no such field of PhaseConfig; did you mean end\?",
        ),
        ("def get_config():\n    return int('x')", r"my_run.py:2: invalid literal for int"),
        ("\ndef get_config(: pass", r"my_run.py:2: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(0)", r"my_run.py:2: the file ends the program \(sys.exit\)"),
        (
            IMPORT
            + "def get_config(): return TrainConfig(task=task, data=DataConfig(train='a.txt'))",
            r"data.train is the text 'a.txt', not a tuple: write \('a.txt',\)",
        ),
        (
            IMPORT + "def get_config(): return TrainConfig(task=task, steps=200.0)",
            "steps: 200.0 is not of type int",
        ),
        (
            IMPORT + "def get_config(): return TrainConfig(task=task, log_every=True)",
            "log_every: True is not of type int",
        ),
        (
            IMPORT + "import numpy as np\ndef get_config():\n    return TrainConfig(task=task, "
            "optimizer=OptimizerConfig(learning_rate=np.float32(1)))",
            r"optimizer.learning_rate: np.float32\(1.0\) is not of type float",
        ),
        (
            IMPORT + "def get_config(): return TrainConfig(task=task, steps=0)",
            "steps=0 must be at least 1",
        ),
    ],
)
def test_a_bad_python_config_is_a_one_line_error(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as e:
        load_text(tmp_path, text)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.py", "no such config file"),
        ("folder", "a folder; a config is a Python file"),
        ("config.json", "a config is a Python file (.py) with get_config(); see configs/"),
        (
            "rows.csv",
            "is a Python file (.py) with get_config(); see configs/; to train on this file, use --data.train",
        ),
        ("noname", "a config is a Python file"),
    ],
)
def test_what_is_not_a_python_config_is_named(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    for file in ("config.json", "rows.csv", "noname"):
        (tmp_path / file).write_text("{}")
    with pytest.raises(ValueError, match="^" + re.escape(f"{tmp_path / name}: ")) as e:
        files.load_python(tmp_path / name)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


# --- differences ---


def test_differences_are_named_by_dotted_field():
    old = CONFIGS["llama"]
    new = dataclasses.replace(
        old,
        steps=700,
        model=dataclasses.replace(old.model, rope_scaling=None, layer_pattern=("local",)),
    )
    found = files.differences(old, new)
    assert found["steps"] == (1000, 700)
    assert found["model.layer_pattern"] == (["local", "global"], ["local"])
    assert found["model.rope_scaling"][1] is None
    assert set(found) == {"steps", "model.layer_pattern", "model.rope_scaling"}


def test_differences_of_objects_are_named_by_their_leaves_or_by_their_class():
    old = CONFIGS["phases"]
    longer = dataclasses.replace(old.phases[0], end=20)
    new = dataclasses.replace(old, steps=2000, phases=(longer, old.phases[1]))
    shown = files.describe_differences(files.differences(old, new))
    assert shown == "steps: 1000 -> 2000; phases[0].end: 10 -> 20"
    new = dataclasses.replace(old, phases=(longer, longer, old.phases[1]))
    shown = files.describe_differences(files.differences(old, new))
    assert shown == "phases: 2 of PhaseConfig -> 3 of PhaseConfig"
    new = dataclasses.replace(CONFIGS["llama"], task=t.PrefixLMConfig(), model=c.DecoderConfig())
    shown = files.describe_differences(files.differences(CONFIGS["llama"], new))
    assert "task: CausalLMConfig -> PrefixLMConfig; " in shown
    assert "model.rope_scaling: RopeScaling -> None; " in shown
    assert "more" in shown
    assert "{" not in shown
    many = dataclasses.replace(CONFIGS["llama"], data=c.DataConfig(train=("x" * 99,) * 99))
    assert len(files.describe_differences(files.differences(CONFIGS["llama"], many))) < 200


def test_a_config_does_not_differ_from_its_own_json():
    value = json.loads(json.dumps(files.to_dict(CONFIGS["bert"])))
    assert files.differences(CONFIGS["bert"], value) == {}


# --- what a model config refuses and derives ---

ROPE = dict(kind="yarn", factor=2.0)
REFUSED = {
    "model.dim=0": dict(dim=0),
    "model.num_layers=0": dict(num_layers=0),
    "model.vocab_size=0": dict(vocab_size=0),
    "model.window=0": dict(window=0),
    "model.num_heads=3 does not divide model.dim=32": dict(num_heads=3),
    "model.num_kv_heads=3 does not divide model.num_heads=4": dict(num_kv_heads=3),
    "rotary positions rotate pairs": dict(positions="rotary", head_dim=5),
    "model.rope_fraction=0 ": dict(rope_fraction=0),
    "model.rope_fraction=2 ": dict(rope_fraction=2),
    "model.dropout=1.0": dict(dropout=1.0),
    "model.attention_dropout=-0.1": dict(attention_dropout=-0.1),
    "model.attention_softcap=0": dict(attention_softcap=0),
    "model.logit_softcap=-1": dict(logit_softcap=-1),
    "model.layer_pattern=() may contain": dict(layer_pattern=()),
    "model.layer_pattern=('all',) may contain only local and global": dict(layer_pattern=("all",)),
    "model.layer_pattern mixes": dict(layer_pattern=("local", "global")),
    "model.parallel_block": dict(parallel_block=True, norm_place="post"),
    "model.activation: 'swish' is not one of gelu, ": dict(activation="swish"),
    "model.biases has 'attention', which is not one of norm, qkv, ": dict(biases=("attention",)),
    "model.biases=('mlp', 'mlp') is not a tuple of different": dict(biases=("mlp", "mlp")),
    "model.extra_norms has 'first', which is not one of embedding,": dict(extra_norms=("first",)),
    "model.extra_norms='final' is not a tuple": dict(extra_norms="final"),
    "model.biases=('router',) has 'router', which has no effect": dict(biases=("router",)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_model_config_names_the_field_and_the_value(message):
    with pytest.raises(ValueError, match=re.escape(message)) as e:
        c.DecoderConfig(**{**SIZES, **REFUSED[message]})
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: c.RopeScaling(**ROPE | dict(factor=0.0)), "model.rope_scaling.factor=0.0"),
        (lambda: c.RopeScaling(**ROPE, original_max_len=0), "original_max_len=0"),
        (lambda: c.RopeScaling(**ROPE, low_freq_factor=4.0), "low_freq_factor=4.0 must be"),
        (lambda: c.RopeScaling(**ROPE, beta_slow=0.0), "beta_slow=0.0 must be positive"),
        (lambda: c.ComputeConfig(unroll=-1), "compute.unroll=-1"),
        (lambda: c.MeshConfig(fsdp=0), "mesh.fsdp=0 must be at least 1, or -1"),
        (lambda: c.MeshConfig(fsdp=-1), "only one axis of the mesh may be -1"),
        (lambda: c.DistributedConfig(process_id=0), "go together"),
        (lambda: c.OptimizerConfig(learning_rate=0.0), "optimizer.learning_rate=0.0"),
        (lambda: c.OptimizerConfig(b2=1.0), "optimizer.b2=1.0"),
        (lambda: c.OptimizerConfig(final_fraction=2.0), "optimizer.final_fraction=2.0"),
        (lambda: c.OptimizerConfig(clip_norm=-1.0), "optimizer.clip_norm=-1.0"),
        (lambda: c.CheckpointConfig(keep=0), "checkpoint.keep=0"),
        (lambda: c.EvaluationConfig(patience=0), "evaluation.patience=0"),
        (lambda: c.DataConfig(train=()), "data.train has no source"),
        (lambda: c.DataConfig(seq_len=1), "data.seq_len=1"),
        (lambda: c.DataConfig(validation_fraction=1.0), "data.validation_fraction=1.0"),
        (lambda: c.TokenizerConfig(vocab_size=3), "data.tokenizer.vocab_size=3"),
        (lambda: t.MaskedLMConfig(mask_fraction=0.0), "task.mask_fraction=0.0"),
        (
            lambda: t.MaskedLMConfig(mask_token_fraction=0.8, random_token_fraction=0.3),
            "add up to at most 1",
        ),
        (lambda: pretraining(batch_size=6, accumulate=4), "does not divide batch_size=6"),
        (lambda: pretraining(epochs=-1.0), "epochs=-1.0 must be positive"),
        (lambda: pretraining(name="../../evil"), "name='../../evil': must be a plain name"),
        (
            lambda: pretraining(
                epochs=1.0, curriculum=c.CurriculumConfig(ends=(9,), seq_lens=(8,))
            ),
            "epochs cannot be combined with a curriculum",
        ),
        (lambda: pretraining(data=c.DataConfig(seq_len=1024)), "more than model.max_len=512"),
        (lambda: finetuning(layer_decay=0.0), "layer_decay=0.0"),
        (lambda: finetuning(layer_decay=0.5, train_only="head"), "has no effect"),
    ],
)
def test_other_configs_name_the_field_and_the_value(make, message):
    with pytest.raises(ValueError, match=re.escape(message)) as e:
        make()
    assert "\n" not in str(e.value)


CURRICULA = {
    "curriculum.ends=(20,) has no effect alone": dict(ends=(20,)),
    "curriculum.ends=(30, 20) must be steps in ascending order": dict(
        ends=(30, 20), seq_lens=(8, 16)
    ),
    "curriculum.ends=(0,) must be": dict(ends=(0,), seq_lens=(8,)),
    "curriculum.seq_lens has 1 numbers for the 2 stages": dict(ends=(20, 30), seq_lens=(8,)),
    "curriculum.batch_sizes has 1 numbers for the 0 stages": dict(batch_sizes=(8,)),
    "curriculum.seq_lens[1]=1 must be at least 2": dict(ends=(20, 30), seq_lens=(8, 1)),
    "curriculum.batch_sizes[0]=0 must be": dict(ends=(20,), batch_sizes=(0,)),
    "curriculum.ends[1]=100 leaves no step of steps=100": dict(ends=(20, 100), seq_lens=(8, 16)),
    "curriculum.seq_lens[0]=64 is more than data.seq_len=32": dict(ends=(20,), seq_lens=(64,)),
    "accumulate=2 does not divide curriculum.batch_sizes[0]=3": dict(ends=(20,), batch_sizes=(3,)),
    "the end at step 30 in curriculum.ends has no effect: 4 rows of 8 tokens": dict(
        ends=(20, 30, 40), seq_lens=(16, 8, 8)
    ),
    "the end at step 20 in curriculum.ends has no effect: 4 rows of 32 tokens": dict(
        ends=(20,), batch_sizes=(4,)
    ),
}


@pytest.mark.parametrize("message", CURRICULA)
def test_invalid_curricula_are_rejected(message):
    with pytest.raises(ValueError, match=re.escape(message)) as e:
        pretraining(
            steps=100,
            batch_size=4,
            accumulate=2,
            data=c.DataConfig(seq_len=32),
            curriculum=c.CurriculumConfig(**CURRICULA[message]),
        )
    assert "\n" not in str(e.value)


def test_derived_sizes_follow_the_size_that_is_overridden():
    model = c.DecoderConfig(dim=256, num_heads=4)
    assert (model.kv_heads, model.head_width, model.mlp_width) == (4, 64, 1024)
    model = dataclasses.replace(model, dim=512, num_heads=8, num_kv_heads=2)
    assert (model.kv_heads, model.head_width, model.mlp_width) == (2, 64, 2048)
    assert dataclasses.replace(model, mlp_dim=100, head_dim=32).mlp_width == 100


@pytest.mark.parametrize(("dim", "width"), [(96, 256), (256, 704), (768, 2048)])
def test_a_gated_mlp_is_8_thirds_as_wide_rounded_up_to_64(dim, width):
    assert c.DecoderConfig(dim=dim, activation="geglu_tanh").mlp_width == width


def test_lists_of_names_have_one_order_and_rms_norms_no_biases():
    model = c.DecoderConfig(biases=("mlp", "norm"), extra_norms=("final", "embedding"))
    assert (model.biases, model.extra_norms) == (("norm", "mlp"), ("embedding", "final"))
    assert dataclasses.replace(model, norm="rms_norm").biases == ("mlp",)


def test_the_pattern_of_local_layers_is_cycled():
    pattern = ("local", "local", "global")
    model = c.DecoderConfig(num_layers=5, window=8, layer_pattern=pattern)
    assert model.local_layers == (True, True, False, True, True)
    assert dataclasses.replace(model, layer_pattern=("local",)).local_layers == (True,) * 5
    assert c.DecoderConfig(num_layers=2).local_layers == (False, False)


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        c.DecoderConfig().dim = 3
