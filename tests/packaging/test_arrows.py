"""Who may import whom, read from the sources: `bench` by name only, plug-ins the interfaces only, no torch at start."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

from bench.core import registry

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "torchvision", "lightning", "pytorch_lightning", "torchmetrics", "transformers", "timm", "wandb"}
HEAVY |= {"captum", "datasets", "pandas", "sklearn", "scipy", "matplotlib", "plotly", "peft"}
PROJECT = {"bench", "methods", "tasks", "leaderboard"}

INTERFACES = {
    "methods": "methods bench.api.method bench.config.sections bench.core.random bench.core.errors bench.api.peft bench.api.running_statistics bench.spectra "
    "bench.api.task bench.config.peft_options bench.backbones",
    "tasks": "tasks bench.api.task bench.records.data bench.core.errors bench.config.sections bench.records.spec bench.api.metrics bench.backbones "
    "bench.api.batching bench.core.random bench.core.hub",
    "leaderboard": "leaderboard bench.records.record bench.records.spec bench.core.errors bench.figures",
}
"""What of the project each package may import: a name stands for the module and all below it."""

LIGHT_BENCH = ["__init__", "cli", "config", "data", "describe", "errors", "exchange", "guard", "hub", "opening", "plan"]
LIGHT_BENCH += ["plan_words", "record", "registry", "settings", "spec", "task", "tracking/__init__", "tuners"]
"""Modules (or packages) of `bench` that the command line imports before it knows that something will be trained."""


class Import(NamedTuple):
    """One import statement's module; `from a import b` gives `a.b`, since b may be a module."""

    module: str
    line: int
    at_start: bool
    """It runs when the file is imported, not first when a function is called."""


def walk(node: ast.AST, package: str, *, at_start: bool = True) -> Iterator[Import]:
    """Imports below `node`; those under TYPE_CHECKING never run and are left out."""
    children = ast.iter_child_nodes(node)
    match node:
        case ast.Import():
            yield from (Import(alias.name, node.lineno, at_start) for alias in node.names)
        case ast.ImportFrom():
            parts = package.split(".")
            above = parts[: len(parts) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (Import(f"{base}.{alias.name}", node.lineno, at_start) for alias in node.names)
        case ast.If() if ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            children = iter(node.orelse)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            at_start = False
    for child in children:
        yield from walk(child, package, at_start=at_start)


def imports(path: Path) -> list[Import]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return list(walk(ast.parse(path.read_text(encoding="utf-8")), package))


def sources(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def relative(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


LIGHT = sources("leaderboard/**/*.py", "tasks/[!_]*.py", "tasks/__init__.py")
LIGHT += sources(*(f"bench/{name}{rest}" for name in LIGHT_BENCH for rest in (".py", "/**/*.py")))


@pytest.mark.parametrize("name", LIGHT_BENCH)
def test_light_modules_are_there(name: str) -> None:
    assert {f"bench/{name}.py", f"bench/{name}/__init__.py"} & set(relative(LIGHT)), "renamed? then rename it here"


@pytest.mark.parametrize("file", relative(sources("bench/**/*.py")))
def test_bench_names_plug_ins_and_never_imports_them(file: str) -> None:
    wrong = [f"{file}:{i.line} {i.module}" for i in imports(ROOT / file) if within(i.module, {"methods", "tasks"})]
    assert not wrong, "bench loads methods and tasks through bench.core.registry alone"


@pytest.mark.parametrize("file", relative(sources(*(f"{package}/**/*.py" for package in INTERFACES))))
def test_plug_ins_and_tables_import_interfaces_only(file: str) -> None:
    allowed = set(INTERFACES[file.split("/")[0]].split())
    inside = [i for i in imports(ROOT / file) if within(i.module, PROJECT)]
    wrong = [f"{file}:{i.line} {i.module}" for i in inside if not within(i.module, allowed)]
    assert not wrong, f"allowed are {sorted(allowed)}"


@pytest.mark.parametrize("file", relative(sources("leaderboard/**/*.py")))
def test_leaderboard_knows_nothing_of_torch(file: str) -> None:
    drawing = {"plotly", "numpy"}  # for intervals and the page, when they are made
    heavy = HEAVY | {"numpy"}
    assert not [f"{file}:{i.line} {i.module}" for i in imports(ROOT / file) if within(i.module, heavy - drawing)]
    assert not [f"{file}:{i.line} {i.module}" for i in imports(ROOT / file) if i.at_start and within(i.module, heavy)]


@pytest.mark.parametrize("file", relative(LIGHT))
def test_light_modules_import_nothing_heavy_at_start(file: str) -> None:
    assert not [f"{file}:{i.line} {i.module}" for i in imports(ROOT / file) if i.at_start and within(i.module, HEAVY)]


def test_light_modules_bring_nothing_heavy_along() -> None:
    modules = [file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in relative(LIGHT)]
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


FORMS = {
    "import torch.nn as nn": [("torch.nn", True)],
    "try:\n    from torch import nn\nexcept ImportError:\n    pass": [("torch.nn", True)],
    "class A:\n    import torch": [("torch", True)],
    "def f():\n    import torch": [("torch", False)],
    "if TYPE_CHECKING:\n    import torch\nelse:\n    import wandb": [("wandb", True)],
    "from bench import runner": [("bench.harness.runner", True)],
    "from . import runner": [("bench.spectra.runner", True)],
    "from ..plan import Plan": [("bench.harness.planner.Plan", True)],
}


@pytest.mark.parametrize("text", FORMS)
def test_reader_sees_every_form_of_import(text: str) -> None:
    found = walk(ast.parse(text), "bench.spectra")
    assert [(i.module, i.at_start) for i in found] == FORMS[text]


NAMES = [(kind, name) for kind in get_args(registry.Kind) for name in registry.entries(kind)]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_registered_module_and_class_exist(kind: registry.Kind, name: str) -> None:
    module, colon, attribute = registry.where(kind, name).partition(":")
    found = importlib.util.find_spec(module)
    assert colon, f"{registry.where(kind, name)} is not module:Class"
    assert found is not None, f"no module {module}"
    assert found.origin is not None, f"{module} is a folder without __init__.py"
    body = ast.parse(Path(found.origin).read_text(encoding="utf-8")).body
    assert attribute in {node.name for node in body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("kind", ["methods", "tasks"])
def test_every_public_file_is_registered(kind: registry.Kind) -> None:
    named = {**registry.BUILTIN[kind], **registry.PREFIXES.get(kind, {})}
    registered = {value.partition(":")[0] for value in named.values()}
    bases = {"tasks.text.task", "tasks.images.base"}  # what packages of others build on
    assert {f"{kind}.{path.stem}" for path in sources(f"{kind}/[!_]*.py")} - bases == registered


def test_methods_are_registered_under_their_file_names() -> None:
    values = registry.BUILTIN["methods"].items()
    assert not [name for name, value in values if not value.startswith(f"methods.{name}:")]


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
    assert registry.where("methods", "lora") == registry.BUILTIN["methods"]["lora"]
