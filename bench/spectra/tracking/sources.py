"""Matrices whose spectra are tracked during training: where they come from, which layers, and at which steps."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from bench.api.method import Method
from bench.spectra.delta import Delta

THIN_WIDTH = 64
"""Largest width of a matrix, or of its factors, that costs next to nothing: all such layers are tracked."""
MAX_WIDE = 4
"""Number of wide layers that are tracked by default."""
PARTS = 5
"""Number of equal parts of a run between snapshots, by default."""

_NO_OUTPUT = nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict
_LAYER = nn.Linear | nn.Conv2d


@dataclass(frozen=True, kw_only=True)
class Source:
    """Matrices of one quantity, by layer.

    Attributes:
        widths: the layers in the network's order, each with the smallest dimension of the matrix, or of its factors.
        read: yields the current matrices of the named layers.
        secondary: layers that `auto` leaves out as long as there are others.
    """

    widths: dict[str, int]
    read: Callable[[Sequence[str]], Iterator[tuple[str, Delta]]]
    secondary: frozenset[str] = frozenset()


def snapshots(steps: int, every: int) -> list[int]:
    """List the steps of snapshots: 0, every `every`-th, the last; 0 for `every` gives `PARTS` equal parts."""
    between = range(0, steps, every) if every else [round(i * steps / PARTS) for i in range(PARTS)]
    return sorted({*between, steps})


def choose(layers: str, widths: dict[str, int], secondary: Container[str] = ()) -> tuple[list[str], list[str]]:
    """Return the layers of a `Source` that `layers` names, in their order, and its patterns that name none.

    It is `all`, `auto`, or patterns of `fnmatch` separated by commas.
    """
    every = [*widths]
    if layers == "all":
        return every, []
    if layers == "auto":
        usual = [name for name in every if name not in secondary] or every
        return (usual if all(widths[name] <= THIN_WIDTH for name in usual) else spread(usual)), []
    patterns = [pattern.strip() for pattern in layers.split(",")]
    chosen = [name for name in every if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return chosen, [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in every)]


def spread(names: Sequence[str]) -> list[str]:
    """Choose at most `MAX_WIDE` names: the first, the last, and evenly spaced ones between."""
    last, count = len(names) - 1, min(MAX_WIDE, len(names))
    return [names[round(i * last / max(1, count - 1))] for i in range(count)]


def updates(method: Method) -> Source:
    """ΔW of every layer; for a method without ΔW the change of the trained matrices from now on."""
    widths = {name: min(min(f.shape) for f in delta.factors) for name, delta in method.deltas()}
    if widths:
        return Source(widths=widths, read=lambda names: (pair for pair in method.deltas() if pair[0] in names))
    start = {name: p.detach().cpu().clone() for name, p in parameters(method)[0].items()}
    return trained_matrices(method, lambda name, parameter: parameter.detach().cpu() - start[name])


def weights(method: Method) -> Source:
    """W(0) + ΔW of every layer; for a method that does not give W(0) the trained matrices."""
    widths = {name: min(delta.shape) for name, _, delta in method.updates()}
    if not widths:
        return trained_matrices(method, lambda name, parameter: parameter)
    return Source(
        widths=widths,
        read=lambda names: ((n, dense(start + delta.dense())) for n, start, delta in method.updates() if n in names),
    )


def trained_matrices(method: Method, value: Callable[[str, nn.Parameter], Tensor | None]) -> Source:
    """The value of a function of trained matrices, such as the gradient; None where it has no value."""
    trained, secondary = parameters(method)

    def read(names: Sequence[str]) -> Iterator[tuple[str, Delta]]:
        tensors = ((name, value(name, trained[name])) for name in names)
        return ((name, dense(tensor)) for name, tensor in tensors if tensor is not None)

    return Source(widths={name: dense(p).nominal for name, p in trained.items()}, read=read, secondary=secondary)


def parameters(method: Method) -> tuple[dict[str, nn.Parameter], frozenset[str]]:
    """Return the trained parameters of two or more dimensions, and the names of the secondary ones.

    A weight has the name of its layer in the backbone, as in `Method.deltas`, any other its own: `….factors.0`.
    Secondary are embeddings, the head, and single rows such as a class token; where a method has ΔW of some layers,
    all others.
    """
    every = {name: p for name, p in method.named_parameters() if p.requires_grad and p.ndim > 1}
    short = {name.removeprefix("backbone.").removesuffix(".weight"): p for name, p in every.items()}
    trained = short if len(short) == len(every) else every
    usual = trained.keys() & {name for name, _ in method.deltas()}
    if not usual:
        embeddings = {id(m.weight) for m in method.modules() if isinstance(m, nn.Embedding)}
        apart = embeddings | {id(p) for p in method.head.parameters()}
        usual = {name for name, p in trained.items() if id(p) not in apart and dense(p).nominal > 1}
    return trained, frozenset(trained) - usual


def modules(method: Method) -> tuple[dict[str, nn.Module], list[str]]:
    """Return the modules of the backbone that have an output, and the names of those that are tracked by default.

    By default these are the network's `blocks`, else those of its longest stack of modules of one class and several
    layers each, else its linear layers and convolutions.
    """
    backbone = method.backbone
    every: dict[str, nn.Module] = {n: m for n, m in backbone.named_modules() if n and not isinstance(m, _NO_OUTPUT)}
    blocks = [*getattr(backbone, "blocks", ())] or _longest_stack(backbone)
    usual = [name for name, module in every.items() if module in blocks]
    return every, usual or [name for name, module in every.items() if isinstance(module, _LAYER)]


def dense(matrix: Tensor) -> Delta:
    """Wrap a matrix, or the matricisation (m, n·…) of a tensor, as a single factor."""
    matrix = matrix.detach().flatten(1)
    return Delta(factors=(matrix,), nominal=min(matrix.shape))


def _longest_stack(backbone: nn.Module) -> list[nn.Module]:
    def is_block(module: nn.Module) -> bool:
        return sum(isinstance(part, _LAYER) for part in module.modules()) > 1

    stacks = [[*module] for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    alike = [stack for stack in stacks if len(set(map(type, stack))) == 1 and all(map(is_block, stack))]
    return max(alike, key=len, default=[])
