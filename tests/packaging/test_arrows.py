"""Who imports whom, read from the sources: packages in one order without exceptions, no cycle, no torch at start."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from bench.core import registry

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "torchvision", "lightning", "pytorch_lightning", "torchmetrics", "transformers", "timm", "wandb"}
HEAVY |= {"captum", "datasets", "pandas", "sklearn", "scipy", "matplotlib", "plotly", "peft"}
LIGHT = [
    *("bench/__init__.py", "bench/__main__.py", "bench/runs.py"),
    *("bench/core/*.py", "bench/config/*.py", "bench/records/*.py", "bench/cli/*.py", "bench/env/*.py"),
    "bench/cli/*/__init__.py",
    *("bench/api/backbone.py", "bench/api/task.py", "bench/api/batching.py", "bench/api/peft.py"),
    *("bench/api/__init__.py", "bench/api/lowrank/__init__.py", "bench/api/lowrank/config.py"),
    *(f"bench/harness/{name}.py" for name in ("request", "task_names", "inputs", "planner")),
    *("bench/harness/plan_text.py", "bench/harness/plan_file.py", "bench/harness/outlook.py"),
    *("bench/launchers/options.py", "bench/launchers/queue.py", "bench/launchers/submit.py"),
    *("bench/tracking/__init__.py", "bench/checks/__init__.py", "bench/checks/run.py", "bench/checks/plugin.py"),
    *("bench/figures/files.py", "methods/*/config.py", "methods/common/config.py"),
]
"""What the command line imports before it knows that something will be trained."""


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


packages = _module(ROOT / "docs" / "packages.py")
ARROWS: set[tuple[str, str]] = packages.arrows()


def test_a_package_imports_only_what_stands_below_it() -> None:
    place = {name: number for number, name in enumerate(packages.ORDER)}
    assert not [arrow for arrow in ARROWS if place[arrow[0]] <= place[arrow[1]]]


def test_every_module_is_in_a_package() -> None:
    files = [file for top in ("bench", "methods", "tasks", "leaderboard") for file in (ROOT / top).rglob("*.py")]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    assert {name for name in names if packages.package_of(name) is None} == {"bench.__init__", "bench.__main__"}


def test_the_picture_has_just_the_arrows_of_the_code() -> None:
    drawn = set(re.findall(r'<path id="([\w.]+)-&gt;([\w.]+)"', packages.PICTURE.read_text(encoding="utf-8")))
    assert drawn == ARROWS, "run `python docs/packages.py`"
    assert "figures/packages.svg" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_bench_loads_methods_and_tasks_by_name_alone() -> None:
    assert not [arrow for arrow in ARROWS if arrow[0].startswith("bench") and arrow[1] in ("methods", "tasks")]


def test_no_modules_import_each_other() -> None:
    """No cycle between modules either, imports inside functions included."""
    files = {}
    for top in ("bench", "methods", "tasks", "leaderboard"):
        for file in (ROOT / top).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph: dict[str, set[str]] = defaultdict(set)
    names = {file: name for name, file in files.items()}
    for one in packages.imports():
        target = one.module if one.module in files else one.module.rpartition(".")[0]
        if target in files and target not in ("bench", names[one.file]):
            graph[names[one.file]].add(target)
    assert _cycles(graph) == []


def _cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Every set of modules that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [*graph.get(start, ())]
        while todo:
            if (name := todo.pop()) not in seen:
                seen.add(name)
                todo += graph.get(name, ())
        return seen

    reach = {name: reached(name) for name in [*graph]}
    looped = [name for name in reach if name in reach[name]]
    found = {tuple(sorted({name} | {o for o in reach[name] if name in reach.get(o, ())})) for name in looped}
    return [list(cycle) for cycle in sorted(found)]


def test_a_cycle_is_seen() -> None:
    assert _cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


def light_files() -> list[Path]:
    return sorted({file for pattern in LIGHT for file in ROOT.glob(pattern)})


@pytest.mark.parametrize("pattern", LIGHT)
def test_light_modules_are_there(pattern: str) -> None:
    assert [*ROOT.glob(pattern)], "renamed? then rename it here"


def test_light_modules_bring_nothing_heavy_along() -> None:
    """One process for each, since what one brings would hide what the next one does."""
    modules = [".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in light_files()]
    modules.remove("bench.__main__")
    code = (
        "import importlib, json, sys\n"
        "seen, heavy = {}, set(json.loads(sys.argv[2]))\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        "    for root in heavy & set(sys.modules): seen.setdefault(root, name)\n"
        "print(json.dumps(seen))"
    )
    command = [sys.executable, "-c", code, json.dumps(modules), json.dumps(sorted(HEAVY))]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == {}, "package that came along: the light module that brought it"


def test_registered_tasks_backbones_and_experiments_bring_nothing_heavy_along() -> None:
    """`bench list` imports their classes; of a method it imports the Config."""
    code = (
        "import json, sys\nfrom bench.core import registry\n"
        "for kind in ('tasks', 'backbones', 'experiments', 'methods'):\n"
        "    for name in registry.BUILTIN[kind]: registry.load_config(kind, name)\n"
        "print(json.dumps(sorted(set(json.loads(sys.argv[1])) & set(sys.modules))))"
    )
    command = [sys.executable, "-c", code, json.dumps(sorted(HEAVY))]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


def test_the_leaderboard_knows_nothing_of_torch() -> None:
    drawing = {"plotly", "numpy"}  # for intervals and the page, when they are made
    wrong: list[str] = []
    for file in (ROOT / "leaderboard").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.partition(".")[0] for name in names}
            at_start = isinstance(node, ast.Import | ast.ImportFrom) and node.col_offset == 0
            if roots & (HEAVY - drawing) or (at_start and roots & drawing):
                wrong.append(f"{file.relative_to(ROOT)}: {roots}")
    assert not wrong


NAMES = [(kind, name) for kind in get_args(registry.Kind) for name in registry.BUILTIN[kind]]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_registered_classes_exist(kind: registry.Kind, name: str) -> None:
    entry = registry.find(kind, name)
    assert isinstance(registry.import_target(entry.target), type)
    assert not entry.config or registry.import_target(entry.target).Config is registry.import_target(entry.config)


def test_every_method_is_a_package_with_a_config() -> None:
    for name, entry in registry.BUILTIN["methods"].items():
        assert entry.target.startswith(f"methods.{name}.method:")
        assert entry.config.startswith(f"methods.{name}.config:")
    folders = {file.parent.name for file in (ROOT / "methods").glob("*/method.py")}
    assert folders == {*registry.BUILTIN["methods"], "peft_tuner"}


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution that adds the method `mine` and tries to take the name `lora`."""
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lowrank_bench.methods]\nmine = theirs_mod:Mine\nlora = theirs_mod:Mine\n")
    (tmp_path / "theirs_mod.py").write_text("class Mine: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()
    sys.modules.pop("theirs_mod", None)


@pytest.mark.usefixtures("third_party")
def test_installed_package_adds_a_method_and_takes_none_away() -> None:
    assert registry.load("methods", "mine").__name__ == "Mine"
    assert registry.find("methods", "lora") == registry.BUILTIN["methods"]["lora"]
