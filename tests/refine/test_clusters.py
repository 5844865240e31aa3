"""Refinements on a Ray cluster of two machines, and as Slurm jobs."""

import json
import os
import stat
import subprocess
import sys

import pytest

pytest.importorskip("datatrove")

from jaxlm.cli.refine import Options, refine_files
from jaxlm.refine import shards
from jaxlm.refine.executors import Slurm
from jaxlm.refine.near_duplicates import NearDuplicates
from jaxlm.refine.recipe import Recipe
from jaxlm.refine.substrings import Substrings

RECIPE = Recipe(
    extraction=None,
    near_duplicates=NearDuplicates(buckets=4, hashes=4),
    substrings=Substrings(length=20),
)


def _inputs(folder):
    folder.mkdir()
    for number in range(2):
        rows = [
            {"id": f"{number}-{i}", "text": " ".join(f"{'ab'[number]}{chr(97 + j)}" * (i + 1) for j in range(26))}
            for i in range(8)
        ]  # fmt: skip
        # the last text of both files is the same
        rows.append({"id": f"{number}-same", "text": "one text that is in both of the files " * 3})
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def _documents(out):
    return [list(shards.read(path)) for path in sorted((out / "documents").iterdir())]


@pytest.mark.slow
def test_a_ray_cluster_of_two_gives_the_same_documents(tmp_path):
    pytest.importorskip("ray")
    source = _inputs(tmp_path / "in")
    here = tmp_path / "here"
    refine_files("test", RECIPE, (source,), here, Options(tasks=2, workers=0))
    # a process of its own, so that nothing of Ray stays in this one
    program = f"""
import pathlib, ray
from ray.cluster_utils import Cluster
from jaxlm.cli.refine import Options, refine_files
from jaxlm.refine.executors import Ray
from tests.refine.test_clusters import RECIPE
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, logging_level=40, log_to_driver=False)
assert ray.cluster_resources()["CPU"] == 2
refine_files("test", RECIPE, ({source!r},), pathlib.Path({str(tmp_path / "there")!r}),
             Options(tasks=2, workers=2, executor="ray"), ray=Ray(memory=0.2))
ray.shutdown()
cluster.shutdown()
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": root, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert _documents(tmp_path / "there") == _documents(here)
    assert len([row for rows in _documents(here) for row in rows]) == 17


@pytest.mark.slow
def test_slurm_jobs_wait_for_each_other_and_do_the_work(tmp_path, monkeypatch, capsys):
    """A stand-in for sbatch runs every job at once, as Slurm would run its array."""
    source = _inputs(tmp_path / "in")
    here, there = tmp_path / "here", tmp_path / "there"
    refine_files("test", RECIPE, (source,), here, Options(tasks=2, workers=0))

    folder = tmp_path / "bin"
    folder.mkdir()
    sbatch = folder / "sbatch"
    log = tmp_path / "sbatch.log"
    sbatch.write_text(
        f"""#!{sys.executable}
import pathlib, re, subprocess, sys
script = pathlib.Path(sys.argv[-1]).read_text()
log = pathlib.Path({str(log)!r})
number = len(log.read_text().splitlines()) + 1 if log.exists() else 1
dependency = [a for a in sys.argv if "dependency" in a] + re.findall("#SBATCH --(dependency=.*)", script)
with log.open("a") as file:
    kind = "work" if "launch_pickled" in script else "statistics"
    print(kind, re.search("array=(.*)", script)[1], dependency, file=file)
print("Submitted batch job", number)
pickled = re.search(r"launch_pickled_pipeline (\\S+)", script)
if pickled:
    import os
    array = re.search(r"array=0-(\\d+)", script)
    for task in range(int(array[1]) + 1):
        subprocess.run([sys.executable, "-c",
            "import sys; from datatrove.tools.launch_pickled_pipeline import main; main()", pickled[1]],
            env={{**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_NODELIST": "node1"}},
            check=True, stderr=subprocess.DEVNULL)
"""
    )
    (folder / "scontrol").write_text("#!/bin/sh\necho node1\n")
    for program in folder.iterdir():
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    with pytest.raises(ValueError, match=r"--slurm\.partition"):
        refine_files("t", RECIPE, (source,), there, Options(tasks=2, executor="slurm"))
    refine_files(
        "test", RECIPE, (source,), there, Options(tasks=2, executor="slurm"), Slurm(partition="cpu")
    )
    assert "submitted 7 jobs" in capsys.readouterr().out
    assert _documents(there) == _documents(here)
    jobs = [line for line in log.read_text().splitlines() if line.startswith("work")]
    assert [line.split()[1].split("%")[0] for line in jobs] == [
        "0-1", "0-3", "0-0", "0-1", "0-0", "0-1", "0-0",
    ]  # fmt: skip
    # every job but the first waits for another
    assert ["afterok" in line for line in jobs] == [False] + [True] * 6
