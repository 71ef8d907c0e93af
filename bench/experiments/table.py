"""Print all results in a folder as Markdown: `python -m bench.experiments.table DIR`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.config.help import describe
from bench.config.options import show
from bench.core import registry

Result = Mapping[str, Any]
"""A `result.json` of `bench.experiments.report`."""


def lines(folder: Path) -> Iterator[str]:
    """Yield a table of verdicts, then a section for each experiment, in the order of the registry."""
    results: dict[str, Result] = {}
    for name in registry.entries("experiments"):
        path = folder / name / "result.json"
        if path.is_file():
            results[name] = json.loads(path.read_text(encoding="utf-8"))
    yield "| experiment | claim | verdict |"
    yield "| --- | --- | --- |"
    for name, result in results.items():
        checks = [*result["checks"], *result["controls"]]
        count = sum(check["held"] for check in checks)
        verdict = "held" if result["held"] else f"**did not hold** ({count} of {len(checks)})"
        yield f"| [{name}](#{name}) | {describe('experiments', name).summary} | {verdict} |"
    for name, result in results.items():
        yield from _section(name, result)


def _section(name: str, result: Result) -> Iterator[str]:
    yield f"\n## {name}\n"
    yield f"```\n{_command(name, result)}\n```\n"
    data = f" Data: {'; '.join(result['data'])}." if result["data"] else ""
    yield f"{result['summary']}{data}\n"
    yield "| check | predicted | measured | tolerance | |\n| --- | ---: | ---: | ---: | --- |"
    for check in result["checks"]:
        held = "held" if check["held"] else "**not held**"
        note = f": {check['note']}" if "note" in check else ""
        values = " | ".join(_number(check[key]) for key in ("predicted", "measured", "tolerance"))
        yield f"| {_cell(check['name'])} | {values} | {held}{note} |"
    for control in result["controls"]:
        held = "as expected" if control["held"] else "**not as expected**"
        values = f"{_cell(control['expected'])} | {_number(control['measured'])}"
        yield f"| control: {_cell(control['name'])} | {values} | | {held} |"
    header, *rows = result["table"]
    if rows:
        yield f"\n| {' | '.join(map(_cell, header))} |\n|{' --- |' * len(header)}"
        yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _command(name: str, result: Result) -> str:
    """Return the command: `--quick`, and options that differ from their defaults."""
    known = describe("experiments", name)
    defaults = {option.name: option.default for option in known.options}
    defaults |= known.subject.quick if result["quick"] else {}
    given = [f"--set {key}={show(value)}" for key, value in result["config"].items() if defaults.get(key) != value]
    return " ".join([f"bench reproduce {name}", *(["--quick"] if result["quick"] else []), *given])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|")


if __name__ == "__main__":
    print("\n".join(lines(Path(sys.argv[1]))))
