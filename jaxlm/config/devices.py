"""Options of the devices: the mesh, and the processes that share it."""

from __future__ import annotations

import dataclasses

from jaxlm.config.values import check_at_least, check_values


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The shape of the device mesh, which defines the sharding strategy; one axis may be -1: all remaining devices."""

    # data parallelism: every replica has all parameters and a part of the batch
    data: int = -1
    # parameters, optimizer state and batch are split over this axis
    fsdp: int = 1
    # experts are split over this axis, and the batch, as over fsdp; so are all other parameters
    expert: int = 1
    # the positions of each row are split over this axis, and parameters, as over fsdp
    context: int = 1
    # heads, MLP and vocabulary are split over this axis
    tensor: int = 1

    def __post_init__(self):
        check_values(self, "mesh")
        sizes = dataclasses.asdict(self)
        if list(sizes.values()).count(-1) > 1:
            raise ValueError(f"only one axis of the mesh may be -1, not several: {sizes}")
        for name, size in sizes.items():
            if size < 1 and size != -1:
                raise ValueError(
                    f"mesh.{name}={size} must be at least 1, or -1 for the remaining devices"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """Several processes; under SLURM and on TPU pods `--distributed.enable` is enough."""

    # join the other processes, by the metadata of SLURM or the TPU pod
    enable: bool = False
    # host:port of process 0
    coordinator: str | None = None
    # total number of processes
    num_processes: int | None = None
    # index of this process, from 0
    process_id: int | None = None
    # seconds that processes wait for each other at the start
    timeout: int = 300
    # the run ends, and says which process hangs, when no step has ended for this many minutes; 0: never
    hang_minutes: float = 10.0
    # and for this many times as long as a step usually takes
    hang_factor: float = 30.0

    def __post_init__(self):
        check_values(self, "distributed")
        check_at_least(self, "distributed.", 0, "hang_minutes", "hang_factor")
        check_at_least(self, "distributed.", 1, "num_processes", "timeout")
        check_at_least(self, "distributed.", 0, "process_id")
        given = [self.coordinator, self.num_processes, self.process_id]
        if any(x is not None for x in given) and any(x is None for x in given):
            raise ValueError(
                "distributed.coordinator, distributed.num_processes and distributed.process_id go together; "
                "set all three, or only --distributed.enable under SLURM or on a TPU pod"
            )
