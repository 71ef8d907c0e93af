"""Checks before the heavy imports: this distribution's packages are the ones found, torch and torchvision match."""

from __future__ import annotations

import importlib.util
import mmap
import re
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from bench.core.errors import EnvironmentProblem

PACKAGES = ("bench", "tasks", "methods", "leaderboard")
"""Top-level names of this distribution; all four are in one folder."""
REQUIRED = ("torch", "lightning", "torchmetrics", "transformers", "safetensors")
"""Packages without which nothing trains, by import name."""
HOME = Path(__file__).resolve().parents[2]
"""The folder that holds the four packages."""
_CUDA_LIBRARIES = ("libtorch_cuda.so", "torch_cuda.dll")


def check() -> None:
    """Run all checks in order; they read file names and file contents alone, in milliseconds.

    Raises:
        EnvironmentProblem: the first check that fails.
    """
    check_packages()
    check_required()
    check_torch()


def check_packages() -> None:
    """Check that `tasks`, `methods` and `leaderboard` are this distribution's, not a folder of the user with that name.

    Raises:
        EnvironmentProblem: names both paths.
    """
    for name in PACKAGES:
        found = _import_path(name)
        if found is None:
            raise EnvironmentProblem(
                f"package '{name}' of lowrank-bench is missing",
                f"expected {HOME / name}",
                "Reinstall: pip install --force-reinstall --no-deps lowrank-bench",
            )
        if found.resolve().parent != HOME:
            raise EnvironmentProblem(
                f"another package '{name}' hides that of lowrank-bench",
                f"found:    {found}\nexpected: {HOME / name}",
                "Run `bench` (not `python -m bench`), or remove the found folder from PYTHONPATH, or rename it.",
            )


def check_required(names: Sequence[str] = REQUIRED) -> None:
    """Raise EnvironmentProblem with the names of packages that cannot be found."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"not installed: {', '.join(missing)}",
            f"python: {sys.executable}",
            'Reinstall: pip install -e ".[embedded]" (in a checkout) or pip install "lowrank-bench[embedded]".',
        )


def check_torch(path: Sequence[str] | None = None) -> None:
    """Check that torchvision's compiled part finds the libraries it was built against.

    With a torch for CPU only and torchvision from PyPI (built for CUDA), importing torchvision, and with it lightning
    and transformers' models, fails with 'operator torchvision::nms does not exist'.

    Args:
        path: folders to search; None is `sys.path`.

    Raises:
        EnvironmentProblem: names both versions and the commands that fix it.
    """
    torch, torchvision = _package("torch", path), _package("torchvision", path)
    if torch is None or torchvision is None or _has_cuda(torch) or not _needs_cuda(torchvision):
        return
    raise EnvironmentProblem(
        "torch is built for CPU only, but torchvision is built for CUDA: importing torchvision would fail",
        f"found: torch {_version(torch)} in {torch}\n       torchvision {_version(torchvision)} in {torchvision}",
        "Install two that match, either\n"
        "  pip install --force-reinstall torch torchvision\n"
        "or, smaller, both for CPU only:\n"
        "  pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu",
    )


def _import_path(name: str) -> Path | None:
    """Return the folder or file that `import name` loads."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.origin and Path(spec.origin).name != "__init__.py":
        return Path(spec.origin)
    return Path(next(iter(spec.submodule_search_locations or [name])))


def _package(name: str, path: Sequence[str] | None) -> Path | None:
    """Return the folder of a package without importing it."""
    spec = PathFinder.find_spec(name, path)
    return Path(spec.origin).parent if spec and spec.origin else None


def _has_cuda(torch: Path) -> bool:
    return any((torch / "lib" / library).exists() for library in _CUDA_LIBRARIES)


def _needs_cuda(torchvision: Path) -> bool:
    """Whether a compiled part names torch's CUDA library: `_C.so`, `_C_stable.so`, `_C.abi3.so`, `_C.pyd`."""
    parts = [p for p in torchvision.glob("_C*") if p.suffix in (".so", ".pyd")]
    return any(_contains(part, library.encode()) for part in parts for library in _CUDA_LIBRARIES)


def _contains(file: Path, text: bytes) -> bool:
    if not file.stat().st_size:
        return False
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


def _version(package: Path) -> str:
    """Return the version, such as `2.15.0+cpu`, from the package's version.py, since importing it may fail."""
    file = package / "version.py"
    found = re.search(r"__version__[^=\n]*=\s*['\"]([^'\"]+)", file.read_text("utf-8")) if file.is_file() else None
    return found[1] if found else "(version unknown)"
