"""peft tuners: every tuner of the installed `peft` that adapts layers, with peft's own options."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench.api.method import Batch, Method
from bench.api.peft import PeftAdapter
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import Delta, matricize
from methods.common.peft import PREFIX as WRAPPED
from methods.common.peft import target_modules
from methods.peft_tuner import layers
from methods.peft_tuner.config import PREFIX, PeftTunerConfig

REFUSALS = (ValueError, TypeError, NotImplementedError, ImportError, RuntimeError, ArithmeticError, KeyError)
"""What peft's tuners raise for bad values, shapes and layers, and for missing packages."""


@dataclass(frozen=True)
class Adapted:
    """A layer of peft's, `tuned`, and the layer that it replaced."""

    tuned: Any
    base: nn.Module


class PeftTuner(Method):
    """Adapts layers by one of peft's tuners (see `PeftTunerConfig`)."""

    Config: ClassVar[type[MethodConfig]] = PeftTunerConfig
    config: PeftTunerConfig
    tuner: ClassVar[str]
    _notes: Sequence[str] = ()

    @classmethod
    @cache
    def of(cls, tuner: str) -> type[PeftTuner]:
        """Raises UsageError or EnvironmentProblem as `PeftTunerConfig.of` does."""
        return type("PeftTuner", (cls,), {"Config": PeftTunerConfig.of(tuner), "tuner": tuner, "__doc__": cls.__doc__})

    def adapt(self, batch: Batch) -> None:
        """Wrap the network with peft, with torch's generator seeded, since tuners draw from it.

        Raises:
            UsageError: peft refuses these options on this network.
        """
        from peft import get_peft_model

        self.backbone.requires_grad_(False)
        self._is_bare = not isinstance(getattr(self.backbone, "model", None), nn.Module)
        if self._is_bare:
            self.backbone = layers.ModelHolder(self.backbone)
        network: Any = self.backbone.model
        options = {key: value for key, value in vars(self.config).items() if key != "target"}
        chosen, self._notes = layers.find_layers(network, self.config.target)
        layers.check_layers(self.tuner, network, chosen)
        options |= layers.network_options(self.tuner, network, chosen, options)
        before = {id(tensor) for tensor in self.state_dict(keep_vars=True).values()}
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(self.seed)
            try:
                config = self._classes()[0](target_modules=target_modules(chosen), **options)
                self.backbone.model = get_peft_model(network, config)
            except REFUSALS as error:
                raise self._refused(" ".join(str(error).split())[:300] or type(error).__name__) from error
        if not [*self.layers()]:
            raise self._refused(f"it adapts none of {len(chosen)} layers, such as {network.get_submodule(chosen[0])}")
        added: dict[int, str] = {}
        for name, tensor in self.state_dict(keep_vars=True).items():
            if id(tensor) not in before or tensor.requires_grad:  # the shortest name of a shared tensor is its owner's
                added[id(tensor)] = min(added.get(id(tensor), name), name, key=len)
        self._names = frozenset(added.values())

    def _refused(self, why: str) -> UsageError:
        return UsageError(
            f"peft cannot build {PREFIX}{self.tuner} with these options",
            "\n".join([why, *self._notes]),
            f"`bench show {PREFIX}{self.tuner}` describes them.",
        )

    def warnings(self) -> list[str]:
        """Say how layers were chosen that the target does not name."""
        return [*self._notes]

    @classmethod
    def _classes(cls) -> tuple[Any, Any]:
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

        kind = PeftType(cls.tuner.upper())
        return PEFT_TYPE_TO_CONFIG_MAPPING[kind], PEFT_TYPE_TO_TUNER_MAPPING[kind]

    def layers(self) -> Iterator[tuple[str, Adapted]]:
        """Yield the adapted layers by the names that they have without peft, in the order of the network."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        inside = "" if self._is_bare else "model."
        for name, module in self.backbone.get_submodule("model").named_modules():
            if isinstance(module, BaseTunerLayer):
                yield f"{inside}{name.removeprefix(WRAPPED)}", Adapted(module, module.get_base_layer())

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        """Yield ΔW of every adapted linear layer and convolution, by merging a copy; nothing if peft cannot merge."""
        for name, layer in self.layers():
            if not isinstance(layer.base, nn.Linear | nn.Conv2d):
                continue
            weight = layer.base.weight.detach()
            try:
                difference = _difference(layer.tuned, weight)
            except NotImplementedError:  # peft cannot merge this tuner (lily), so there is no W'
                return
            difference = matricize(difference.to(weight.dtype))
            yield name, Delta(factors=(difference,), nominal=min(difference.shape))

    def export(self) -> dict[str, Tensor]:
        """Return what was trained, and what peft adds, such as frozen projections; each tensor once."""
        return {name: t for name, t in self.state_dict().items() if name in self._names}

    @classmethod
    def peft(cls, config: MethodConfig, tensors: dict[str, Tensor]) -> PeftAdapter:
        """Return what peft's own save_pretrained would write."""
        (kind, model), place = cls._classes(), "backbone.model."
        inside = {n.removeprefix(place).replace(".default", ""): t for n, t in tensors.items() if n.startswith(place)}
        pattern = re.compile(rf"{re.escape(WRAPPED)}(.+?)\.{re.escape(model.prefix)}")
        names = sorted({match[1] for name in inside if (match := pattern.match(name))})
        if not names:
            raise UsageError(
                f"the adapter of this {PREFIX}{cls.tuner} does not name its layers",
                f"its tensors: {', '.join(sorted(inside))}",
                "Train with the option that saves its indices, if the tuner has one.",
            )
        options = {key: value for key, value in vars(config).items() if key != "target"}
        options |= layers.tensor_options(cls.tuner, inside, names)
        written = {
            **kind(target_modules=target_modules(names), inference_mode=True, **options).to_dict(),
            "peft_type": cls.tuner.upper(),
        }
        return PeftAdapter({key: sorted(v) if isinstance(v, set) else v for key, v in written.items()}, inside)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {n: t for n, t in checkpoint["state_dict"].items() if n in self._names}


@torch.no_grad()
def _difference(tuned: nn.Module, weight: Tensor) -> Tensor:
    """Return W' − W of one layer, float64, in the shape of the weight."""
    merged: Any = copy.deepcopy(tuned).double()
    merged.merge()
    return merged.get_base_layer().weight - weight.double()
