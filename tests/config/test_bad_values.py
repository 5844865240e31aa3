"""Bad options and configs, a line each: the field is named, and what is expected, before anything else happens."""

import dataclasses
import functools
import math
import pathlib
import re
import typing

import numpy as np
import pytest

from jaxlm import config as c
from jaxlm import tasks as t
from jaxlm.cli import arguments
from jaxlm.cli.main import main
from jaxlm.config import files
from jaxlm.run import quickstart

TASKS = t.config_classes()
REQUIRED = {
    "TrainConfig": dict(task=t.CausalLMConfig()),
    "FinetuneConfig": dict(task=t.ClassificationConfig()),
    "GroupConfig": dict(name="a", params=("head/*",)),
    "RopeScaling": dict(kind="linear", factor=2.0),
    "PrivacyConfig": dict(epsilon=1.0, delta=1e-5),
}


@functools.cache
def classes():
    """Every config class that a run can have, found by the types of the fields."""
    found = {}

    def visit(kind):
        if dataclasses.is_dataclass(kind) and kind.__name__ not in found:
            found[kind.__name__] = kind
            for part in typing.get_type_hints(kind).values():
                visit(part)
        for part in typing.get_args(kind):
            visit(part)

    for kind in (c.TrainConfig, c.FinetuneConfig, *TASKS.values()):
        visit(kind)
    found.pop("TaskConfig", None)
    return found


def numbers():
    """All fields that are numbers: (class, field, int or float)."""
    for name, cls in classes().items():
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
            if typing.get_origin(hints[field.name]) is tuple:
                continue
            for kind in (int, float):
                if kind in kinds:
                    yield name, field.name, kind


NUMBERS = sorted(set(numbers()), key=str)
# fields in which negative numbers have a meaning
SIGNED = {
    ("MeshConfig", "data"),
    ("RegressionConfig", "mean"),
    ("AnsweringConfig", "null_threshold"),
}


@pytest.mark.parametrize(("name", "field", "kind"), NUMBERS)
def test_every_number_has_a_type_and_a_range(name, field, kind):
    bad = ["1", True, np.float32(1), -1, 1e20, 10**20]
    bad += [1.5, 2.0, np.int64(1)] if kind is int else [math.nan, math.inf, -math.inf]
    if (name, field) in SIGNED:
        bad.remove(-1)
    for value in bad:
        with pytest.raises(ValueError, match=re.escape(field)) as e:
            classes()[name](**{**REQUIRED.get(name, {}), field: value})
        assert "\n" not in str(e.value)


PLAIN = """
task=t.CausalLMConfig(), steps=8.0 | steps: 8.0 is not of type int: write 8
task=t.CausalLMConfig(), steps=True | steps: True is not of type int
task=t.CausalLMConfig(), steps="8" | steps: '8' is not of type int
task=t.CausalLMConfig(), run_dir=5 | run_dir: 5 is not of type str
task=t.CausalLMConfig(), run_dir=pathlib.Path("a") | is not of type str
task=t.CausalLMConfig(), name=None | name: None is not of type str
task=t.CausalLMConfig(), dry_run=1 | dry_run: 1 is not of type bool
task=t.CausalLMConfig(), seed=2**63 | seed=9223372036854775808 must be below 2^32
task=t.CausalLMConfig(), seed=2**32 | seed=4294967296 must be below 2^32
task=t.CausalLMConfig(), seed=-1 | seed=-1 must not be negative
task=t.CausalLMConfig(), steps=2**31 | steps=2147483648 must be below 2^31
task=t.CausalLMConfig(), epochs=True | epochs: True is not of type float
task=t.CausalLMConfig(), epochs=1e20 | epochs=1e+20 is out of range
task=t.CausalLMConfig(), model=3 | model is 3, not a DecoderConfig or
task=t.CausalLMConfig(), model="gpt2" | model is the text 'gpt2', not a
task=t.CausalLMConfig(), model=None | model is None, not a
task=t.CausalLMConfig(), optimizer={} | optimizer is {}, not a OptimizerConfig
task=t.CausalLMConfig(), data=c.OptimizerConfig() | not a DataConfig
task=t.CausalLMConfig | not a TaskConfig
task="causal_lm" | task is the text 'causal_lm', not a TaskConfig
task=None | task is None, not a TaskConfig
task=t.CausalLMConfig(), groups=c.GroupConfig(name="a", params=("head/*",)) | not a tuple: write
task=t.CausalLMConfig(), groups=("head",) | groups[0] is the text 'head', not a GroupConfig
task=t.CausalLMConfig(), phases=(3,) | phases[0] is 3, not a PhaseConfig
task=t.CausalLMConfig(), mesh=(1, 2) | mesh is (1, 2), not a MeshConfig
task=t.CausalLMConfig(), log_every=np.int64(3) | log_every: np.int64(3) is not of type int: write int(...)
task=t.CausalLMConfig(), batch_size=6, accumulate=4 | accumulate=4 does not divide
"""

