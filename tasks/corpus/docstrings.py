"""The Python standard library's own docstrings, read from its source by `ast`; nothing of it is imported or run.

An example is a docstring and what it belongs to. Which there are depends on the version of Python, so the hash of the
texts is the corpus's revision.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.core.errors import DataProblem
from bench.core.files import write_atomic

KINDS = ("module", "class", "function", "method")
"""What a docstring belongs to; the index is the label. A function in a class is a method."""
TESTS = frozenset({"test", "tests", "idle_test"})
"""Folders of tests, which distributions of Python leave out or not."""
Docstring = tuple[str, str]
"""Text and kind."""


def gather(cache: Path) -> list[Docstring]:
    """Every docstring once, sorted by text; one that several things have is of the first one's kind.

    Args:
        cache: folder for what was found, since parsing all files takes seconds; by their names, sizes and times.

    Raises:
        DataProblem: this Python comes without source.
    """
    files = sources()
    stamp = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()]]
    key = hashlib.sha256(json.dumps([sys.version, stamp]).encode()).hexdigest()
    kept = cache / "docstrings" / f"{key}.json"
    with suppress(OSError, ValueError, TypeError):
        return [(text, kind) for text, kind in json.loads(kept.read_text(encoding="utf-8"))]
    kinds: dict[str, str] = {}
    for file in files:
        for text, kind in docstrings(file.read_bytes()):
            kinds.setdefault(text, kind)
    found = sorted(kinds.items())
    _keep(found, kept)
    return found


def sources() -> list[Path]:
    """Files of all modules of the standard library that are written in Python, in order of their names.

    Raises:
        DataProblem: there are none.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found: list[Path] = []
    for name in sorted(sys.stdlib_module_names):
        below = sorted((root / name).rglob("*.py"), key=lambda file: file.relative_to(root).as_posix())
        found += [file for file in (root / f"{name}.py", *below) if file.is_file()]
    found = [file for file in found if TESTS.isdisjoint(file.relative_to(root).parts)]
    if not found:
        raise DataProblem(
            "this Python comes without the source of its standard library",
            f"looked in {root}",
            "Name texts of your own: --task corpus:PATH.",
        )
    return found


def docstrings(source: bytes) -> Iterator[Docstring]:
    """Docstrings of one file, indentation taken off; none of a file that is no Python of this version."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # the library keeps broken files to test its own parsers
        return
    for kind, node in (("module", tree), *_definitions(tree, in_class=False)):
        text = ast.get_docstring(node)
        if text and text.strip() and _is_unicode(text):
            yield text, kind


Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST, *, in_class: bool) -> Iterator[tuple[str, Definition]]:
    for child in ast.iter_child_nodes(node):
        inside = in_class
        if isinstance(child, ast.ClassDef):
            yield "class", child
            inside = True
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ("method" if in_class else "function"), child
            inside = False
        if isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            yield from _definitions(child, in_class=inside)


def _is_unicode(text: str) -> bool:
    """A literal may hold half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keep(found: list[Docstring], file: Path) -> None:
    """Atomically; a cache that cannot be written is no reason to stop."""
    with suppress(OSError):
        write_atomic(file, json.dumps(found, ensure_ascii=False).encode())


def revision(found: list[Docstring]) -> str:
    """12 hex digits of the sha256 over texts and kinds in order."""
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
