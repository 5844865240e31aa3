"""How a model is executed."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxlm.config.values import check_at_least, check_values


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How a model is executed: affects speed and memory, not results (up to rounding)."""

    # dtype of activations and matrix products; parameters stay float32. auto: bfloat16 on accelerators
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # auto: splash on TPU and cudnn on GPU where they support the arguments, otherwise xla
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"
    # what the backward pass recomputes; none: nothing; minimal: all but matrix products and attention; dots: all but
    # matrix products; offload: as minimal, with the products in host memory; attention: all but attention; full: blocks
    remat: Literal["none", "minimal", "dots", "offload", "attention", "full"] = "none"
    # blocks per step of the scan over layers; 0: all on CPUs and GPUs unless there are many or remat is set, else one
    unroll: int = 0
    # split activations between the layers over mesh.tensor too, by position (Korthikanti et al. 2022, 2205.05198,
    # section 4.2.2): norms, dropout and what is saved of them take 1 / tensor of the memory
    sequence_parallel: bool = False
    # operands of the blocks' matrix products: of dtype, or of 8 bits, in training and after it (`ops.quantized`);
    # experts, embeddings and heads are never quantised
    quantize: Literal["none", "int8", "fp8"] = "none"
    # auto: options of XLA for GPUs and TPUs that overlap communication (docs/launch.md), besides those that XLA_FLAGS
    # or LIBTPU_INIT_ARGS set
    flags: Literal["none", "auto"] = "none"

    def __post_init__(self):
        check_values(self, "compute")
        check_at_least(self, "compute.", 0, "unroll")
