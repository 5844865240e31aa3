"""Which module may import which, read from the source, and what `import jaxlm` costs."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "jaxlm"

CORE = {"config", "params", "sharding", "ops", "nn", "models"}
# part of the package -> the parts of the package that it may import; itself always
ALLOWED = {
    "config": set(),
    "params": set(),
    "sharding": {"config", "params"},
    "ops": {"config"},
    "nn": {"config", "sharding", "ops"},
    "models": {"config", "sharding", "ops", "nn"},
    "data": {"config"},
    "generation": CORE,
    "hf": CORE | {"data"},
    "checkpoint": {"config"},
    "tasks": CORE | {"data", "generation"},
    "report": CORE | {"tasks"},
    "training": CORE | {"data", "checkpoint", "tasks", "report"},
    "run": CORE | {"data", "checkpoint", "generation", "hf", "tasks", "report", "training"},
}
# part of the package -> packages that it must do without
WITHOUT = {
    "config": {"jax", "flax", "optax", "numpy", "tokenizers", "datasets"},
    "params": {"jax", "flax", "optax", "numpy"},
    "sharding": {"flax", "optax"},
    "ops": {"flax", "optax"},
    "nn": {"optax"},
    "models": {"optax"},
    "data": {"flax", "optax"},
}
NEVER = {"torch", "tensorflow", "tensorflow_text", "transformers"}


def part(module: str) -> str:
    """`ops` for `jaxlm.ops.attention`."""
    return module.split(".")[1] if "." in module else ""


def imports(path: pathlib.Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            # `from jaxlm import sharding` imports jaxlm.sharding
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


FILES = {
    str(path.relative_to(ROOT)): imports(path)
    for path in sorted(ROOT.rglob("*.py"))
    if path.parent != ROOT or path.name in ("params.py", "sharding.py")
}


def test_the_files_are_found():
    assert {name.split("/")[0].removesuffix(".py") for name in FILES} >= set(ALLOWED)
    assert "jaxlm.ops.masks" in FILES["ops/attention.py"]
    assert "flax.linen" in FILES["nn/layers.py"]


@pytest.mark.parametrize("name", FILES)
def test_dependencies_run_one_way(name):
    own = name.split("/")[0].removesuffix(".py")
    ours = {part(m) for m in FILES[name] if m.split(".")[0] == "jaxlm"}
    if own in ALLOWED:
        assert ours <= ALLOWED[own] | {own}
    others = {m.split(".")[0] for m in FILES[name]}
    assert not others & (WITHOUT.get(own, set()) | NEVER)


def run(code: str) -> str:
    """What a fresh Python prints, on a CPU."""
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


def test_no_module_takes_a_device_when_it_is_imported():
    # a run on several hosts must be able to call jax.distributed.initialize first
    names = [
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        for path in sorted(ROOT.rglob("*.py"))
        if path.stem not in ("__init__", "__main__")
    ]
    code = f"""
import importlib
from jax._src import xla_bridge
for name in {names}:
    importlib.import_module(name)
    assert not xla_bridge.backends_are_initialized(), name
print("ok")
"""
    assert run(code) == "ok"
