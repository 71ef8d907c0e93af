"""Weights of a model on disk: safetensors files by path or hub id, their matrices, and spectra read block by block."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.api.peft import CONFIG
from bench.core import hub
from bench.core.errors import BenchError, EnvironmentProblem, UsageError
from bench.core.files import regular, shard_files
from bench.records.files import check_named
from bench.spectra.layers import is_no_map, is_stack
from bench.spectra.singular import GRAM_FLOOR, Spectrum

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PATTERNS = ["*.safetensors", "*.safetensors.index.json", CONFIG]
WHAT_TO_GIVE = "Give a safetensors file, a folder of them, a run, or a hub id."
BLOCK = 2**18
"""Entries of a block, in float64: 2 MiB."""
EMBEDDING = re.compile(r"(?i)(embed|\bwte\b|\bwpe\b|\btok_|\bpos_)")
LAST = re.compile(r"(?i)(^|\.)(pooler|classifier|score|lm_head|head|heads|fc|qa_outputs|cls|probe)\.")
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types that have a spectrum, as safetensors writes them."""


def find_model(name: str, revision: str = "main") -> Path:
    """Find the file or folder of a model on disk or in the hub's cache, or download it from the hub.

    Raises:
        EnvironmentProblem: there is none.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith((".safetensors", *PICKLES)):
        raise EnvironmentProblem(f"there is no file or folder '{name}'", f"searched in {Path.cwd()}", WHAT_TO_GIVE)
    from huggingface_hub import snapshot_download

    patterns = {"allow_patterns": PATTERNS, "ignore_patterns": ["*/*"]}
    try:
        return hub.cached_or_fetched(snapshot_download, name, revision=revision, lacks=_lacks, **patterns)
    except hub.HubUnavailable as error:
        known = f"there is no file or folder of this name; {error.what}"
        raise EnvironmentProblem(f"'{name}' is not there", known, WHAT_TO_GIVE) from error


def weight_files(path: Path) -> list[Path]:
    """List the safetensors files of a model: `path` itself, the shards of an index, or all of a folder.

    Raises:
        UsageError: the weights are pickled.
        EnvironmentProblem: there are none, or the index is broken or names a file that is missing.
    """
    if path.is_file():
        if path.suffix.lower() in PICKLES:
            raise _pickled(str(path))
        return [path]
    if indexes := sorted(path.glob("*.safetensors.index.json")):
        return shard_files(indexes[0])
    files, single = sorted(path.glob("*.safetensors")), path / "model.safetensors"
    if files:
        return [single] if single in files else files
    if pickled := sorted(file.name for file in path.iterdir() if file.suffix.lower() in PICKLES):
        raise _pickled(f"{path}: {', '.join(pickled[:3])}")
    raise EnvironmentProblem(f"no safetensors file in {path}", "nor an index of one", WHAT_TO_GIVE)


def _lacks(folder: Path) -> str:
    """Name what the hub's cache may miss of a model: it may hold its tokenizer alone, or a part of the shards."""
    try:
        weight_files(folder)
    except BenchError:
        return "all of its weights"
    return ""