MAKERS = {
    "c.OptimizerConfig": """
learning_rate=np.float32(1e-3) | is not of type float: write float(...)
learning_rate="1e-3" | optimizer.learning_rate: '1e-3' is not of type float
learning_rate=0 | optimizer.learning_rate=0 must be positive
learning_rate=1e20 | optimizer.learning_rate=1e+20 is out of range
learning_rate=float("nan") | optimizer.learning_rate=nan is not a finite number
name="adam" | optimizer.name: 'adam' is not one of adamw, sgd, adafactor
name=["adamw"] | optimizer.name: ['adamw'] is not one of
schedule="cos" | optimizer.schedule: 'cos' is not one of
warmup_steps=1.5 | optimizer.warmup_steps: 1.5 is not of type int
warmup_steps=-1 | optimizer.warmup_steps=-1 must not be negative
eps=0.0 | optimizer.eps=0.0 must be positive
eps=-1e-8 | optimizer.eps=-1e-08 must be positive
b1=1.0 | optimizer.b1=1.0 is not in [0, 1)
b2=True | optimizer.b2: True is not of type float
weight_decay=-0.1 | optimizer.weight_decay=-0.1 must not be negative
clip_norm=-1 | optimizer.clip_norm=-1 must not be negative
clip_norm=None | optimizer.clip_norm: None is not of type float
""",
    "c.DecoderConfig": """
rope_theta=0 | model.rope_theta=0 must be positive
rope_theta=-1e4 | model.rope_theta=-10000.0 must be positive
rope_local_theta=0.0 | model.rope_local_theta=0.0 must be positive
rope_theta=1e20 | model.rope_theta=1e+20 is out of range
norm_eps=0.0 | model.norm_eps=0.0 must be positive
norm_eps=-1e-5 | model.norm_eps=-1e-05 must be positive
init_std=0.0 | model.init_std=0.0 must be positive
init_std=-0.02 | model.init_std=-0.02 must be positive
init_std=float("inf") | model.init_std=inf is not a finite number
dim=64.0 | model.dim: 64.0 is not of type int: write 64
dim=0 | model.dim=0 must be at least 1
num_layers=True | model.num_layers: True is not of type int
num_layers=10**9 | model.num_layers=1000000000 must be at most 10,000
num_heads=3 | model.num_heads=3 does not divide
num_kv_heads=3 | model.num_kv_heads=3 does not divide
vocab_size=2**31 | model.vocab_size=2147483648 must be below 2^31
dropout=1.0 | model.dropout=1.0 is not in [0, 1)
dropout=-0.1 | model.dropout=-0.1 is not in [0, 1)
attention_softcap=0.0 | model.attention_softcap=0.0 must be positive
attention_scale=0.0 | model.attention_scale=0.0 must be positive
embedding_scale=0.0 | model.embedding_scale=0.0 must be positive
residual_scale=-1.0 | model.residual_scale=-1.0 must be positive
logit_scale=0.0 | model.logit_scale=0.0 must be positive
alibi_scale=-1.0 | model.alibi_scale=-1.0 must be positive
swiglu_gain=0.0 | model.swiglu_gain=0.0 must be positive
swiglu_limit=-1.0 | model.swiglu_limit=-1.0 must be positive
router_balance=-0.1 | model.router_balance=-0.1 must not be negative
experts_per_token=0 | model.experts_per_token=0 must be at least 1
experts_per_token=1 | model.experts_per_token=1 has no effect without model.num_experts
num_experts=4, experts_per_token=5 | model.experts_per_token=5 is not between 1 and
router_jitter=1.0 | model.router_jitter=1.0 is not in [0, 1)
rope_fraction=0.0 | model.rope_fraction=0.0 is not in (0, 1]
activation="swish" | model.activation: 'swish' is not one of
tie_embeddings="no" | model.tie_embeddings: 'no' is not of type bool
tie_embeddings=0 | model.tie_embeddings: 0 is not of type bool
window=0 | model.window=0 must be at least 1
biases="norm" | model.biases
layer_pattern=("all",) | model.layer_pattern=('all',) may contain only local and global
rope_scaling=2.0 | model.rope_scaling is 2.0, not a RopeScaling
""",
    "c.EncoderConfig": """
num_token_types=-1 | model.num_token_types=-1 must not be negative
embedding_dim=0 | model.embedding_dim=0
head_activation="elu" | model.head_activation: 'elu' is not one of
""",
    "c.DataConfig": """
train="a.txt" | data.train is the text 'a.txt', not a tuple: write ('a.txt',)
train=(1,) | data.train[0]: 1 is not of type str
train=(pathlib.Path("a.txt"),) | data.train[0]: PosixPath('a.txt') is not of type str
train=() | data.train has no source
weights=(0.0,) | data.weights[0]=0.0 must be positive
weights=(1.0, 2.0) | data.weights has 2 numbers for the 1 sources
weights=("1",) | data.weights[0]: '1' is not of type float
temperature=0.0 | data.temperature=0.0 must be positive
seq_len=64.0 | data.seq_len: 64.0 is not of type int: write 64
seq_len=1 | data.seq_len=1 must be at least 2
validation_fraction=1.0 | data.validation_fraction=1.0 is not in [0, 1)
workers=-1 | data.workers=-1 must not be negative
workers=100000 | data.workers=100000 must be at most 1,000
max_documents=0 | data.max_documents=0 must be at least 1
max_documents=0.5 | data.max_documents: 0.5 is not of type int
text_column=None | data.text_column: None is not of type str
text_unit="word" | data.text_unit: 'word' is not one of file, line, paragraph
on_bad_row=True | data.on_bad_row: True is not one of error, skip
tokenizer="a.json" | data.tokenizer is the text 'a.json', not a TokenizerConfig
columns="text" | data.columns is the text 'text', not a tuple
""",
    "c.TokenizerConfig": """
path=3 | data.tokenizer.path: 3 is not of type str
vocab_size=8192.0 | data.tokenizer.vocab_size: 8192.0 is not of type int: write 8192
vocab_size=3 | data.tokenizer.vocab_size=3 must be at least 16
kind="bert" | data.tokenizer.kind: 'bert' is not one of
cleaning=True | data.tokenizer.cleaning is True, not a CleaningConfig
""",
    "c.MeshConfig": """
data=0 | mesh.data=0 must be at least 1, or -1
data=-2 | mesh.data=-2 must be
fsdp=2.0 | mesh.fsdp: 2.0 is not of type int: write 2
tensor="2" | mesh.tensor: '2' is not of type int
data=-1, fsdp=-1 | only one axis of the mesh may be -1
""",
    "c.CheckpointConfig": """
every=0 | checkpoint.every=0 must be at least 1
keep=-1 | checkpoint.keep=-1 must be at least 1
keep_every=0 | checkpoint.keep_every=0 must be at least 1
keep_best="yes" | checkpoint.keep_best: 'yes' is not of type bool
""",
    "c.EvaluationConfig": """
every=0 | evaluation.every=0 must be at least 1
batches=0 | evaluation.batches=0 must be at least 1
patience=-1 | evaluation.patience=-1 must be at least 1
every=1e3 | evaluation.every: 1000.0 is not of type int: write 1000
""",
    "c.DistributedConfig": """
timeout=0 | distributed.timeout=0 must be at least 1
timeout=-5 | distributed.timeout=-5 must be at least 1
process_id=0 | go together
coordinator="a:1", num_processes=0, process_id=0 | distributed.num_processes=0 must be at least 1
coordinator="a:1", num_processes=2, process_id=-1 | distributed.process_id=-1 must not be
coordinator=8000, num_processes=2, process_id=0 | distributed.coordinator: 8000 is not of type str
""",
    "c.CurriculumConfig": """
ends=(1.5,), seq_lens=(8,) | curriculum.ends[0]: 1.5 is not of type int
ends=3, seq_lens=(8,) | curriculum.ends is 3, not a tuple: write (3,)
ends=(0,), seq_lens=(8,) | must be steps in ascending order
ends=(5,), batch_sizes=(0,) | curriculum.batch_sizes[0]=0 must be at least 1
""",
    "c.PhaseConfig": """
end=0 | phases: end=0 must be at least 1
end_fraction=0.0 | phases: end_fraction=0.0 is not between 0 and 1
turns=("rest",) | phases.turns[0] is the text 'rest', not a tuple
reset="head/*" | phases.reset is the text 'head/*', not a tuple
""",
    "c.GroupConfig": """
name="a", params="head/*" | groups.params is the text 'head/*', not a tuple
name=3, params=("head/*",) | groups.name: 3 is not of type str
name="a", params=("*",), rate=0.0 | rate=0.0
name="a", params=("*",), rate=float("inf") | groups.rate=inf is not a finite number
name="a", params=("*",), optimizer="lion" | groups.optimizer is the text 'lion', not a OptimizerConfig
""",
    "c.ComputeConfig": """
unroll=-1 | compute.unroll=-1 must
dtype="float8" | compute.dtype: 'float8' is not one of
remat=True | compute.remat: True is not one of
""",
    "c.LoraConfig": """
rank=8.0 | lora.rank: 8.0 is not of type int: write 8
rank=-1 | lora.rank=-1 must not be negative
rank=8, alpha=0.0 | lora.alpha=0.0 must be positive
rank=8, targets="query" | lora.targets is the text 'query', not a tuple
""",
    "c.RopeScaling": """
kind="linear", factor=0.0 | model.rope_scaling.factor=0.0 must be positive
kind="cubic", factor=2.0 | model.rope_scaling.kind: 'cubic' is not one of
kind="linear", factor=2.0, original_max_len=0 | original_max_len=0 must be at least 1
""",
    "c.VAEConfig": """
latent_dim=0 | model.latent_dim=0 must be at least 1
mean_scale=-1.0 | model.mean_scale=-1.0 must not be negative
inject="memory" | model.inject is the text 'memory', not a tuple
encoder=c.DecoderConfig() | not a EncoderConfig
""",
    "t.CausalLMConfig": """
z_loss=-1e-4 | task.z_loss=-0.0001 must not be negative
label_smoothing=-0.1 | task.label_smoothing=-0.1 is not in [0, 1]
label_smoothing=1.5 | task.label_smoothing=1.5 is not in [0, 1]
shift_windows="no" | task.shift_windows: 'no' is not of type bool
""",
    "t.ClassificationConfig": """
labels="ab" | task.labels is the text 'ab', not a tuple: write ('ab',)
labels=(0, 1) | task.labels[0]: 0 is not of type str
dropout=2.0 | task.dropout=2.0 is not in [0, 1]
label_smoothing=-0.1 | task.label_smoothing=-0.1 is not in [0, 1]
pooling="max" | task.pooling: 'max' is not one of
""",
    "t.TextToTextConfig": """
num_beams=0 | task.num_beams=0 must be
num_beams=4.0 | task.num_beams: 4.0 is not of type int: write 4
length_penalty=float("nan") | task.length_penalty=nan is not a finite number
""",
    "t.MaskedLMConfig": """
mask_fraction=0.0 | task.mask_fraction=0.0 is not between 0 and 1
mask_fraction="15%" | task.mask_fraction: '15%' is not of type float
mask_token_fraction=0.8, random_token_fraction=0.3 | add up to at most 1
""",
}  # fmt: skip
CASES = [("c.TrainConfig", *row.rsplit(" | ", 1)) for row in PLAIN.strip().splitlines()]
CASES += [
    (maker, *row.rsplit(" | ", 1))
    for maker, rows in MAKERS.items()
    for row in rows.strip().splitlines()
]


