"""Any tuner of the installed `peft` that adapts layers: VeRA, IA³, OFT, LoHa and more, with peft's own options."""

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

from bench.api.method import Batch, Method, Peft
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import Delta, matricize
from methods.common import peft
from methods.peft_tuner import layers
from methods.peft_tuner.config import PREFIX, PeftTunerConfig

BARE = "base_model.model."
"""Where peft's wrapper holds the network."""
REFUSALS = (ValueError, TypeError, NotImplementedError, ImportError, RuntimeError, ArithmeticError, KeyError)
"""Thirty tuners refuse options in as many ways: bad values and shapes, divisions by them, layers, missing packages."""


@dataclass(frozen=True)
class Adapted:
    """A layer of peft's. `base` is the layer it took the place of, whose weight merging changes."""

    tuned: Any
    base: nn.Module


class PeftTuner(Method):
    """Adapts layers by one of peft's tuners; the equations are in `PeftTunerConfig`."""

    Config: ClassVar[type[MethodConfig]] = PeftTunerConfig
    config: PeftTunerConfig
    tuner: ClassVar[str]
    _notes: Sequence[str] = ()

    @classmethod
    @cache
    def of(cls, tuner: str) -> type[PeftTuner]:
        """Make the method of one tuner.

        Raises:
            UsageError: there is no such tuner, or it cannot run here.
            EnvironmentProblem: peft is not installed.
        """
        return type("PeftTuner", (cls,), {"Config": PeftTunerConfig.of(tuner), "tuner": tuner, "__doc__": cls.__doc__})

    def adapt(self, batch: Batch) -> None:
        """Wrap the network with peft; torch's generator, from which tuners draw, is seeded for it.

        Raises:
            UsageError: peft refuses these options on this network.
        """
        from peft import get_peft_model

        self.backbone.requires_grad_(False)
        self._bare = not isinstance(getattr(self.backbone, "model", None), nn.Module)
        if self._bare:
            self.backbone = layers.Held(self.backbone)
        network: Any = self.backbone.model
        options = {key: value for key, value in vars(self.config).items() if key != "target"}
        chosen, self._notes = layers.layers(network, self.config.target)
        layers.check(self.tuner, network, chosen)
        options |= layers.asked(self.tuner, network, chosen, options)
        kept = {id(tensor) for tensor in self.state_dict(keep_vars=True).values()}
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(self.seed)
            try:
                config = self._classes()[0](target_modules=peft.target_modules(chosen), **options)
                self.backbone.model = get_peft_model(network, config)
            except REFUSALS as error:
                raise self._refused(" ".join(str(error).split())[:300] or type(error).__name__) from error
        if not [*self.layers()]:
            raise self._refused(f"it adapts none of {len(chosen)} layers, such as {network.get_submodule(chosen[0])}")
        added: dict[int, str] = {}
        for name, tensor in self.state_dict(keep_vars=True).items():
            if id(tensor) not in kept or tensor.requires_grad:  # layers share tensors: the shortest name is the owner's
                added[id(tensor)] = min(added.get(id(tensor), name), name, key=len)
        self._names = frozenset(added.values())
        self._plain: dict[str, dict[str, Tensor]] = {}

    def _refused(self, why: str) -> UsageError:
        return UsageError(
            f"peft cannot make {PREFIX}{self.tuner} of these options",
            "\n".join([why, *self._notes]),
            f"`bench show {PREFIX}{self.tuner}` describes them.",
        )

    def warnings(self) -> list[str]:
        """How layers were chosen that the target does not name."""
        return [*self._notes]

    @classmethod
    def _classes(cls) -> tuple[Any, Any]:
        """The configuration and the model class of the tuner."""
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

        kind = PeftType(cls.tuner.upper())
        return PEFT_TYPE_TO_CONFIG_MAPPING[kind], PEFT_TYPE_TO_TUNER_MAPPING[kind]

    @property
    def _wrapper(self) -> Any:
        """The `PeftModel` around the network."""
        return self.backbone.model

    def layers(self) -> Iterator[tuple[str, Adapted]]:
        """The adapted layers by the names that they have without peft, in the order of the network."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, module in self._wrapper.named_modules():
            if isinstance(module, BaseTunerLayer):
                inside = "" if self._bare else "model."
                yield f"{inside}{name.removeprefix(BARE)}", Adapted(module, module.get_base_layer())

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        """ΔW of every adapted linear layer and convolution, by merging a copy of it; none where a tuner cannot."""
        for name, layer in self.layers():
            if not isinstance(layer.base, nn.Linear | nn.Conv2d):
                continue
            weight = layer.base.weight.detach()
            try:
                difference = weight - self._plain[name]["weight"] if self._plain else _moved(layer.tuned, weight)
            except NotImplementedError:  # peft's own merge of this tuner (lily) raises it: there is no W' to compare
                return
            difference = matricize(difference.to(weight.dtype))
            yield name, Delta(factors=(difference,), nominal=min(difference.shape))

    def merge(self) -> None:
        """Fold every update into its weight, once; the weights as they were are kept beside."""
        if not self._plain:
            self._plain = {n: {k: t.clone() for k, t in layer.base.state_dict().items()} for n, layer in self.layers()}
            self._wrapper.base_model.merge_adapter()

    def unmerge(self) -> None:
        """Take every update out again, exactly: peft's own way back divides by gains and inverts rotations."""
        if self._plain:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._wrapper.base_model.unmerge_adapter()
            for name, layer in self.layers():
                layer.base.load_state_dict(self._plain[name])
            self._plain = {}

    def export(self) -> dict[str, Tensor]:
        """What was trained, and what peft keeps besides, such as frozen projections; each tensor once."""
        return {name: t for name, t in self.state_dict().items() if name in self._names}

    @classmethod
    def peft(cls, config: Any, tensors: dict[str, Tensor]) -> Peft:
        """What peft's own save_pretrained would write."""
        (kind, model), inside = cls._classes(), "backbone.model."
        found = {n.removeprefix(inside).replace(".default", ""): t for n, t in tensors.items() if n.startswith(inside)}
        place = re.compile(rf"{re.escape(BARE)}(.+?)\.{re.escape(model.prefix)}")
        names = sorted({match[1] for name in found if (match := place.match(name))})
        if not names:
            raise UsageError(
                f"an adapter of {PREFIX}{cls.tuner} does not say which layers it is for",
                f"its tensors: {', '.join(sorted(found))}",
                "Train it with the option that saves its indices, where it has one.",
            )
        options = {key: value for key, value in vars(config).items() if key != "target"}
        options |= layers.saved(cls.tuner, found, names)
        given = {
            **kind(target_modules=peft.target_modules(names), inference_mode=True, **options).to_dict(),
            "peft_type": cls.tuner.upper(),
        }
        return {key: sorted(v) if isinstance(v, set) else v for key, v in given.items()}, found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what `export` gives, under one name."""
        checkpoint["state_dict"] = {n: t for n, t in checkpoint["state_dict"].items() if n in self._names}


@torch.no_grad()
def _moved(tuned: nn.Module, weight: Tensor) -> Tensor:
    """W' − W, float64, in the weight's shape, of one layer that is not merged."""
    merged: Any = copy.deepcopy(tuned).double()
    merged.merge()
    return merged.get_base_layer().weight - weight.double()
