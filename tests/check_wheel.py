"""Tests a wheel of jaxlm in an empty environment: it has all files, and a command runs outside of the source tree.

    python tests/check_wheel.py WHEEL

The environment is new and has no jaxlm but the wheel's; its other packages are those of the calling environment.
"""

import os
import pathlib
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
FIRST_COMMAND = [
    "train",
    "--steps",
    "2",
    "--optimizer.warmup-steps",
    "1",
    "--evaluation.batches",
    "1",
]
FIRST_COMMAND += ["--model.num-layers", "1", "--model.dim", "32", "--run-dir", "first"]


def main(wheel: pathlib.Path) -> None:
    """Raises an error if a file is missing or the command fails."""
    tracked = subprocess.run(
        ["git", "ls-files", "jaxlm"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    missing = set(tracked) - set(zipfile.ZipFile(wheel).namelist())
    assert not missing, f"not in the wheel: {sorted(missing)}"
    with tempfile.TemporaryDirectory() as folder:
        environment = pathlib.Path(folder, "venv")
        venv.create(environment, with_pip=True)
        python = environment / "bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
        # the dependencies of this environment, without its editable jaxlm: .pth files of a path are not read
        variables = {
            "PYTHONPATH": sysconfig.get_paths()["purelib"],
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }
        where = subprocess.run(
            [python, "-c", "import jaxlm; print(jaxlm.__file__)"],
            cwd=folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert str(environment) in where, f"another jaxlm is imported: {where}"
        subprocess.run(
            [environment / "bin/jaxlm", *FIRST_COMMAND],
            cwd=folder,
            env=os.environ | variables,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        assert pathlib.Path(folder, "first/summary.json").is_file()
    print(f"{wheel.name}: {len(tracked)} files, and the first command runs")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).absolute())