def _pickled(what: str) -> UsageError:
    return UsageError(
        f"{what}: pickled weights are not opened",
        "reading a pickle runs whatever code is in it",
        "Save the model as safetensors (save_pretrained does), or take the hub's safetensors revision of it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMatrix:
    """A tensor in a safetensors file, as a matrix (m, n) by `flatten(1)`, or its change by training.

    Attributes:
        name: of the tensor, or `name[3]` of one of the matrices that it holds.
        expert: the place of this matrix in a tensor (count, m, n); None where the tensor is the matrix.
        dtype: as safetensors writes it, such as BF16.
        embedding: its name is that of an embedding, whose rows are looked up and not multiplied.
        base: the matrix (m, n) that is subtracted from it, in float64.
    """

    file: Path
    name: str
    shape: tuple[int, int]
    dtype: str
    embedding: bool
    expert: int | None = None
    base: StoredMatrix | None = None

    def blocks(self, entries: int) -> Iterator[Tensor]:
        """Read float64 blocks of `entries` numbers (·, min(m, n)): rows, or columns as rows where there are more."""
        length, width = max(self.shape), min(self.shape)
        for start, stop in pairwise([*range(0, length, max(1, entries // width)), length]):
            yield self._block(start, stop)

    def _block(self, start: int, stop: int) -> Tensor:
        # the file is opened for each block: pages of a mapped file that were read count as memory until it is closed
        with safe_open(self.file, framework="pt") as opened:
            block: Tensor = self._read(opened, start, stop).double()
        if self.base is not None:
            block = block - self.base._block(start, stop)
        if not bool(torch.isfinite(block).all()):
            raise ValueError("a spectrum needs finite entries; the matrix holds a NaN or an infinity")
        return block

    def _read(self, opened: Any, start: int, stop: int) -> Tensor:
        tall = self.shape[0] >= self.shape[1]
        if self.expert is not None:
            stack = opened.get_slice(self.name.removesuffix(f"[{self.expert}]"))
            one = slice(self.expert, self.expert + 1)
            return stack[one, start:stop][0] if tall else stack[one, :, start:stop][0].mT
        if tall:
            return opened.get_slice(self.name)[start:stop].flatten(1)
        return opened.get_tensor(self.name).flatten(1)[:, start:stop].mT


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What safetensors files hold.

    Attributes:
        matrices: of floating-point tensors, in the network's order.
        left_out: how many tensors have none, by reason.
        listed: tensors of three dimensions and more that are no linear map, such as `pos_embed (1×50×32)`.
    """

    matrices: Sequence[StoredMatrix]
    left_out: Mapping[str, int]
    listed: Sequence[str]


def contents(files: Iterable[Path]) -> Contents:
    """List the matrices of safetensors files from their headers alone.

    Raises:
        EnvironmentProblem: a file is not a safetensors file, or is not as its run wrote it, or two files hold a tensor
            of the same name.
    """
    found: dict[str, list[StoredMatrix]] = {}
    left_out: Counter[str] = Counter()
    listed: list[str] = []
    for file in files:
        for name, shape, dtype in _header(file):
            if name in found:
                known = f"{found[name][0].file.name} and {file.name}"
                raise EnvironmentProblem(f"'{name}' is in two files", known, "Give the one file that you mean.")
            if len(shape) < 2:
                left_out["of one dimension"] += 1
            elif dtype not in FLOATS:
                left_out[f"of type {dtype}"] += 1
            elif not all(shape):
                left_out["empty"] += 1
            elif is_no_map(name, shape):
                left_out["of positions, tokens or scales"] += 1
                listed.append(f"{name} ({'×'.join(map(str, shape))})")
            else:
                found[name] = _matrices(file, name, shape, dtype)
    ordered = sorted(chain.from_iterable(found.values()), key=lambda matrix: network_order(matrix.name))
    return Contents(matrices=ordered, left_out=left_out, listed=listed)


def _matrices(file: Path, name: str, shape: Sequence[int], dtype: str) -> list[StoredMatrix]:
    """Return the matrix of a tensor, or the matrices of a tensor (count, m, n) that stacks them, as of experts."""
    whole = StoredMatrix(
        file=file,
        name=name,
        shape=(shape[0], math.prod(shape[1:])),
        dtype=dtype,
        embedding=bool(EMBEDDING.search(name)),
    )
    if not is_stack(name, shape):
        return [whole]
    count, m, n = shape
    return [replace(whole, name=f"{name}[{i}]", shape=(m, n), expert=i) for i in range(count)]


def streamed_spectrum(matrix: StoredMatrix, *, exact: bool = False) -> Spectrum:
    """Compute singular values (min(m, n),), descending, float64, one block in memory at a time, and say how.

    As `bench.spectra.spectrum`: from the Gram matrix (`gram`) where the values are of less than float64 and none of
    them is below its noise, unless they must be `exact`; else by a QR, with the accuracy of an SVD (`svd`).

    Raises:
        ValueError: a NaN or an infinity.
    """
    if not exact and matrix.dtype != "F64":
        sigma = _gram_spectrum(matrix)
        if bool(sigma[-1] >= GRAM_FLOOR * sigma[0]):
            return Spectrum(sigma, "gram")
    width = min(matrix.shape)
    r = torch.zeros(0, width, dtype=torch.float64)  # of the QR decomposition of all rows so far
    for block in matrix.blocks(max(BLOCK, width**2)):
        r = torch.linalg.qr(torch.cat([r, block]), mode="r").R
    return Spectrum(torch.linalg.svdvals(r), "svd")


def _gram_spectrum(matrix: StoredMatrix) -> Tensor:
    """Compute square roots of the eigenvalues of the float64 Gram matrix.

    The eigenvalues overwrite it: at most one block and one matrix (k, k), k = min(m, n), are in memory.
    """
    from scipy.linalg import eigh

    width = min(matrix.shape)
    gram = torch.zeros(width, width, dtype=torch.float64)
    for block in matrix.blocks(BLOCK):
        gram.addmm_(block.mT, block)
    # symmetric: its transpose is itself in Fortran's order, which LAPACK overwrites without a copy
    values = eigh(gram.numpy().T, eigvals_only=True, overwrite_a=True, check_finite=False, driver="ev")
    return torch.from_numpy(values).clamp_min(0).sqrt().flip(-1)


def network_order(name: str) -> tuple[int, list[tuple[int, int, str]]]:
    """Return a sort key for the network's order, as far as names show it: embeddings, blocks by number, heads."""
    place = 0 if EMBEDDING.search(name) else 2 if LAST.search(name) else 1
    parts = re.findall(r"\d+|\D+", name)
    return place, [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _header(file: Path) -> Iterator[tuple[str, list[int], str]]:
    """Read (name, shape, dtype) of every tensor."""
    check_named(file)
    try:
        with safe_open(regular(file), framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                tensor = opened.get_slice(name)
                yield name, tensor.get_shape(), str(tensor.get_dtype())
    except (SafetensorError, OSError) as error:
        raise EnvironmentProblem(f"{file} is not a safetensors file", str(error), "Download it again.") from error
