"""Matrices in safetensors files, read block by block: no layer is ever in memory twice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.core.errors import EnvironmentProblem
from bench.spectra.singular import GRAM_FLOOR

BLOCK = 2**18
"""Entries of a block, in float64: 2 MiB."""
EMBEDDING = re.compile(r"(?i)(embed|\bwte\b|\bwpe\b|\btok_|\bpos_)")
LAST = re.compile(r"(?i)(^|\.)(pooler|classifier|score|lm_head|head|heads|fc|qa_outputs|cls|probe)\.")
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types that have a spectrum, as safetensors writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor in a file, as a matrix (m, n) by `flatten(1)`.

    Attributes:
        file: where it is.
        name: its key there.
        shape: (m, n).
        dtype: as safetensors writes it, such as BF16.
        embedding: its name is that of an embedding, whose rows are looked up and not multiplied.
    """

    file: Path
    name: str
    shape: tuple[int, int]
    dtype: str
    embedding: bool

    def blocks(self, entries: int | None = None) -> Iterator[Tensor]:
        """Float64 blocks (·, n) of rows where m ≥ n, else (m, ·) of columns: Σ block'ᵀ·block' is a Gram matrix.

        The file is opened for each block: what has been read of a mapped file counts as memory until it is closed.
        """
        m, n = self.shape
        rows = m >= n
        edges = [*range(0, m if rows else n, max(1, (entries or BLOCK) // min(m, n))), m if rows else n]
        for start, stop in pairwise(edges):
            if rows:
                with safe_open(self.file, framework="pt") as opened:
                    yield opened.get_slice(self.name)[start:stop].flatten(1).double()
            else:
                with safe_open(self.file, framework="pt") as opened:
                    whole: Tensor = opened.get_tensor(self.name)
                    yield whole.flatten(1)[:, start:stop].double()
                    del whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What training changed: `tuned` − `base`, both (m, n)."""

    tuned: Stored
    base: Stored

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.tuned.shape

    @property
    def dtype(self) -> str:
        """Of the tuned one."""
        return self.tuned.dtype

    def blocks(self, entries: int | None = None) -> Iterator[Tensor]:
        """As `Stored.blocks`; the difference is taken in float64."""
        return (a - b for a, b in zip(self.tuned.blocks(entries), self.base.blocks(entries), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is in one or several files.

    Attributes:
        matrices: floating-point tensors of two dimensions and more, in the network's order.
        left_out: how many tensors have no spectrum, by reason.
    """

    matrices: Sequence[Stored]
    left_out: Mapping[str, int]


def contents(files: Iterable[Path]) -> Contents:
    """Read headers alone.

    Raises:
        EnvironmentProblem: a file is no safetensors file, or two hold a tensor of one name.
    """
    found: dict[str, Stored] = {}
    reasons: dict[str, int] = {}
    for file in files:
        for name, shape, dtype in _header(file):
            if name in found:
                raise EnvironmentProblem(
                    f"'{name}' is in two files",
                    f"{found[name].file.name} and {file.name}",
                    "Name the file that is meant.",
                )
            if reason := _without_spectrum(shape, dtype):
                reasons[reason] = reasons.get(reason, 0) + 1
                continue
            matrix = shape[0], int(np.prod(shape[1:], dtype=np.int64))
            marked = bool(EMBEDDING.search(name))
            found[name] = Stored(file=file, name=name, shape=matrix, dtype=dtype, embedding=marked)
    ordered = sorted(found.values(), key=lambda one: order(one.name))
    return Contents(matrices=ordered, left_out=reasons)


def streamed(one: Stored | Difference, *, exact: bool = False) -> tuple[Tensor, str]:
    """Singular values (min(m, n),), descending, float64, and how they were computed, with a block at a time in memory.

    As `bench.spectra.spectrum`: from the Gram matrix (`gram`) where the values are of less than float64 and it drowns
    none of them, else with the accuracy of an SVD (`svd`).

    Args:
        one: the matrix.
        exact: never from the Gram matrix.

    Raises:
        ValueError: a NaN or an infinity.
    """
    if not exact and one.dtype != "F64":
        sigma = gram_spectrum(one.blocks(), one.shape)
        if bool(sigma[-1] >= GRAM_FLOOR * sigma[0]):
            return sigma, "gram"
    return qr_spectrum(one.blocks(max(BLOCK, min(one.shape) ** 2)), one.shape), "svd"


def gram_spectrum(blocks: Iterable[Tensor], shape: tuple[int, int]) -> Tensor:
    """Square roots of the eigenvalues of the float64 Gram matrix of a matrix given by its `blocks`.

    The eigenvalues overwrite it: at most one block and one matrix (k, k), k = min(m, n), are held.

    Raises:
        ValueError: a NaN or an infinity.
    """
    from scipy.linalg import eigh

    m, n = shape
    gram = torch.zeros(min(shape), min(shape), dtype=torch.float64)
    for block in blocks:
        _finite(block)
        gram.addmm_(block.mT, block) if m >= n else gram.addmm_(block, block.mT)
    # symmetric: its transpose is itself in Fortran's order, which LAPACK overwrites without a copy
    values = eigh(gram.numpy().T, eigvals_only=True, overwrite_a=True, check_finite=False, driver="ev")
    return torch.from_numpy(values).clamp_min(0).sqrt().flip(-1)


def qr_spectrum(blocks: Iterable[Tensor], shape: tuple[int, int]) -> Tensor:
    """Singular values of R (k, k), where the blocks under each other are Q·R; as accurate as an SVD of the whole.

    Raises:
        ValueError: a NaN or an infinity.
    """
    m, n = shape
    r = torch.zeros(0, min(shape), dtype=torch.float64)
    for block in blocks:
        _finite(block)
        r = torch.linalg.qr(torch.cat([r, block if m >= n else block.mT]), mode="r").R
    return torch.linalg.svdvals(r)


def order(name: str) -> tuple[int, list[tuple[int, int, str]]]:
    """Sort key of the network's order as far as names tell it: embeddings, blocks by number, heads."""
    place = 0 if EMBEDDING.search(name) else 2 if LAST.search(name) else 1
    parts = re.findall(r"\d+|\D+", name)
    return place, [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _finite(block: Tensor) -> None:
    if not bool(torch.isfinite(block).all()):
        raise ValueError("a spectrum needs finite entries; the matrix holds a NaN or an infinity")


def _header(file: Path) -> Iterator[tuple[str, list[int], str]]:
    """(name, shape, dtype) of every tensor."""
    try:
        with safe_open(file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                one = opened.get_slice(name)
                yield name, one.get_shape(), str(one.get_dtype())
    except (SafetensorError, OSError) as error:
        raise EnvironmentProblem(f"{file} is no safetensors file", str(error), "Fetch it again.") from error


def _without_spectrum(shape: Sequence[int], dtype: str) -> str:
    """Why a tensor is left out, or an empty string."""
    if len(shape) < 2:
        return "of one dimension"
    if dtype not in FLOATS:
        return f"of type {dtype}"
    return "" if all(shape) else "empty"