@pytest.mark.parametrize(("maker", "fields", "message"), CASES)
def test_a_bad_config_names_field_and_value(maker, fields, message):
    names = {"c": c, "t": t, "np": np, "pathlib": pathlib}
    with pytest.raises(ValueError, match=re.escape(message)) as e:
        eval(f"{maker}({fields})", names)
    assert "\n" not in str(e.value)


FLAGS = """
--steps 8.0 | --steps 8.0: not a whole number
--steps 0 | steps=0 must be at least 1
--steps 100000000000000000000 | steps=100000000000000000000 must be below 2^31
--steps True | --steps True: not a whole number
--profile 3 | --profile 3: must be {INT INT}|None
--profile a b | --profile a b: must be {INT INT}|None
--curriculum.ends x | --curriculum.ends x: must be [INT [INT ...]]
--profile 3 4 5 | --profile 3 4 5: must be {INT INT}|None
--seed -1 | seed=-1 must not be negative
--seed 9223372036854775808 | seed=9223372036854775808 must be below 2^32
--batch-size 0 | batch_size=0 must be at least 1
--optimizer.learning-rate 1e20 | optimizer.learning_rate=1e+20 is out of range
--optimizer.learning-rate nan | optimizer.learning_rate=nan is not a finite number
--optimizer.learning-rate ten | --optimizer.learning-rate ten: not a number
--optimizer.eps 0 | optimizer.eps=0.0 must be positive
--optimizer.name adam | --optimizer.name adam: not one of
--optimizer.name lion --optimizer.eps 1e-6 | optimizer.eps=1e-06 has no effect
--model.rope-theta 0 | model.rope_theta=0.0 must be positive
--model.init-std -1 | model.init_std=-1.0 must be positive
--model.norm-eps 0 | model.norm_eps=0.0 must be positive
--model.dim 7 | does not divide model.dim=7
--task.z-loss -1 | task.z_loss=-1.0 must not be negative
--task.label-smoothing -0.1 | task.label_smoothing=-0.1 is not in [0, 1]
--data.seq-len 1 | data.seq_len=1 must be at least 2
--mesh.fsdp 0 | mesh.fsdp=0 must be at least 1
--distributed.timeout 0 | distributed.timeout=0 must be at least 1
--evaluation.batches 0 | evaluation.batches=0 must be at least 1
--checkpoint.keep 0 | checkpoint.keep=0 must be at least 1
--accumulate 3 --batch-size 4 | accumulate=3 does not divide batch_size=4
--stpes 3 | did you mean --steps?
"""


