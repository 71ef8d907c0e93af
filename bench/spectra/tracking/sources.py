"""Where the matrices come from whose spectra are taken during training, and which layers of them are looked at."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from bench.spectra.delta import Delta

if TYPE_CHECKING:
    from bench.api.method import Method

THIN = 64
"""Matrices that are at most so wide, or factors of them, cost next to nothing: all such layers are looked at."""
FEW = 4
"""How many wide ones are, unless more are asked for."""
PARTS = 5
"""Equal parts that a run is cut into by default."""

_NO_OUTPUT = nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict
Read = Callable[[Container[str]], Iterator[tuple[str, Delta]]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Matrices of one kind, by layer.

    Attributes:
        widths: what can be read, in the network's order: the thinnest dimension of what a spectrum is taken of.
        read: gives those of the named layers as they are now.
        apart: layers that `auto` leaves out as long as there are others.
    """

    widths: dict[str, int]
    read: Read
    apart: frozenset[str] = frozenset()


def snapshots(steps: int, every: int) -> list[int]:
    """Steps after which to look: 0, every `every`, the last; 0 for `every` cuts the run into `PARTS`."""
    between = range(0, steps, every) if every else [round(i * steps / PARTS) for i in range(PARTS)]
    return sorted({*between, steps})


def choose(layers: str, widths: dict[str, int], apart: Container[str] = ()) -> tuple[list[str], list[str]]:
    """Layers that `layers` names, in their order, and its patterns that name none.

    Args:
        layers: all, auto, or patterns of `fnmatch` by commas.
        widths: what there is, with the thinnest dimension of each.
        apart: what auto leaves out as long as there are others.
    """
    every = [*widths]
    if layers == "all":
        return every, []
    if layers == "auto":
        usual = [name for name in every if name not in apart] or every
        return (usual if all(widths[name] <= THIN for name in usual) else spread(usual)), []
    patterns = [pattern.strip() for pattern in layers.split(",")]
    found = [name for name in every if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return found, [p for p in patterns if not any(fnmatchcase(name, p) for name in every)]


def spread(names: Sequence[str]) -> list[str]:
    """At most `FEW` of them: the first, the last and some between, evenly."""
    last, count = len(names) - 1, min(FEW, len(names))
    return [names[round(i * last / max(1, count - 1))] for i in range(count)]


def updates(method: Method) -> Source:
    """ΔW of every layer; of a method without one what the trained matrices changed since now."""
    widths = {name: min(min(f.shape) for f in delta.factors) for name, delta in method.deltas()}
    if widths:
        return Source(widths=widths, read=lambda names: (one for one in method.deltas() if one[0] in names))
    trained, apart = parameters(method)
    start = {name: p.detach().cpu().clone() for name, p in trained.items()}

    def read(names: Container[str]) -> Iterator[tuple[str, Delta]]:
        for name, parameter in trained.items():
            if name in names:
                yield name, whole(parameter.detach().cpu() - start[name])

    return Source(widths={name: _thinnest(p) for name, p in trained.items()}, read=read, apart=apart)


def weights(method: Method) -> Source:
    """W(0) + ΔW of every layer; where a method does not tell W(0), the trained matrices."""
    widths = {name: min(delta.shape) for name, _, delta in method.updates()}
    if not widths:
        return trained(method, lambda name, parameter: parameter)

    def read(names: Container[str]) -> Iterator[tuple[str, Delta]]:
        for name, start, delta in method.updates():
            if name in names:
                yield name, whole(start + delta.dense())

    return Source(widths=widths, read=read)


def trained(method: Method, value: Callable[[str, nn.Parameter], Tensor | None]) -> Source:
    """What `value` gives for a trained matrix, such as its gradient; None: nothing."""
    found, apart = parameters(method)

    def read(names: Container[str]) -> Iterator[tuple[str, Delta]]:
        for name, parameter in found.items():
            tensor = value(name, parameter) if name in names else None
            if tensor is not None:
                yield name, whole(tensor)

    return Source(widths={name: _thinnest(p) for name, p in found.items()}, read=read, apart=apart)


def parameters(method: Method) -> tuple[dict[str, nn.Parameter], frozenset[str]]:
    """Trained parameters of two or more dimensions, and the names of those that are not usually of interest.

    A weight has the name of its layer in the backbone, as in `Method.deltas`, any other its own: `….factors.0`. Apart
    are embeddings, the head, and single rows such as a class token; where a method has ΔW of some, all others.
    """
    every = {name: p for name, p in method.named_parameters() if p.requires_grad and p.ndim > 1}
    short = {name: name.removeprefix("backbone.").removesuffix(".weight") for name in every}
    unique = len({*short.values()}) == len(short)
    found = {(short[name] if unique else name): p for name, p in every.items()}
    embeddings = {id(m.weight) for m in method.modules() if isinstance(m, nn.Embedding)}
    apart = embeddings | {id(p) for p in method.head.parameters()}
    moved = {name for name, _ in method.deltas()}
    usual = [name for name in found if name in moved]
    usual = usual or [name for name, p in found.items() if id(p) not in apart and _thinnest(p) > 1]
    return found, frozenset(found) - {*usual}


def modules(method: Method) -> tuple[dict[str, nn.Module], list[str]]:
    """Modules of the backbone whose output can be looked at, and the names of the usual ones.

    These are the blocks that the network names (`blocks`), else those of its longest stack of modules of one class
    and several layers each, else its linear layers and convolutions.
    """
    backbone: Any = method.backbone
    every = {n: m for n, m in backbone.named_modules() if n and not isinstance(m, _NO_OUTPUT)}
    blocks = {id(block) for block in getattr(backbone, "blocks", ())} or _stack(backbone)
    usual = [name for name, module in every.items() if id(module) in blocks]
    return every, usual or [name for name, m in every.items() if isinstance(m, nn.Linear | nn.Conv2d)]


def whole(matrix: Tensor) -> Delta:
    """A matrix by its matricisation (m, n·…)."""
    matrix = matrix.detach().flatten(1)
    return Delta(factors=(matrix,), nominal=min(matrix.shape))


def _thinnest(parameter: Tensor) -> int:
    return min(len(parameter), parameter.numel() // max(1, len(parameter)))


def _stack(backbone: nn.Module) -> set[int]:
    stacks = [[*module] for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    equal = [s for s in stacks if len({type(block) for block in s}) == 1 and all(_layers(block) > 1 for block in s)]
    return {id(block) for block in max(equal, key=len, default=[])}


def _layers(block: nn.Module) -> int:
    return sum(isinstance(module, nn.Linear | nn.Conv2d) for module in block.modules())
