"""`--strategy fsdp`: the frozen weights of the blocks are sharded over the devices; what trains is whole on each."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from bench.api.method import Method
from bench.core.errors import UsageError


class ShardedFrozenWeights(DDPStrategy):
    """DDP for what trains, and FSDP (`fully_shard`) for the frozen weights of each block.

    The frozen weights are what fills a device. What a parameter-efficient method trains is small: it needs no sharding,
    and every method works on whole tensors, as with DDP. Frozen weights outside the blocks, such as embeddings, stay
    whole too.
    """

    def __init__(self, method: Method, **options: Any) -> None:
        """Args: the adapted method, and options of DDP.

        Raises:
            UsageError: no block has a frozen weight.
        """
        super().__init__(**options)
        frozen = {*method.frozen()}
        blocks = [block for stack in method.stacks.values() for block in stack]
        parameters = {block: {*block.parameters()} for block in blocks}
        self._others = {block: own - frozen for block, own in parameters.items() if own & frozen}
        self._classes: dict[nn.Module, type[nn.Module]] = {}
        if not self._others:
            raise UsageError(
                "--strategy fsdp has nothing to shard",
                f"it shards frozen weights of a network's blocks, and here {type(method).__name__} leaves none",
                "Use --strategy ddp.",
            )

    def model_to_device(self) -> None:
        """Move the network to the device, block by block: it need not fit there as a whole."""
        if not self._classes:
            mesh = init_device_mesh(self.root_device.type, (self.num_nodes * self.num_processes,))
            for block, others in self._others.items():
                self._classes[block] = type(block)  # `fully_shard` gives it another
                fully_shard(block, mesh=mesh, ignored_params=others)
        super().model_to_device()

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        sharded = [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)]
        ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model  # pyright: ignore[reportPrivateUsage]
        ignore(model, sharded)
        return super()._setup_model(model)

    def gather(self) -> None:
        """Put whole weights in the place of shards, on the CPU, after training; every device must call this."""
        for block, kind in self._classes.items():
            block.__class__ = kind
            for module in block.modules():
                for name, parameter in [*module.named_parameters(recurse=False)]:
                    if isinstance(parameter, DTensor):
                        whole = nn.Parameter(parameter.full_tensor().cpu(), requires_grad=False)
                        module.register_parameter(name, whole)
