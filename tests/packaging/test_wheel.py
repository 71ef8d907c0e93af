"""The wheel holds the four packages, all of their files, and the command."""

from __future__ import annotations

import configparser
import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bench", "leaderboard", "methods", "tasks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    [file] = folder.glob("*.whl")
    return zipfile.Path(file)


def names(wheel: zipfile.Path) -> set[str]:
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def dist_info(wheel: zipfile.Path) -> zipfile.Path:
    [folder] = [entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info")]
    return folder


def test_top_level_is_the_four_packages(wheel: zipfile.Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_no_source_file_is_left_out(wheel: zipfile.Path) -> None:
    # a folder that .gitignore names (build/, runs/) would vanish from the wheel without a word
    found = (path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    hidden = re.compile(
        r"(^|/)(\.|__pycache__)|^leaderboard/results/"
    )  # what was measured is for readers of the repository
    sources = {path.as_posix() for path in found if not hidden.search(path.as_posix())}
    assert sources == {name for name in names(wheel) if name.split("/")[0] in PACKAGES}


def test_typed_marker(wheel: zipfile.Path) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= names(wheel)


def test_command_and_licence(wheel: zipfile.Path) -> None:
    points = configparser.ConfigParser()
    points.read_string((dist_info(wheel) / "entry_points.txt").read_text(encoding="utf-8"))
    assert dict(points["console_scripts"]) == {"bench": "bench.cli:main"}
    licence = (dist_info(wheel) / "licenses" / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_metadata(wheel: zipfile.Path) -> None:
    metadata = email.message_from_string((dist_info(wheel) / "METADATA").read_text(encoding="utf-8"))
    version = {}
    exec((ROOT / "bench" / "__init__.py").read_text(encoding="utf-8"), version)
    assert metadata["Name"] == "lowrank-bench"
    assert metadata["Version"] == version["__version__"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) >= {"embedded", "dev"}


def test_packages_import_from_the_wheel_alone(wheel: zipfile.Path, tmp_path: Path) -> None:
    # -P and an empty folder: nothing of this checkout is found by accident
    code = (
        f"import sys; sys.path.insert(0, {wheel.root.filename!r}); import {', '.join(PACKAGES)}, bench.core.registry;"
        f"print(*[p.__file__ for p in ({', '.join(PACKAGES)})], sep='\\n')"
    )
    out = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(line.startswith(str(wheel.root.filename)) for line in out.stdout.split()), out.stdout
