"""XLA's options for accelerators: added to the environment, and never in place of what it has."""

import dataclasses

import jax
import pytest
from runs import tiny

from jaxlm.config import ComputeConfig, MeshConfig
from jaxlm.training import xla_flags


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A machine of this kind whose backend has not started, with a library that knows some options."""
    monkeypatch.delenv("JAXLM_COMPUTE_FLAGS", raising=False)
    monkeypatch.setattr(xla_flags.xla_bridge, "backends_are_initialized", lambda: False)
    library = tmp_path / "library.so"
    names = [name for name in xla_flags._GPU if "pipelined" not in name]
    library.write_bytes(b"\0".join(name.encode() for name in ["x", *names, *xla_flags._TPU, "y"]))
    monkeypatch.setattr(xla_flags, "_libraries", lambda kind: [library])

    def on(kind):
        monkeypatch.setattr(xla_flags, "accelerator", lambda: kind)
        return monkeypatch

    return on


def config(tmp_path, **mesh):
    return tiny(tmp_path, compute=ComputeConfig(flags="auto"), mesh=MeshConfig(**mesh))


def test_options_of_the_user_stay_and_unknown_ones_are_left_out(fresh, tmp_path):
    patch = fresh("gpu")
    own = "--xla_gpu_enable_latency_hiding_scheduler=false --xla_dump_to=x"
    patch.setenv("XLA_FLAGS", own)
    line = xla_flags.apply(config(tmp_path))
    flags = xla_flags.os.environ["XLA_FLAGS"]
    assert flags.startswith(own + " --xla_gpu_all_reduce_combine_threshold_bytes=1073741824 ")
    assert flags.count("latency_hiding") == 1
    assert "pipelined" not in flags
    assert "xla_gpu_enable_latency_hiding_scheduler as the environment has them" in line
    assert "not known to this XLA: xla_gpu_enable_pipelined_all_gather" in line
    # a second run in the process changes and says nothing
    assert xla_flags.apply(config(tmp_path)) is None
    assert xla_flags.os.environ["XLA_FLAGS"] == flags


def test_tpus_have_a_variable_of_their_own(fresh, tmp_path):
    patch = fresh("tpu")
    patch.setenv("XLA_FLAGS", "")
    patch.delenv("LIBTPU_INIT_ARGS", raising=False)
    assert xla_flags.apply(config(tmp_path)) == "compute.flags=auto: 10 options in LIBTPU_INIT_ARGS"
    assert "--xla_enable_async_all_gather=true" in xla_flags.os.environ["LIBTPU_INIT_ARGS"]
    assert xla_flags.os.environ["XLA_FLAGS"] == ""


def test_products_are_cut_for_a_tensor_axis_and_command_buffers_stay_on_one_gpu():
    tensor = xla_flags.recommended("gpu", True, False)
    assert tensor["xla_gpu_multi_streamed_windowed_einsum"] == "true"
    assert tensor["xla_gpu_enable_command_buffer"] == ""
    alone = xla_flags.recommended("gpu", False, True)
    assert "xla_gpu_enable_command_buffer" not in alone
    assert "xla_gpu_multi_streamed_windowed_einsum" not in alone


def test_an_option_without_effect_is_said(fresh, tmp_path):
    patch = fresh(None)
    assert "there is no GPU and no TPU here" in xla_flags.apply(config(tmp_path))
    patch.setattr(xla_flags.xla_bridge, "backends_are_initialized", lambda: True)
    assert "has started its backend" in xla_flags.apply(config(tmp_path))
    off = dataclasses.replace(config(tmp_path), compute=ComputeConfig())
    assert xla_flags.apply(off) is None


def test_the_installed_jaxlib_knows_the_options_for_gpus():
    libraries = xla_flags._libraries("gpu")
    assert libraries[0].name == "libjax_common.so"
    wanted = xla_flags.recommended("gpu", True, False)
    known = xla_flags._known({**wanted, "xla_gpu_no_such_option": ""}, libraries)
    assert known == list(wanted)


def test_a_platform_that_is_asked_for_decides(monkeypatch):
    for platform, kind in (("cuda", "gpu"), ("tpu,cpu", "tpu"), ("cpu", None)):
        with monkeypatch.context() as patch:
            patch.setattr(xla_flags, "jax", _with_platforms(platform))
            assert xla_flags.accelerator() == kind


def _with_platforms(names):
    import types

    assert jax.config.jax_platforms == "cpu"
    return types.SimpleNamespace(config=types.SimpleNamespace(jax_platforms=names))
