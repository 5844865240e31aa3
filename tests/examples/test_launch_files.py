"""The files of examples/launch/: the shell accepts them, Kubernetes' fields are there, and their commands parse."""

import pathlib
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from jaxlm.cli import arguments
from jaxlm.config import TrainConfig
from jaxlm.run import quickstart

REPOSITORY = pathlib.Path(__file__).parents[2]
LAUNCH = REPOSITORY / "examples" / "launch"


def parsed(argv):
    """The config of a command, without its config file, which is on another machine."""
    return arguments.read_config(argv, TrainConfig, quickstart.pretraining, "jaxlm train")


def test_the_job_of_slurm_trains_with_all_its_processes():
    path = LAUNCH / "slurm.sh"
    if shutil.which("bash"):
        subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text()
    [line] = re.findall(r"jaxlm train (.*)", text)
    words = shlex.split(line.replace("${SLURM_JOB_NAME}", "jaxlm"))
    assert words.pop(0) == "$@"
    config = parsed(words)
    assert config.distributed.enable
    assert config.compute.flags == "auto"
    # the exit code of a run that has saved and stopped
    assert '"$code" -eq 143' in text


@pytest.mark.parametrize("name", ["jobset_tpu", "jobset_gpu"])
def test_job_sets_start_the_run_again_on_all_hosts(name):
    job = yaml.safe_load((LAUNCH / f"{name}.yaml").read_text())
    assert (job["kind"], job["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
    assert job["spec"]["failurePolicy"]["maxRestarts"] > 0
    [workers] = job["spec"]["replicatedJobs"]
    spec = workers["template"]["spec"]
    # one pod that fails ends the job, which the set starts again
    assert spec["backoffLimit"] == 0
    [container] = spec["template"]["spec"]["containers"]
    command = [*container["command"], *container.get("args", [])]
    assert command[:2] == ["jaxlm", "train"]
    config = parsed([w.replace("$(JOB_COMPLETION_INDEX)", "1") for w in command[3:]])
    assert config.compute.flags == "auto"
    devices = spec["completions"] * next(iter(container["resources"]["limits"].values()))
    assert config.mesh.data * config.mesh.fsdp * config.mesh.tensor == devices
    assert config.distributed.enable or config.distributed.num_processes == spec["completions"]


def test_the_commands_of_the_guide_parse():
    text = (REPOSITORY / "docs/launch.md").read_text()
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    [job] = re.findall(r"sbatch examples/launch/slurm.sh (.*)", blocks)
    [pod] = re.findall(r"jaxlm train (.*?) > log", blocks)
    for line in (job, pod):
        file, *rest = shlex.split(line)
        assert (REPOSITORY / file).exists()
        parsed(rest)
