"""Write the result of an experiment: `result.json`, `figure.png`, `figure.html`, and a text for the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from bench import __version__
from bench.config.options import Config
from bench.core.files import write_atomic
from bench.core.text import table
from bench.experiments import Check, Control, Outcome
from bench.experiments.lab import Lab
from bench.figures import files as figures


def write(name: str, config: Config, outcome: Outcome, lab: Lab, figure: Path | None = None) -> list[Path]:
    """Write the files of an experiment, its figure also as `figure`, and return their paths."""
    result = lab.folder / "result.json"
    value = {
        **outcome.to_json(name),
        "config": config.to_json(),
        "quick": lab.quick,
        "data": sorted(lab.sources),
        "summary": outcome.summary,
        "table": [list(outcome.header), *map(list, outcome.rows)],
        "version": __version__,
    }
    write_atomic(result, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
    if outcome.figure is None:
        return [result]
    files = [lab.folder / "figure.png", lab.folder / "figure.html", *([figure] if figure else [])]
    for file in files:
        figures.write(outcome.figure, file)
    return [result, *files]


def text(name: str, outcome: Outcome) -> str:
    """Format verdict, checks, controls and table for the terminal."""
    parts = [f"{name}: {'held' if outcome.held else 'DID NOT HOLD'}"]
    parts += [outcome.summary] if outcome.summary else []
    parts.append(table(("check", "predicted", "measured", "tolerance", ""), [*map(_check_row, outcome.checks)]))
    if outcome.controls:
        parts.append(table(("control", "measured", "", "expected"), [*map(_control_row, outcome.controls)]))
    if outcome.rows:
        parts.append(table(outcome.header, outcome.rows))
    return "\n\n".join(parts)


def _check_row(check: Check) -> tuple[str, ...]:
    verdict = "held" if check.held else "NOT HELD"
    values = (f"{check.predicted:.6g}", f"{check.measured:.6g}", f"{check.tolerance:g}")
    return (check.name, *values, f"{verdict}: {check.note}" if check.note else verdict)


def _control_row(control: Control) -> tuple[str, ...]:
    verdict = "as expected" if control.held else "NOT AS EXPECTED"
    return (control.name, f"{control.measured:.6g}", verdict, control.expected)
