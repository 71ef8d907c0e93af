"""peft tuners: every tuner of the installed `peft` that adapts layers, with peft's own options."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from bench.api.lowrank.peft import PREFIX as WRAPPED
from bench.api.lowrank.peft import target_modules
from bench.api.lowrank.targets import PRESETS, ROLES, compile_target, find_targets, note_on_fused
from bench.api.method import Batch, Method
from bench.api.network import Network
from bench.api.peft import PeftAdapter
from bench.config.options import Value
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import Delta
from bench.spectra.layers import has_matrix, layer_matrix
from methods.peft_tuner.config import FUSED_LAYER, PREFIX, SECOND_LAYER, TARGETS, PeftTunerConfig, tuners
from methods.peft_tuner.ranks import nominal_rank

REFUSALS = (ValueError, TypeError, NotImplementedError, ImportError, RuntimeError, ArithmeticError, KeyError)
"""What peft's tuners raise for bad values, shapes and layers, and for missing packages."""


@dataclass(frozen=True)
class Adapted:
    """A layer of peft's, `tuned`, and the layer that it replaced."""

    tuned: object
    base: nn.Module


class PeftTuner(Method):
    """Adapts layers by one of peft's tuners (see `PeftTunerConfig`)."""

    Config = PeftTunerConfig
    config: PeftTunerConfig
    tuner: ClassVar[str]
    frozen_exports = (r"^backbone\.model\.",)  # whatever peft adds, such as VeRA's projections
    _notes: Sequence[str] = ()

    @classmethod
    @cache
    def of(cls, tuner: str) -> type[PeftTuner]:
        """Return the method of one tuner; errors are those of `PeftTunerConfig.of`."""
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
            self.backbone = ModelHolder(self.backbone)
        network: Any = self.backbone.model
        options = {key: value for key, value in vars(self.config).items() if key != "target"}
        chosen, self._notes = find_layers(network, self.config.target)
        if self.tuner == "oft":
            refuse_convolutions(network, chosen)
        options |= network_options(self.tuner, chosen, options)
        matrices = [module for module in map(network.get_submodule, chosen) if has_matrix(module)]
        pretrained = {module: _weight(module).clone() for module in matrices}
        before = {id(tensor) for tensor in self.state_dict(keep_vars=True).values()}
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(self.seed)
            config_class, _ = tuners()[self.tuner]
            try:
                config = config_class(target_modules=target_modules(chosen), **options)
                self.backbone.model = get_peft_model(network, config)
            except REFUSALS as error:
                raise self._refused(" ".join(str(error).split())[:300] or type(error).__name__) from error
        layers = dict(self.layers())
        if not layers:
            raise self._refused(f"it adapts none of {len(chosen)} layers, such as {network.get_submodule(chosen[0])}")
        self._moved = {
            name: pretrained[layer.base]
            for name, layer in layers.items()
            if layer.base in pretrained and not torch.equal(pretrained[layer.base], _weight(layer.base))
        }
        drop_originals(layer.tuned for layer in layers.values())
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
            if not has_matrix(layer.base):
                continue
            weight = _weight(layer.base)
            try:
                difference = _difference(layer.tuned, self._moved.get(name, weight).to(weight.device))
            except NotImplementedError:  # peft cannot merge this tuner (lily), so there is no W'
                return
            matrix = layer_matrix(layer.base, difference.to(weight.dtype))
            nominal = nominal_rank(self.tuner, self.config, layer.tuned, min(matrix.shape), moved=name in self._moved)
            yield name, Delta(factors=(matrix,), nominal=nominal)

    def layer_of(self, name: str) -> tuple[nn.Module, nn.Module]:
        layer = dict(self.layers())[name]
        return cast(nn.Module, layer.tuned), layer.base

    def export(self) -> dict[str, Tensor]:
        """Return what was trained, and what peft adds, such as frozen projections; each tensor once."""
        return {name: t for name, t in self.state_dict().items() if name in self._names}

    def merged(self) -> Network:
        """Merge by peft itself; raises UsageError for a tuner that it cannot merge."""
        try:
            network: Any = self.backbone.get_submodule("model")
            self.backbone.model = network.merge_and_unload()
        except (NotImplementedError, AttributeError) as error:
            what = f"peft cannot merge {PREFIX}{self.tuner}"
            raise UsageError(what, str(error).splitlines()[0], "Use `bench export RUN --peft DIR`.") from error
        return self.backbone.model if self._is_bare else self.backbone

    @classmethod
    def peft(cls, config: MethodConfig, tensors: dict[str, Tensor]) -> PeftAdapter:
        """Return what peft's own save_pretrained would write.

        Raises:
            UsageError: it would not compute the same in the network that peft loads it into.
        """
        start = str(getattr(config, "init_lora_weights", ""))
        if start.startswith("pissa_niter"):
            raise UsageError(
                f"a run of {PREFIX}{cls.tuner} with method.init_lora_weights={start} is no adapter of peft",
                "it took a random approximation out of the weights, and peft would draw another one",
                "Train with method.init_lora_weights=pissa.",
            )
        (config_class, model), place = tuners()[cls.tuner], "backbone.model."
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
        options |= tensor_options(cls.tuner, inside, names)
        written = config_class(target_modules=target_modules(names), inference_mode=True, **options).to_dict()
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in written.items()}
        return PeftAdapter({**plain, "peft_type": cls.tuner.upper()}, inside)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Keep what `export` returns."""
        checkpoint["state_dict"] = self.export()


def _weight(layer: nn.Module) -> Tensor:
    """Return a layer's weight without its history."""
    return layer.get_parameter("weight").detach()


