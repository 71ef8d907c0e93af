"""The checks before the heavy imports, on made-up packages that cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.core.errors import EnvironmentProblem
from bench.env import preflight

HOME = Path(preflight.__file__).resolve().parents[2]
CUDA, CPU = b"\x7fELF\x00libtorch.so\x00libtorch_cuda.so\x00", b"\x7fELF\x00libtorch.so\x00libtorch_cpu.so\x00"


def write_torch(folder: Path, *, cuda: bool, version: str) -> None:
    (folder / "torch" / "lib").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text("raise RuntimeError('torch was imported')")
    (folder / "torch" / "version.py").write_text(
        f"from typing import Optional\n__version__ = '{version}'\ncuda = None\n"
    )
    (folder / "torch" / "lib" / ("libtorch_cuda.so" if cuda else "libtorch_cpu.so")).touch()


def write_vision(folder: Path, part: str, content: bytes) -> None:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text("raise RuntimeError('torchvision was imported')")
    (folder / "torchvision" / "version.py").write_text("__version__ = '0.29.2+cu132'\ngit_version = 'x'\n")
    (folder / "torchvision" / part).write_bytes(content)


@pytest.mark.parametrize(
    "part", ["_C.so", "_C_stable.so", "_C.abi3.so", "_C.cpython-311-x86_64-linux-gnu.so", "_C.pyd"]
)
def test_cpu_torch_beside_cuda_torchvision_is_named_with_the_remedy(tmp_path: Path, part: str) -> None:
    write_torch(tmp_path, cuda=False, version="2.15.0+cpu")
    write_vision(tmp_path, part, CUDA)
    with pytest.raises(EnvironmentProblem) as caught:
        preflight.check_torch([str(tmp_path)])
    error = caught.value
    assert "torch is built for CPU only" in error.what
    assert "2.15.0+cpu" in error.known
    assert "0.29.2+cu132" in error.known
    assert "pip install --force-reinstall torch torchvision" in error.todo
    assert error.exit_code == 3


def test_matching_builds_pass(tmp_path: Path) -> None:
    for name, cuda, content in (("both cuda", True, CUDA), ("both cpu", False, CPU), ("cuda and cpu", True, CPU)):
        folder = tmp_path / name
        write_torch(folder, cuda=cuda, version="1")
        write_vision(folder, "_C.so", content)
        preflight.check_torch([str(folder)])


def test_torch_or_torchvision_alone_passes(tmp_path: Path) -> None:
    preflight.check_torch([str(tmp_path)])
    write_torch(tmp_path, cuda=False, version="1")
    preflight.check_torch([str(tmp_path)])
    write_vision(tmp_path, "_C.so", b"")
    preflight.check_torch([str(tmp_path)])


def test_this_installation_passes() -> None:
    preflight.check()


def test_missing_packages_are_named() -> None:
    with pytest.raises(EnvironmentProblem, match="not installed: no_such_one, no_such_two"):
        preflight.check_required(["json", "no_such_one", "no_such_two"])


def command(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "bench", *words]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", ["tasks/__init__.py", "tasks.py", "leaderboard/__init__.py"])
def test_a_users_own_package_of_the_same_name_is_exit_3_with_both_paths(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.touch()
    done = command(tmp_path, "list", "methods")
    found = path.parent if path.name == "__init__.py" else path
    assert done.returncode == 3, done.stderr
    assert str(found) in done.stderr
    assert str(HOME / found.name.removesuffix(".py")) in done.stderr
    assert done.stdout == ""


def test_a_plain_folder_of_the_same_name_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    assert command(tmp_path, "list", "methods").returncode == 0


def test_run_is_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    write_torch(tmp_path, cuda=False, version="2.15.0+cpu")
    write_vision(tmp_path, "_C.so", CUDA)
    done = command(tmp_path, "run", "--method", "lora", "--task", "glue/rte")
    assert done.returncode == 3, done.stderr
    assert "torch is built for CPU only" in done.stderr
    assert "Traceback" not in done.stderr
