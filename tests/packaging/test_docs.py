"""What the papers beside the code say is true: commands, links, versions, no path of one machine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import bench
from bench.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
BESIDE = "../" + "shared"
MACHINE = re.compile(r"(?<![\w.$}>-])/(?:home|Users|root|work)/[\w.-]")
"""A path under someone's home or this kind of checkout; not part of a longer path or address."""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> str:
    return "\n".join(re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, flags=re.M | re.S))


def commands(text: str) -> list[str]:
    return [line.strip().removeprefix("$ ") for line in blocks(text).splitlines()]


def test_ci_runs_exactly_the_readme_test_command() -> None:
    [tests] = re.findall(r"^step '(.*\bpytest\b.*)'$", read(".ci/run"), flags=re.M)
    assert tests == 'pip install -e ".[dev]" && pytest'
    assert tests in commands(read("README.md"))
    assert tests in commands(read("CONTRIBUTING.md"))


def test_readme_sets_up_and_runs_in_one_line() -> None:
    first = 'pip install -e ".[embedded]" && bench run --method deeplora --task glue'
    assert first in commands(read("README.md")[:4000])


def test_readme_is_short_and_its_table_is_what_its_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = read("README.md")
    assert len(text.splitlines()) < 150
    [command] = re.findall(r"^bench (leaderboard .*)$", blocks(text).replace("\\\n", " "), flags=re.M)[:1]
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)) == 0
    _, *printed = cells(capsys.readouterr().out)
    header, *rows = cells(text)
    assert header[0] == "method" and len(rows) == 3
    for row in rows:
        [whole] = (one for one in printed if one[1:2] == row[:1])
        assert set(row) <= set(whole)


def cells(text: str) -> list[list[str]]:
    """The rows of the first table, header first."""
    [table] = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)[:1]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return [header, *rows]


def test_ci_is_executable_and_stops_on_failure(tmp_path: Path) -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    # a copy whose every tool is a stub that fails: the first failing step must end it
    for folder in (tmp_path / "checkout" / ".ci", tmp_path / "bin"):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", tmp_path / "checkout" / ".ci" / "run")
    venv = 'd=$3/bin; mkdir -p "$d"; touch "$d/activate"\n'
    for tool, body in {"python3": venv, "pip": "exit 7\n", "pytest": "", "ruff": "", "pyright": ""}.items():
        stub = tmp_path / "bin" / tool
        stub.write_text(f"#!/bin/bash\necho {tool} called\n{body}")
        stub.chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "TMPDIR": str(tmp_path / "bin")}
    command = ["bash", str(tmp_path / "checkout" / ".ci" / "run")]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert out.returncode == 7, out.stdout + out.stderr
    assert [line for line in out.stdout.splitlines() if "called" in line] == ["python3 called", "pip called"]
    assert not list((tmp_path / "bin").glob("tmp.*")), "the environment is removed"


def tracked() -> list[str]:
    out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if out.returncode:
        pytest.skip("not a git checkout")
    return [name for name in out.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    wrong = []
    for name in tracked():
        lines = (ROOT / name).read_bytes().decode(errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            beside = BESIDE in line and name != ".ci/run"
            if beside or str(ROOT) + "/" in line or MACHINE.search(line):
                wrong.append(f"{name}:{number} {line.strip()[:100]}")
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    links = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    links += re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, flags=re.M)
    local = [link.partition("#")[0] for link in links if not re.match(r"[a-z][a-z0-9+.-]*:", link)]
    assert not [link for link in local if link and not (page.parent / link).exists()]


def test_version_is_the_same_everywhere() -> None:
    assert re.search(r"^version: (\S+)$", read("CITATION.cff"), flags=re.M)[1] == bench.__version__
    assert re.search(r"^## \[(\S+)\]", read("CHANGELOG.md"), flags=re.M)[1] == bench.__version__
    assert "2503.19859" in read("CITATION.cff")
