"""What tests of image networks share: small ones of timm, a method on one of them, and its trained values moved."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from bench.api.task import TaskSpec
from bench.config.sections import AllocationConfig, HeadConfig, OptimConfig
from bench.core import registry

TASK = TaskSpec(
    name="toy/images", version=1, modality="image", num_classes=3, metrics=("accuracy",), primary=("accuracy",)
)

R, ALPHA = 4, 6.0
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"rank": R, "alpha": ALPHA}),
    "rslora": ("lora", {"rank": R, "alpha": ALPHA, "scaling": "rank-stabilized"}),
    "pissa": ("lora", {"rank": R, "alpha": ALPHA, "init": "pissa"}),
    "dora": ("lora", {"rank": R, "alpha": ALPHA, "dora": True}),
    "dora+pissa": ("lora", {"rank": R, "alpha": ALPHA, "dora": True, "init": "pissa"}),
    "deeplora": ("deeplora", {"rank": R, "depth": 4}),
    "compressed": ("deeplora", {"rank": R, "form": "compressed"}),
    "adalora": ("adalora", {"rank": R, "alpha": ALPHA}),
}
"""Low-rank methods by a short name: the method and options."""


class Net(nn.Module):
    """timm's network as `model`, its features, and its blocks where it has some."""

    def __init__(self, model: nn.Module, blocks: list[nn.Module] | None = None) -> None:
        super().__init__()
        self.model: Any = model
        self.width: int = self.model.num_features
        if blocks is not None:
            self.__dict__["blocks"] = blocks

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def vit() -> Net:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 0}
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    return _lively(Net(model, [*model.blocks]))


def resnet() -> Net:
    """Four blocks of 8, 12, 16 and 24 channels whose normalisations have statistics of their own."""
    torch.manual_seed(0)
    model = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=0, channels=(8, 12, 16, 24), zero_init_last=False)  # type: ignore[arg-type]
    return _lively(Net(model, [block for i in range(1, 5) for block in getattr(model, f"layer{i}")]))


def convnext() -> Net:
    """Grouped convolutions, and another number of channels between two blocks, outside them."""
    torch.manual_seed(0)
    model: Any = timm.create_model("convnext_atto", num_classes=0, depths=(1, 1, 1, 1), dims=(8, 12, 16, 24))
    return _lively(Net(model, [block for stage in model.stages for block in stage.blocks]))


def swin() -> Net:
    """Images with the channels last."""
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8, "num_heads": (2, 4)}
    torch.manual_seed(0)
    model: Any = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, depths=(1, 1), **sizes)
    return _lively(Net(model, [block for layer in model.layers for block in layer.blocks]))


def _lively(net: Net) -> Net:
    """In float64, evaluation mode, with biases, gains and running statistics that are not those of the start."""
    generator = torch.Generator().manual_seed(1)
    net = net.double().eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.ndim == 1 and tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(0.5 + noise if name.endswith(("weight", "var", "gamma")) else noise - 0.5)
    return net


def images(n: int = 2, size: int = 32, seed: int = 3) -> Tensor:
    return torch.randn(n, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def batch(n: int = 8) -> dict[str, Any]:
    labels = torch.arange(n) % 3
    return {"inputs": {"x": images(n, seed=4)}, "labels": labels, "index": torch.arange(n), "weight": 1.0}


def adapted(name: str, network: nn.Module, *, allocation: dict[str, Any] | None = None, **options: Any) -> Any:
    """The method of that name on the network, adapted, in float64 and evaluation mode."""
    kind: Any = registry.load("methods", name)
    made = kind(
        network,
        TASK,
        kind.Config(**options),
        head=HeadConfig(),
        optim=OptimConfig(),
        lr=1e-3,
        seed=0,
        allocation=AllocationConfig(**(allocation or {})),
    ).double()
    with torch.enable_grad():
        made.adapt(batch())
    return made.double().eval()


@torch.no_grad()
def shake(method: nn.Module, size: float = 0.2) -> None:
    """Move all that trains far from its start."""
    generator = torch.Generator().manual_seed(7)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * size)