@pytest.mark.parametrize(
    ("flags", "message"), [row.rsplit(" | ", 1) for row in FLAGS.strip().splitlines()]
)
def test_a_bad_option_is_one_line(flags, message):
    with pytest.raises(ValueError, match=re.escape(message)) as e:
        arguments.read_config(flags.split(), c.TrainConfig, quickstart.pretraining, "jaxlm train")
    assert "\n" not in str(e.value)


COMMANDS = """
evaluate HERE --batch-size 0 | --batch-size 0: must be at least 1
evaluate HERE --batch-size -3 | --batch-size -3: must be at least 1
evaluate HERE --seq-len 0 | --seq-len 0: must be at least 1
evaluate HERE --bootstrap -1 | --bootstrap -1: must not be negative
evaluate HERE --stride 0 | --stride 0: must be at least 1
evaluate HERE --limit 0 | --limit 0: must be at least 1
evaluate HERE --seed -1 | --seed -1: must not be negative
evaluate HERE --seed 9223372036854775808 | --seed 9223372036854775808: must be at most 4294967295
evaluate HERE --batch-size 8.0 | --batch-size 8.0: not a whole number
predict HERE --data a --batch-size 0 | --batch-size 0: must be at least 1
predict HERE --data a --seq-len -1 | --seq-len -1: must be at least 1
report HERE --batch-size 0 | --batch-size 0: must be at least 1
report HERE --bootstrap -1 | --bootstrap -1: must not be negative
report HERE --bootstrap 2000000000 | --bootstrap 2000000000: must be at most 1000000
audit HERE --train a --bootstrap -1 | --bootstrap -1: must be at least 1
explain HERE --text a --out x.html --integration-steps 0 | --integration-steps 0: must be at least 1
explain HERE --text a --out x.html --seed -1 | --seed -1: must not be negative
generate HERE --prompt a --n 0 | --n 0: must be at least 1
generate HERE --prompt a --slots 0 | --slots 0: must be at least 1
generate HERE --prompt a --beams 0 | --beams 0: must be at least 1
generate HERE --prompt a --beams 99999999 | --beams 99999999: must be at most 1000
generate HERE --prompt a --lookahead 0 | --lookahead 0: must be at least 1
generate HERE --prompt a --length-penalty nan | --length-penalty nan: must be a finite number
serve HERE --slots 0 | --slots 0: must be at least 1
serve HERE --max-len 0 | --max-len 0: must be at least 1
serve HERE --port 70000 | --port 70000: must be between 0 and 65535
serve HERE --limits.seconds inf | limits.seconds=inf must be above 0
vae sample HERE --n 0 | --n 0: must be at least 1
vae sample HERE --temperature -1 | --temperature -1.0: must be a number from 0
vae sample HERE --seed -1 | --seed -1: must not be negative
vae interpolate HERE a b --steps 1 | --steps 1: must be at least 2
vae traverse HERE a --dim -1 | --dim -1: must not be negative
vae neighbours HERE a --k 0 | --k 0: must be at least 1
vae map HERE --limit 1 | --limit 1: a map needs at least two texts
tokenize a.txt HERE --processes -1 | processes=-1 must not be negative
tokenize a.txt HERE --processes 1000000 | processes=1000000 must be at most 1,000
tokenize a.txt HERE --shard-tokens 0 | shard_tokens=0 must be at least 1
"""


