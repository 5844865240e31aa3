"""Runs in a bucket of S3, whose checkpoints go by way of a local folder; see test_remote_runs.py for what is common."""

import glob
import tempfile

import fake_s3
import numpy as np
import pytest
from runs import losses, small_runs, stored_params, tiny, write_corpus

from jaxlm.checkpoint import places, store
from jaxlm.config import CheckpointConfig
from jaxlm.remote import lease
from jaxlm.run.load import load
from jaxlm.run.pretrain import pretrain

pytestmark = fake_s3.NEEDED


def config_of(folder, run_dir):
    return tiny(folder, "run", run_dir=run_dir, checkpoint=CheckpointConfig(every=4, keep=2))


@pytest.mark.slow
def test_a_run_in_s3_is_that_of_a_local_folder_also_after_kills(tmp_path):
    storage, url = fake_s3.start(), "s3://bucket/runs/first"
    write_corpus(tmp_path)
    states = []
    with small_runs() as patch:
        patch.setattr(lease, "_SETTLES", 0.0)
        pretrain(config_of(tmp_path, str(tmp_path / "local")))
        storage.watch = lambda objects: states.append(dict(objects))
        pretrain(config_of(tmp_path, url))
        storage.watch = lambda objects: None
        mark = "bucket/runs/first/checkpoints/4/commit_success.txt"
        marked = next(i for i, state in enumerate(states) if mark in state)
        # as it is, killed while a checkpoint was sent, and while an old one was removed
        for i in (len(states) - 1, marked - 1, len(states) * 4 // 5):
            storage.objects = dict(states[i])
            pretrain(config_of(tmp_path, url))
            (tmp_path / "metrics.jsonl").write_bytes(
                storage.read("bucket/runs/first/metrics.jsonl")
            )
            assert losses(tmp_path) == losses(tmp_path / "local")
            ours, theirs = stored_params(tmp_path / "local"), stored_params(url)
            assert ours.keys() == theirs.keys()
            for path, x in ours.items():
                np.testing.assert_array_equal(x, theirs[path], err_msg=path)
            assert store.steps(url) == [8, 12]
        assert list(load(url).stream("ann met", max_new_tokens=2, seed=0))
    # only mirrors are left, which go with the process
    left = glob.glob(f"{tempfile.gettempdir()}/jaxlm-*/12")
    assert not left


def test_several_processes_are_refused():
    with pytest.raises(ValueError, match="orbax writes to gs:// and to local folders only"):
        places.BucketPlace("s3://bucket/runs/first/checkpoints").check_processes(2)
