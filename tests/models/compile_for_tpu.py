"""Compiles a training step for four TPU chips and a step of the engine for one, on a machine that has none, and prints
what is in them; a script of
test_tpu.py, which runs it in a process of its own because libtpu is loaded once and for all."""

import json
import os
import re

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    # no lock file: nothing here touches a chip
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding

from jaxlm import sharding
from jaxlm.config import ComputeConfig, DecoderConfig, llama_style
from jaxlm.generation import cache, step, weights
from jaxlm.models.heads import CausalLM, init_params, unembedding
from jaxlm.ops.losses import token_cross_entropy

BATCH, LENGTH = 4, 384
# two periods of the pattern, and one layer after them
CONFIG = DecoderConfig(
    **llama_style(),
    vocab_size=256,
    dim=128,
    num_layers=5,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    max_len=LENGTH,
    window=100,
    layer_pattern=("local", "global"),
)


def lower(implementation: str, mesh: Mesh, remat: str = "dots") -> jax.stages.Lowered:
    """Loss and gradients, batch over fsdp, heads over tensor."""
    compute = ComputeConfig(dtype="bfloat16", attention=implementation, remat=remat)
    model = CausalLM(CONFIG, compute)

    def loss(params, tokens, segment_ids):
        hidden = model.apply({"params": params}, tokens, method="hidden", segment_ids=segment_ids)
        weights = jnp.ones(tokens.shape, jnp.float32)
        return token_cross_entropy(hidden, unembedding(params), tokens, weights).loss

    def placed(x, s):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)

    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    params = jax.tree.map(placed, params, sharding.param_shardings(params, mesh))
    rows = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)
    rows = placed(rows, NamedSharding(mesh, sharding.spec("batch", "seq")))
    # the abstract mesh: a mesh with chips would have eager operations of the trace run on them
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.jit(jax.value_and_grad(loss)).lower(params, rows, rows)


def facts(implementation: str, mesh: Mesh) -> dict:
    """Kernels by name, arrays of the shape of a full attention mask, and operations that only CPUs should have."""
    hlo = lower(implementation, mesh).compile().as_text()
    # rematerialization has barriers of its own
    lowered = lower(implementation, mesh, remat="none")
    return {
        "kernels": sorted(set(re.findall(r"splash_mha_\w+", hlo))),
        "calls": hlo.count('custom_call_target="tpu_custom_call"'),
        "squares": sorted(set(re.findall(rf"\b\w+\[[\d,]*{LENGTH},{LENGTH}\]", hlo))),
        "barriers": lowered.as_text().count("optimization_barrier"),
        "host calls": len(re.findall(r"callback|SendToHost", lowered.as_text())),
    }


def generation_facts(chip) -> dict:
    """Loops, scatters and memory of a step of the engine; its caches are too large for the memory inside of a chip."""
    slots, length = 32, 4096
    config = DecoderConfig(
        **llama_style(), vocab_size=256, dim=128, num_layers=2, num_heads=4, max_len=length
    )
    model = CausalLM(config, ComputeConfig(dtype="bfloat16"))
    mesh = Mesh(
        np.array([chip]).reshape(1, 1, 1, 1, 1), sharding.AXES, axis_types=(AxisType.Auto,) * 5
    )
    params = jax.eval_shape(lambda: weights.by_layer(init_params(model, jax.random.key(0))))
    caches = jax.eval_shape(
        lambda: cache.empty(
            config, rows=slots, length=length, memory=0, block=64, compute=model.compute
        )
    )
    ids = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
    texts = step.Texts(ids(slots), ids(slots), ids(slots, length), ids(slots))
    one = NamedSharding(mesh, jax.P())
    placed = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one)
    params, caches, texts = jax.tree.map(placed, (params, caches, texts))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        compiled = step.forward.lower(model, params, caches, texts, vocab_size=256).compile()
    hlo, memory = compiled.as_text(), compiled.memory_analysis()
    sizes = [x.size * x.dtype.itemsize for x in jax.tree.leaves(caches)]
    return {
        "loops": len(re.findall(r" while\(", hlo)),
        "scatters": len(re.findall(r" scatter\(", hlo)),
        "smallest cache": min(sizes),
        "caches": sum(sizes),
        "in place": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
    }


def main():
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    axis_types = (AxisType.Auto,) * 5
    mesh = Mesh(np.array(chips).reshape(1, 2, 1, 1, 2), sharding.AXES, axis_types=axis_types)
    programs = {name: facts(name, mesh) for name in ("splash", "xla")}
    print(json.dumps(programs | {"generation": generation_facts(chips[0])}))


if __name__ == "__main__":
    main()
