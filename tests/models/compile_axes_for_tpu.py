"""Compiles losses and gradients whose positions or experts are split over four TPU chips, on a machine that has none,
and prints which kernels and collectives are in them; a script of test_tpu_axes.py, which runs it in a process of its
own."""

import json
import math
import os
import re
import sys

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    # no lock file: nothing here touches a chip
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding

from jaxlm import sharding
from jaxlm.config import ComputeConfig, DecoderConfig, MeshConfig, llama_style
from jaxlm.models.heads import CausalLM, init_params, unembedding
from jaxlm.ops.losses import token_cross_entropy

SIZES = dict(
    **llama_style(), vocab_size=256, dim=256, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64
)
# name -> shape of the mesh, rows, positions, changes of the model
PROGRAMS = {
    "context": (dict(context=4), 1, 2048, {}),
    "long": (dict(context=4), 1, 32768, {}),
    "expert": (dict(expert=4), 4, 256, dict(num_experts=8, experts_per_token=2, mlp_dim=512)),
}
COLLECTIVES = "all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all"


def facts(chips: list, sizes: dict, rows: int, length: int, changes: dict) -> dict:
    """Kernels, collectives (bytes of their results on a chip), and the largest arrays."""
    mesh = sharding.make_mesh(MeshConfig(**{"data": 1, **sizes}), chips)
    model = CausalLM(
        DecoderConfig(**SIZES | changes, max_len=length),
        ComputeConfig(dtype="bfloat16", remat="full"),
    )

    def loss(params, tokens, segment_ids):
        hidden = model.apply({"params": params}, tokens, method="hidden", segment_ids=segment_ids)
        return token_cross_entropy(
            hidden, unembedding(params), tokens, jnp.ones(tokens.shape, jnp.float32)
        ).loss

    placed = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    params = jax.tree.map(placed, params, sharding.param_shardings(params, mesh))
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    tokens = placed(tokens, NamedSharding(mesh, sharding.spec("batch", None)))
    # the abstract mesh: a mesh with chips would have eager operations of the trace run on them
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        compiled = jax.jit(jax.value_and_grad(loss)).lower(params, tokens, tokens).compile()
    hlo = compiled.as_text()
    if len(sys.argv) > 1:
        with open(f"{sys.argv[1]}_{'_'.join(sizes)}_{length}.txt", "w") as file:
            file.write(hlo)
    found: dict[str, list[str]] = {}
    for shape, kind in re.findall(rf"= \(?(\w+\[[\d,]*\])[^=]*? ({COLLECTIVES})(?:-start)?\(", hlo):
        found.setdefault(kind, []).append(shape)
    return {
        "kernels": sorted(set(re.findall(r"splash_mha_\w+?(?=[._\"])", hlo))),
        "calls": hlo.count('custom_call_target="tpu_custom_call"'),
        "collectives": {kind: sorted(shapes) for kind, shapes in found.items()},
        "shapes": sorted(set(re.findall(r"\b(?:bf16|f32|pred|s32)\[[\d,]*\]", hlo)), key=_elements)[
            -5:
        ],
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
        "flops": compiled.cost_analysis()["flops"],
    }


def _elements(shape: str) -> int:
    return math.prod(int(n) for n in re.findall(r"(?<=[\[,])\d+", shape))


def main():
    chips = list(topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices)
    for name, program in PROGRAMS.items():
        print(json.dumps({name: facts(chips, *program)}), flush=True)


if __name__ == "__main__":
    main()
