"""Every option of `--set namespace.key=value`, as `docs/options.md`.

    python docs/options.py

The page is made from the Configs, as `bench show` is. `tests/packaging/test_reference.py` compares the two.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from commands import cell, code

from bench.config.help import describe
from bench.config.options import Config, options_of, show
from bench.config.sections import SECTIONS, NewRowsConfig
from bench.core import registry
from bench.launchers.options import SlurmConfig

PAGE = Path(__file__).with_suffix(".md")
HEAD = """\
# Options

`--set namespace.key=value` sets an option; the flag may be repeated. Values are typed. An unknown key, a wrong type and
a value out of range end the command with exit code 2; the error names the nearest key and what is allowed. Several
values, `--set method.rank=4,8`, make a run each ([grids](grids.md)). In Python: `bench.run(…, set={"method.rank": 4})`.
`bench show NAME` prints the options of one name. `python docs/options.py` writes this page.

| namespace | options of |
| --- | --- |
| `method` | the [method](#methods) |
| `task` | the [task](#tasks) |
| `backbone` | the [backbone](#backbones) |
| `head`, `optim`, `penalty`, `allocation`, `spectra`, `data`, `runtime` | [every run](#every-run) |
| `slurm` | [`bench run --launcher slurm`](#launcher) |

The options of [experiments](#experiments) have no namespace: `bench reproduce parsimony --set width=30`.

"""
TUNERS = """\
### peft:NAME

The options are those of peft's own configuration class: `bench show peft:vera` lists them.

"""


def page() -> str:
    """Return the page."""
    return HEAD + "\n".join(line for part in (_every_run(), _names(), _launcher(), _experiments()) for line in part)


def _every_run() -> Iterator[str]:
    yield "## Every run\n"
    for space, config in SECTIONS.items():
        yield f"### {space}\n\n{_about(config)}\n"
        yield _table(config, space)


def _names() -> Iterator[str]:
    """Yield the options of methods, tasks and backbones by name; neighbours that have the same share a table."""
    for kind, space in (("methods", "method"), ("tasks", "task"), ("backbones", "backbone")):
        yield f"## {kind.capitalize()}\n"
        names = [*registry.BUILTIN[kind], *(["timm:NAME"] if kind == "backbones" else [])]
        texts = {name: _of_name(kind, name, space) for name in names}
        for text, group in groupby(names, texts.get):
            yield f"### {', '.join(group)}\n\n{text}"
        if kind == "methods":
            yield TUNERS
        if kind == "tasks":
            yield "### New rows\n\nWhat `bench predict` takes.\n"
            yield _table(NewRowsConfig, space)


def _of_name(kind: registry.Kind, name: str, space: str) -> str:
    config, rates = registry.load_config(kind, name), ""
    if kind == "methods":
        tried = ", ".join(map(_rate, config.learning_rates))
        rates = f"Learning rate {_rate(config.learning_rate)}; `--select lr` tries {tried}.\n\n"
    return f"{cell(describe(kind, name).summary)}\n\n{rates}{_table(config, space)}"


def _launcher() -> Iterator[str]:
    yield f"## Launcher\n\n{_about(SlurmConfig)} Other options of sbatch come from its environment variables.\n"
    yield _table(SlurmConfig, "slurm")


def _experiments() -> Iterator[str]:
    yield "## Experiments\n"
    for name in registry.BUILTIN["experiments"]:
        found = describe("experiments", name)
        yield f"### {name}\n\n{cell(found.summary)}\n"
        yield _table(found.subject.Config, "")
        if quick := " ".join(f"{key}={show(value)}" for key, value in found.subject.quick.items()):
            yield f"`--quick`: `{quick}`\n"


def _about(config: type[Config]) -> str:
    return cell(" ".join(inspect.cleandoc(config.__doc__ or "").partition("\n\n")[0].split()))


def _table(config: type[Config], space: str) -> str:
    limits = {field.name: field.metadata for field in dataclasses.fields(config)}
    rows = list[str]()
    for option in options_of(config).values():
        name = f"{space}.{option.name}" if space else option.name
        default = "(required)" if option.required else code(show(option.default)) if option.default != "" else "empty"
        help = f"{option.help} {_users(limits[option.name], space)}".strip()
        kind = cell(option.type).replace("&#124;", " &#124; ")
        columns = (code(name), kind, default, _range(limits[option.name]), cell(help))
        rows.append(f"| {' | '.join(columns)} |")
    if not rows:
        return "No options.\n"
    return "\n".join(["| option | type | default | range | meaning |", "| --- | --- | --- | --- | --- |", *rows, ""])


def _rate(rate: float) -> str:
    """Return 0.0003 as 3e-4."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _range(limits: Mapping[str, Any]) -> str:
    if limits.get("at_least") is not None and limits.get("at_most") is not None:
        return f"{_number(limits['at_least'])} to {_number(limits['at_most'])}"
    signs = {"at_least": "≥", "above": "&gt;", "at_most": "≤"}
    return ", ".join(f"{sign} {_number(limits[key])}" for key, sign in signs.items() if limits.get(key) is not None)


def _number(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else str(limit)


def _users(limits: Mapping[str, Any], space: str) -> str:
    """Return with which values of another option this one has an effect."""
    users = limits.get("used_with") or {}
    return " ".join(f"Only with {space}.{other} = {' or '.join(values)}." for other, values in users.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
