"""`bench.api`: light to import, whole, and as docs/api.md has it; methods of this suite need no more than it."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench.api

ROOT = Path(__file__).resolve().parents[2]


def page() -> Any:
    spec: Any = importlib.util.spec_from_file_location("api_page", ROOT / "docs" / "api.py")
    made: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_page_has_every_name_with_its_signatures() -> None:
    """A change of a signature that this finds raises `bench.api.VERSION`."""
    made = page()
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == made.page(), "run `python docs/api.py`"
    named = [name for names in made.GROUPS.values() for name in names]
    assert sorted([*named, "VERSION"]) == sorted(bench.api.__all__)


def test_every_name_is_imported_lazily_from_its_home() -> None:
    tree = ast.parse((ROOT / "bench" / "api" / "__init__.py").read_text(encoding="utf-8"))
    [guarded] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        (one.module, alias.name) for one in guarded.body if isinstance(one, ast.ImportFrom) for alias in one.names
    }
    homes = {(module, name) for module, names in bench.api._HOMES.items() for name in names}
    assert imported == homes
    assert {name for _, name in homes} | {"VERSION"} == {*bench.api.__all__}
    assert all(getattr(bench.api, name) is not None for name in bench.api.__all__)


def test_a_config_costs_no_torch() -> None:
    code = "import sys; from bench.api import MethodConfig, UpdateConfig, option; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"
