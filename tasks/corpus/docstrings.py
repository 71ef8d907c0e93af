"""The docstrings of the Python standard library, read from its source by `ast`; nothing of it is imported or run.

An example is a docstring and the kind of object it belongs to. They depend on the version of Python, so the hash of the
texts is the revision of the dataset.
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
from tasks.io.readers import is_unicode

KINDS = ("module", "class", "function", "method")
"""Kinds of object that have docstrings; the index is the label. A function in a class is a method."""
TESTS = frozenset({"test", "tests", "idle_test"})  # folders of tests, which some distributions of Python leave out
Docstring = tuple[str, str]  # text and kind


def gather(cache: Path) -> list[Docstring]:
    """Return every docstring once, sorted by text; one that several objects have is of the kind of the first.

    The result is kept in the cache, since parsing takes seconds. Its key is the files' names, sizes and times.

    Raises:
        DataProblem: this Python comes without source.
    """
    files = source_files()
    stamp = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()]]
    key = hashlib.sha256(json.dumps([sys.version, stamp]).encode()).hexdigest()
    kept = cache / "docstrings" / f"{key}.json"
    with suppress(OSError, ValueError, TypeError):
        return [(text, kind) for text, kind in json.loads(kept.read_text(encoding="utf-8"))]
    kinds: dict[str, str] = {}
    for file in files:
        for text, kind in docstrings(file.read_bytes()):
            kinds.setdefault(text, kind)
    gathered = sorted(kinds.items())
    with suppress(OSError):  # the cache only saves time
        write_atomic(kept, json.dumps(gathered, ensure_ascii=False).encode())
    return gathered


def source_files() -> list[Path]:
    """Return the files of all modules of the standard library that are written in Python, in order of their names.

    Raises:
        DataProblem: there are none.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files: list[Path] = []
    for name in sorted(sys.stdlib_module_names):
        below = sorted((root / name).rglob("*.py"), key=lambda file: file.relative_to(root).as_posix())
        files += [file for file in (root / f"{name}.py", *below) if file.is_file()]
    files = [file for file in files if TESTS.isdisjoint(file.relative_to(root).parts)]
    if not files:
        what = "this Python comes without the source of its standard library"
        raise DataProblem(what, f"looked in {root}", "Name texts of your own: --task corpus:PATH.")
    return files


def docstrings(source: bytes) -> Iterator[Docstring]:
    """Yield the docstrings of one file without indentation; none of a file that this version of Python cannot parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # the library keeps broken files to test its own parsers
        return
    for kind, node in (("module", tree), *_definitions(tree, in_class=False)):
        text = ast.get_docstring(node)
        if text and text.strip() and is_unicode(text):  # a literal may hold half a surrogate pair
            yield text, kind


Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST, *, in_class: bool) -> Iterator[tuple[str, Definition]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield "class", child
            yield from _definitions(child, in_class=True)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield ("method" if in_class else "function"), child
            yield from _definitions(child, in_class=False)
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _definitions(child, in_class=in_class)


def revision(gathered: list[Docstring]) -> str:
    """Return 12 hex digits of the sha256 of texts and kinds in order."""
    text = json.dumps(gathered, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