@pytest.mark.parametrize(
    ("command", "message"), [row.rsplit(" | ", 1) for row in COMMANDS.strip().splitlines()]
)
def test_a_bad_option_of_a_command_is_one_line(command, message, tmp_path, capsys):
    assert main([str(tmp_path) if word == "HERE" else word for word in command.split()]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


FILES = """
import sys; sys.exit(0) | the file ends the program (sys.exit)
def get_config(): import sys; sys.exit(0) | the file ends the program (sys.exit)
def get_config(): raise SystemExit | the file ends the program (sys.exit)
def get_config(): return None | get_config() gives NoneType
def get_config(): return {"steps": 3} | get_config() gives dict
def get_config(): return c.TrainConfig(task=t.CausalLMConfig(), steps="3") | :2: steps: '3' is not of type int
def get_config(): return c.TrainConfig(task=t.CausalLMConfig(), steps=8.0) | :2: steps: 8.0 is not
def get_config(): return c.TrainConfig(task=t.CausalLMConfig(), run_dir=5) | :2: run_dir: 5 is not of
def get_config(): return c.TrainConfig(task=t.CausalLMConfig(), stpes=5) | did you mean steps?
def get_config(): return c.OptimizerConfig(learning_rate="1") | :2: optimizer.learning_rate: '1' is
def get_config(): return 1 / 0 | :2: ZeroDivisionError
def get_config(: pass | :2: SyntaxError
get_config = 3 | get_config is 3, not a function
x = 3 | has no function get_config()
"""


@pytest.mark.parametrize(
    ("line", "message"), [row.rsplit(" | ", 1) for row in FILES.strip().splitlines()]
)
def test_a_bad_config_file_names_field_and_line(line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "bad.py", pathlib.Path("bad.py")):
        path.write_text(f"from jaxlm import config as c, tasks as t\n{line}\n")
        with pytest.raises(ValueError, match=re.escape(message)) as e:
            files.load_python(path)
        assert str(e.value).startswith(str(path))
        assert "\n" not in str(e.value)
