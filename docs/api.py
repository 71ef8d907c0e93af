"""The stable surface `bench.api`, as `docs/api.md`: every name with its signatures and what it is for.

    python docs/api.py

`tests/packaging/test_api.py` holds the page against the code, so that no signature changes unnoticed.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import bench.api

PAGE = Path(__file__).with_suffix(".md")
HEAD = f"""\
# `bench.api`: what a method imports

Version {bench.api.VERSION}. A method of another package imports its names from `bench.api` alone;
[methods.md](methods.md) leads from an empty file to a row in a table. The first number of `bench.api.VERSION` rises
when a method written for the version before might no longer work, the second when something is added. Everything else
in `bench` may change at any time. `python docs/api.py` writes this page from the code.

Hooks of a `Method` have a default, except `adapt`, or for a `LowRank` method `layer`. `bench check METHOD` says whether
they agree with each other.
"""
GROUPS = {
    "A method": ("Method", "MethodConfig", "option", "Batch", "Network", "TaskSpec", "ParamGroup", "split_groups"),
    "Low-rank methods": (
        *("LowRank", "UpdateConfig", "FactoredLinear", "Base", "Layers", "Delta", "matricize"),
        *("find_targets", "match_names", "replace_layer", "orthogonal", "principal_factors"),
    ),
    "Exchange with peft": ("PeftAdapter", "PeftFolder", "lora_adapter"),
    "Errors": ("UsageError",),
}


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts += [f"## {title}\n", *map(_entry, names)]
    return "\n".join(parts)


def _entry(name: str) -> str:
    value = getattr(bench.api, name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):  # a name for a type
        return f"**`{name}`** is `{re.sub(r'(torch|typing|collections)[.a-z]*[.]', '', str(value))}`.\n"
    [node] = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    lines = _of_class(node) if isinstance(node, ast.ClassDef) else [_signature(node)]
    code = "\n".join(lines).replace("'", '"')  # as ruff formats it
    return "\n".join([f"**`{name}`**: {_first(node)}\n", "```python", code, "```\n"])


def _of_class(node: ast.ClassDef) -> Iterator[str]:
    bases = [ast.unparse(base) for base in node.bases]
    yield f"class {node.name}({', '.join(bases)}):" if bases else f"class {node.name}:"
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            value = part.value
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "option":  # its help is in `bench show`
                value = value.args[0]
            yield f"    {ast.unparse(part.target)}: {ast.unparse(part.annotation)}" + (
                f" = {ast.unparse(value)}" if value else ""
            )
        elif isinstance(part, ast.FunctionDef) and (part.name == "__init__" or part.name[0] != "_"):
            yield f"    {_signature(part)}"
            yield from textwrap.wrap(f"# {_first(part)}", 116, initial_indent=" " * 8, subsequent_indent=" " * 8 + "# ")


def _signature(node: ast.stmt) -> str:
    assert isinstance(node, ast.FunctionDef)
    return f"def {node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns) if node.returns else 'None'}"


def _first(node: ast.stmt) -> str:
    """Return the first paragraph of a docstring."""
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    return " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
