"""Which module may import which, read from the source, and what `import jaxlm` costs."""

import ast
import graphlib
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "jaxlm"

CORE = {"config", "params", "sharding", "ops", "nn", "models"}
# part of the package -> the parts of the package that it may import, besides itself; every part has an entry:
# config, params, sharding, ops <- nn <- models <- generation, hf <- tasks <- report <- training <- run <- cli
ALLOWED = {
    "config": set(),
    "params": set(),
    "sharding": {"config", "params"},
    "ops": {"config"},
    "nn": {"config", "params", "sharding", "ops"},
    "models": {"config", "params", "sharding", "ops", "nn"},
    "remote": {"config"},
    "data": {"config", "remote"},
    "generation": CORE | {"data"},
    "hf": CORE | {"data"},
    "checkpoint": {"config", "remote"},
    "tasks": CORE | {"data", "generation"},
    "report": CORE | {"tasks"},
    "training": CORE | {"remote", "data", "checkpoint", "tasks", "report"},
    "run": CORE
    | {"remote", "data", "checkpoint", "generation", "hf", "tasks", "report", "training"},
}
# a wing: it depends on the core, and only its command imports it
ALLOWED["explain"] = CORE | {"data", "run", "tasks"}
ALLOWED["serve"] = {"config", "data", "generation", "run"}
ALLOWED["audit"] = {"config", "sharding", "data", "generation", "models", "tasks", "report", "run"}
ALLOWED["plan"] = CORE | {"data", "report", "run", "tasks", "training"}
ALLOWED["refine"] = {"config", "data", "report", "run"}
# only the commands import from everywhere, and nothing imports the commands
ALLOWED["cli"] = set(ALLOWED)
# part of the package -> packages that it must do without
WITHOUT = {
    "config": {"jax", "flax", "optax", "numpy", "tokenizers", "datasets"},
    "params": {"jax", "flax", "optax", "numpy"},
    "sharding": {"flax", "optax"},
    "ops": {"flax", "optax"},
    "nn": {"optax"},
    "models": {"optax"},
    "remote": {"jax", "flax", "optax", "numpy"},
    "data": {"flax", "optax"},
}
NEVER = {"torch", "tensorflow", "tensorflow_text", "transformers"}


def module_name(path: pathlib.Path) -> str:
    """`jaxlm.ops.attention`, or `jaxlm.ops` for its `__init__.py`."""
    names = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def part(module: str) -> str:
    """`ops` for `jaxlm.ops.attention`; "" for `jaxlm` itself."""
    return module.partition(".")[2].split(".")[0]


def imports(path: pathlib.Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for name in node.names:
                # `from jaxlm import sharding` imports jaxlm.sharding, `from jaxlm.ops.norms import rms_norm` its module
                module = f"{node.module}.{name.name}"
                names.add(module if module in PATHS else str(node.module))
    return names


PATHS = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
IMPORTS = {module: imports(path) for module, path in PATHS.items()}
# the package itself, and `python -m jaxlm`, only pass on what others define
CHECKED = [module for module in PATHS if module not in ("jaxlm", "jaxlm.__main__")]


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as e:
        return e.args[1]
    return []


def test_the_imports_are_read():
    assert {part(module) for module in CHECKED} == set(ALLOWED), (
        "give each part its line in ALLOWED"
    )
    assert "jaxlm.ops.masks" in IMPORTS["jaxlm.ops.attention"]
    assert "jaxlm.sharding" in IMPORTS["jaxlm.training.loop"]
    assert "jaxlm.report.curves" in IMPORTS["jaxlm.report.run_log"]  # within a function
    assert "flax" in IMPORTS["jaxlm.nn.layers"]
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_no_modules_import_each_other_in_a_circle():
    assert cycle({module: IMPORTS[module] & set(PATHS) for module in PATHS}) == []


@pytest.mark.parametrize("module", CHECKED)
def test_dependencies_run_one_way(module):
    own = part(module)
    parts = {part(m) for m in IMPORTS[module] if m.split(".")[0] == "jaxlm"}
    if own == "cli":
        parts -= {""}  # the version
    assert parts <= ALLOWED[own] | {own}
    others = {m.split(".")[0] for m in IMPORTS[module]}
    assert not others & (WITHOUT.get(own, set()) | NEVER)


def run(code: str) -> str:
    """The output of a fresh Python process, on a CPU."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_is_light():
    heavy = ["datasets", "pandas", "matplotlib", "torch", "tensorflow", "tokenizers", "orbax"]
    assert run(f"import sys, jaxlm; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_a_command_says_what_ctrl_c_does_before_it_imports_more():
    code = "import sys, jaxlm.cli.main; print([m for m in sys.modules if m.startswith('jaxlm')])"
    assert run(code) == str(["jaxlm", "jaxlm.cli", "jaxlm.cli.signals", "jaxlm.cli.main"])


def test_no_module_takes_a_device_when_it_is_imported():
    # a run on several hosts must be able to call jax.distributed.initialize first
    names = [module for module in PATHS if module != "jaxlm.__main__"]
    code = f"""
import importlib
from jax._src import xla_bridge
for name in {names}:
    importlib.import_module(name)
    assert not xla_bridge.backends_are_initialized(), name
print("ok")
"""
    assert run(code) == "ok"