def drop_originals(layers: Iterable[object]) -> None:
    """Take away the original beside the copy that LN tuning trains: nothing reads it, and it would count twice."""
    from peft.tuners.ln_tuning.layer import LNTuningLayer

    for layer in layers:
        if isinstance(layer, LNTuningLayer):
            layer.base_layer = nn.Identity()


@torch.no_grad()
def _difference(tuned: object, weight: Tensor) -> Tensor:
    """Return W' − W of one layer, float64, in the shape of the weight W."""
    merged: Any = copy.deepcopy(tuned)
    merged.double().merge()
    return merged.get_base_layer().weight - weight.double()


class ModelHolder(Network):
    """Holds a network as the attribute `model`, where peft wraps it, if the network itself has no such attribute."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model = network

    def __getattr__(self, name: str) -> Any:
        """Delegate to the network, for example `width`."""
        return super().__getattr__(name) if name in ("model", "_modules") else getattr(self.model, name)

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.model(**inputs)


def find_layers(network: nn.Module, target: str) -> tuple[list[str], list[str]]:
    """Return the names of the layers that `target` means, and notes on them.

    An expression may also name layers without a matrix. For `qv` a fused projection is adapted whole: in the network
    that peft loads an adapter into, it is not split.

    Raises:
        UsageError: the expression is invalid, or nothing matches it.
    """
    if target not in PRESETS:
        wanted = compile_target(target)
        leaves = [(n, m) for n, m in network.named_modules() if n and "pooler" not in n and not [*m.children()]]
        trainable = [n for n, m in leaves if wanted.search(n) and [*m.parameters()]]
        if trainable and target != TARGETS["ia3"]:
            return trainable, []
        if any(not re.search(SECOND_LAYER, name) for name in trainable):
            return trainable, _ia3_notes(trainable)
        target = "qv" if target == TARGETS["ia3"] else target  # no keys and values: all layers, without attention
    targets = find_targets(network, target)
    return [name for name, _ in targets.layers], targets.notes


def _ia3_notes(names: Sequence[str]) -> list[str]:
    """Say where the layers that IA³ takes by default are not the paper's: keys, values and second matrices."""
    fused = [name for name in names if re.search(FUSED_LAYER, name)]
    notes = [note_on_fused(len(fused))] if fused else []
    found = {role: sum(bool(ROLES[role].search(name)) for name in names) for role in ("key", "value")}
    if found["key"] != found["value"]:
        counts = ", ".join(f"{count} {role}" for role, count in found.items())
        notes.append(f"IA³ does not find all that it scales in this network: {counts} projections")
    if not any(re.search(SECOND_LAYER, name) for name in names):
        notes.append("no second feed-forward matrices were found in this network: IA³ scales keys and values alone")
    return notes


def refuse_convolutions(network: nn.Module, names: Iterable[str]) -> None:
    """Raise a UsageError if one of the layers is a convolution, on which OFT computes wrong results."""
    if convolutions := [n for n in names if isinstance(network.get_submodule(n), nn.Conv2d)]:
        raise UsageError(
            "peft:oft computes another function on convolutions than it merges into them",
            f"its forward pass omits padding and sums overlapping patches; one of the layers is {convolutions[0]}",
            "Use method.target=all-linear if there are linear layers, or peft:boft, peft:hra or lora.",
        )


def network_options(tuner: str, names: Iterable[str], options: Mapping[str, Value]) -> dict[str, list[str] | str]:
    """Return options that peft knows for some of transformers' models only: the layers whose input IA³ scales."""
    if tuner != "ia3" or options.get("feedforward_modules") is not None:
        return {}
    return {"feedforward_modules": target_modules(name for name in names if re.search(SECOND_LAYER, name))}


def tensor_options(tuner: str, tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, list[str]]:
    """Return the same options from an adapter's tensors: gains (1, n) scale an input, (m, 1) an output."""
    if tuner != "ia3":
        return {}
    rows = [n for n in names if any(f".{n}.ia3_l" in key and t.ndim == 2 and len(t) == 1 for key, t in tensors.items())]
    return {"feedforward_modules": rows}
