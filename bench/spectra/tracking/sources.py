"""Matrices whose spectra are tracked during training: where they come from, which layers, and at which steps."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from bench.api.method import Method
from bench.spectra.delta import Delta
from bench.spectra.layers import has_matrix, is_no_map, is_stack, layer_matrix

THIN_WIDTH = 64
"""Largest width of a matrix, or of its factors, that costs next to nothing: all such layers are tracked."""
MAX_WIDE = 4
"""Number of wide layers that are tracked by default."""
PARTS = 5
"""Number of equal parts of a run between snapshots, by default."""

_NO_OUTPUT = nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict
_LAYER = nn.Linear | nn.Conv2d


@dataclass(frozen=True, kw_only=True)
class TrainedMatrix:
    """A matrix (m, n) in a trained parameter of a layer: the whole of it, or one of a stack, as of experts.

    Attributes:
        place: of the matrix in a parameter (count, m, n); None where the parameter is one matrix.
    """

    parameter: nn.Parameter
    layer: nn.Module
    place: int | None = None

    @property
    def value(self) -> Tensor:
        """The matrix (m, n)."""
        return self.of(self.parameter)

    @property
    def gradient(self) -> Tensor | None:
        """Its gradient (m, n), or None."""
        return None if self.parameter.grad is None else self.of(self.parameter.grad)

    def of(self, tensor: Tensor) -> Tensor:
        """Return the matrix (m, n) at this place of a tensor in the shape of the parameter."""
        if self.place is not None:
            return tensor.detach()[self.place]
        return layer_matrix(self.layer, tensor.detach())


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What trains, by name, in the network's order.

    A weight has the name of its layer in the backbone, as in `Method.deltas`, any other its own: `….factors.0`; a
    matrix of a stack has its place behind: `….experts[3]`.

    Attributes:
        secondary: embeddings, the head, and single rows; where a method has ΔW of some layers, all others.
        no_maps: parameters of three dimensions and more that are no linear map: `pos_embed (1×50×32)`.
    """

    matrices: dict[str, TrainedMatrix]
    secondary: frozenset[str]
    no_maps: list[str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Matrices of one quantity, by layer.

    Attributes:
        widths: the layers in the network's order, each with the smallest dimension of the matrix, or of its factors.
        read: yields the current matrices of the named layers.
        secondary: layers that `auto` leaves out as long as there are others.
        trained: what trains, where the matrices are read from it.
    """

    widths: dict[str, int]
    read: Callable[[Sequence[str]], Iterator[tuple[str, Delta]]]
    secondary: frozenset[str] = frozenset()
    trained: Trained | None = None


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
    trained = find_trained(method)
    start = {name: matrix.value.cpu().clone() for name, matrix in trained.matrices.items()}
    return trained_matrices(trained, lambda name, matrix: matrix.value.cpu() - start[name])


def weights(method: Method) -> Source:
    """W(0) + ΔW of every layer; for a method that does not give W(0) the trained matrices."""
    widths = {name: min(delta.shape) for name, _, delta in method.updates()}
    if not widths:
        return trained_matrices(find_trained(method), lambda name, matrix: matrix.value)
    return Source(
        widths=widths,
        read=lambda names: ((n, dense(start + delta.dense())) for n, start, delta in method.updates() if n in names),
    )


def trained_matrices(trained: Trained, value: Callable[[str, TrainedMatrix], Tensor | None]) -> Source:
    """The value of a function of trained matrices, such as the gradient; None where it has no value."""

    def read(names: Sequence[str]) -> Iterator[tuple[str, Delta]]:
        matrices = ((name, value(name, trained.matrices[name])) for name in names)
        return ((name, dense(matrix)) for name, matrix in matrices if matrix is not None)

    widths = {name: min(matrix.value.shape) for name, matrix in trained.matrices.items()}
    return Source(widths=widths, read=read, secondary=trained.secondary, trained=trained)


def find_trained(method: Method) -> Trained:
    """Find the matrices that train."""
    every = {name: p for name, p in method.named_parameters() if p.requires_grad and p.ndim > 1}
    short = {name.removeprefix("backbone.").removesuffix(".weight"): p for name, p in every.items()}
    names = dict(zip(every, short if len(short) == len(every) else every, strict=True))
    matrices: dict[str, TrainedMatrix] = {}
    no_maps: list[str] = []
    for path, parameter in every.items():
        name, shape, layer = names[path], parameter.shape, method.get_submodule(path.rpartition(".")[0])
        if not has_matrix(layer) and is_no_map(path, shape):
            no_maps.append(f"{name} ({'×'.join(map(str, shape))})")
        elif not has_matrix(layer) and is_stack(path, shape):
            matrices |= {
                f"{name}[{i}]": TrainedMatrix(parameter=parameter, layer=layer, place=i) for i in range(shape[0])
            }
        else:
            matrices[name] = TrainedMatrix(parameter=parameter, layer=layer)
    usual = matrices.keys() & {name for name, _ in method.deltas()}
    if not usual:
        embeddings = {id(m.weight) for m in method.modules() if isinstance(m, nn.Embedding)}
        apart = embeddings | {id(p) for p in method.head.parameters()}
        usual = {n for n, m in matrices.items() if id(m.parameter) not in apart and min(m.value.shape) > 1}
    return Trained(matrices=matrices, secondary=frozenset(matrices) - usual, no_maps=no_maps)


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
    """Wrap a matrix as a single factor."""
    return Delta(factors=(matrix.detach(),), nominal=min(matrix.shape))


def _longest_stack(backbone: nn.Module) -> list[nn.Module]:
    def is_block(module: nn.Module) -> bool:
        return sum(isinstance(part, _LAYER) for part in module.modules()) > 1

    stacks = [[*module] for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    alike = [stack for stack in stacks if len(set(map(type, stack))) == 1 and all(map(is_block, stack))]
    return max(alike, key=len, default=[])
