"""The packages of lowrank-bench and which of them import which, as `docs/figures/packages.svg`.

    python docs/packages.py

Every arrow is an import in the code, lazy ones included, but not those for type checkers alone. Arrows that follow from
others are drawn faint. `tests/packaging/test_arrows.py` holds the picture and the order below against the code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "figures" / "packages.svg"
ORDER = (
    "bench.core",
    "bench.config",
    "bench.records",
    "bench.spectra",
    "bench.figures",
    "bench.api",
    "methods",
    "tasks",
    "bench.backbones",
    "bench.spectra.files",
    "bench.spectra.tracking",
    "bench.training",
    "bench.tracking",
    "bench.env",
    "bench.harness",
    "bench.deploy",
    "bench.launchers",
    "leaderboard",
    "bench.runs",
    "bench.checks",
    "bench.experiments",
    "bench.benchmarks",
    "bench.cli",
)
"""From the lowest: a package imports only packages that stand before it."""
SAYS = {
    "bench.core": "errors, registry, files, random, text",
    "bench.config": "options, --set, help",
    "bench.records": "specification, record, data",
    "bench.spectra": "rank metrics, pure functions",
    "bench.figures": "figures as data; pictures, page",
    "bench.api": "Method, Task, Backbone, data module",
    "methods": "one package a method",
    "tasks": "one package a family of tasks",
    "bench.backbones": "networks by name",
    "bench.spectra.files": "spectra and weights on disk",
    "bench.spectra.tracking": "spectra during training",
    "bench.training": "trainer, callbacks, checkpoint",
    "bench.tracking": "W&B and other mirrors",
    "bench.env": "preflight, doctor",
    "bench.harness": "request, plan, runner, worker",
    "bench.deploy": "predictions, exported models",
    "bench.launchers": "arrays of workers on Slurm",
    "leaderboard": "tables, rendering, comparison",
    "bench.runs": "the Python API",
    "bench.checks": "the contract of a method",
    "bench.experiments": "the survey's claims",
    "bench.benchmarks": "timings",
    "bench.cli": "the command line",
}


class Import(NamedTuple):
    """One import: the file that has it, its line, and the module, with the imported name behind a dot."""

    file: Path
    line: int
    module: str


def package_of(module: str) -> str | None:
    """Return the package of `ORDER` that a module, or a name in it, belongs to; None for others."""
    found = [name for name in ORDER if module == name or module.startswith(f"{name}.")]
    return max(found, key=len, default=None)


def imports() -> Iterator[Import]:
    """Yield every import of this project's own packages, but those under `if TYPE_CHECKING`."""
    for top in ("bench", "methods", "tasks", "leaderboard"):
        for file in sorted((ROOT / top).rglob("*.py")):
            for node in _running(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    yield from (Import(file, node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
                elif isinstance(node, ast.Import):
                    yield from (Import(file, node.lineno, alias.name) for alias in node.names)


def arrows() -> set[tuple[str, str]]:
    """Return the pairs of packages of which the first imports the second."""
    found: set[tuple[str, str]] = set()
    for one in imports():
        module = ".".join(one.file.relative_to(ROOT).with_suffix("").parts)
        source, target = package_of(module), package_of(_api(one.module))
        if source and target and source != target:
            found.add((source, target))
    return found


def _api(module: str) -> str:
    """`bench.run` and the like are names of `bench.runs`."""
    return "bench.runs" if module in ("bench", "bench.run", "bench.plan", "bench.load", "bench.Runs") else module


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: not the body of `if TYPE_CHECKING`."""
    yield node
    skip = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for child in node.orelse if skip else ast.iter_child_nodes(node):
        yield from _running(child)


PLACES: dict[str, tuple[float, float]] = {
    "bench.cli": (2, 0),
    "bench.checks": (0.5, 1),
    "bench.experiments": (1.5, 1),
    "bench.benchmarks": (2.5, 1),
    "bench.runs": (2, 2),
    "bench.launchers": (0.9, 2),
    "bench.deploy": (3.1, 2),
    "bench.harness": (1.6, 3),
    "leaderboard": (4, 3),
    "bench.env": (0.6, 4),
    "bench.training": (1.6, 4),
    "bench.tracking": (3.1, 4),
    "bench.spectra.tracking": (2.4, 5),
    "methods": (0, 6),
    "tasks": (1, 6),
    "bench.backbones": (2, 6),
    "bench.spectra.files": (3, 6),
    "bench.api": (1.2, 7),
    "bench.figures": (3.6, 7),
    "bench.spectra": (0.6, 8),
    "bench.records": (2, 8),
    "bench.config": (2, 9),
    "bench.core": (2.8, 10),
}
"""Column and row of each package in the picture, from the upper left."""
WIDTH, HEIGHT, GAP, ROW = 218, 46, 34, 92
"""Sizes of a box and distances between boxes, in pixels."""


def places() -> dict[str, tuple[float, float]]:
    """Return the upper left corner of every box."""
    return {name: (GAP / 2 + x * (WIDTH + GAP), 12 + y * ROW) for name, (x, y) in PLACES.items()}


def draw(pairs: set[tuple[str, str]]) -> str:
    """Return the picture of these arrows as SVG; an arrow has the id `source->target`."""
    at, lines = places(), list[str]()
    for source, target in sorted(pairs):
        (x1, y1), (x2, y2) = at[source], at[target]
        x1, x2 = x1 + WIDTH / 2, x2 + WIDTH / 2
        start, end = (y1 + HEIGHT, y2 - 7) if y2 > y1 else (y1 + HEIGHT / 2, y2 + HEIGHT / 2)
        bend = (end - start) / 2
        kind = "main" if _direct(source, target, pairs) else "implied"
        path = f"M{x1:.0f} {start:.0f} C{x1:.0f} {start + bend:.0f} {x2:.0f} {end - bend:.0f} {x2:.0f} {end:.0f}"
        lines.append(f'<path id="{source}-&gt;{target}" class="{kind}" d="{path}" marker-end="url(#{kind})"/>')
    lines.sort(key=lambda line: 'class="main"' in line)  # on top
    for name, (x, y) in at.items():
        middle = x + WIDTH / 2
        lines.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>')
        lines.append(f'<text x="{middle:.0f}" y="{y + 20:.0f}" class="name">{name}</text>')
        lines.append(f'<text x="{middle:.0f}" y="{y + 36:.0f}">{escape(SAYS[name])}</text>')
    width = max(x for x, _ in at.values()) + WIDTH + GAP / 2
    height = max(y for _, y in at.values()) + HEIGHT + 12
    return _FRAME.format(width=round(width), height=round(height), body="\n".join(lines))


def _direct(source: str, target: str, pairs: set[tuple[str, str]]) -> bool:
    """Whether no longer way leads from one to the other."""
    return not any(_reaches(middle, target, pairs) for start, middle in pairs if start == source and middle != target)


def _reaches(source: str, target: str, pairs: set[tuple[str, str]]) -> bool:
    return source == target or any(_reaches(b, target, pairs) for a, b in pairs if a == source)


_FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<style>
  svg {{ background: #fff; font-family: system-ui, sans-serif; }}
  rect {{ fill: #f4f6fb; stroke: #5b6b8c; }}
  text {{ text-anchor: middle; font-size: 11px; fill: #44506a; }}
  .name {{ font-size: 13px; font-weight: 600; fill: #1b2437; }}
  path {{ fill: none; }}
  .main {{ stroke: #2f5bd0; stroke-width: 1.6; }}
  .implied {{ stroke: #9aa5bd; stroke-width: 0.8; opacity: 0.35; }}
</style>
<defs>
<marker id="main" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="6" markerHeight="6" orient="auto">
<path d="M0 0L8 4L0 8z" style="fill:#2f5bd0"/></marker>
<marker id="implied" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="5" markerHeight="5" orient="auto">
<path d="M0 0L8 4L0 8z" style="fill:#9aa5bd"/></marker>
</defs>
{body}
</svg>
"""

if __name__ == "__main__":
    PICTURE.write_text(draw(arrows()), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
