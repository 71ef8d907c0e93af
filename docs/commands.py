"""Every verb of `bench` with its flags, as `docs/commands.md`.

    python docs/commands.py

The page is made from the parsers, so it says what `--help` says. `tests/packaging/test_reference.py` compares the two.
"""

from __future__ import annotations

import argparse
import html
import re
from collections.abc import Iterator
from pathlib import Path

from bench.cli import VERBS, verb_module
from bench.cli.parser import common

PAGE = Path(__file__).with_suffix(".md")
HEAD = """\
# Commands

Every verb, from the same parsers as `bench VERB --help`. `python docs/commands.py` writes this page.
[Options](options.md) lists what `--set` takes.

"""
SHARED = """\
## Flags of every verb

Results go to stdout, progress and messages to stderr. Colours are used on a terminal, unless `NO_COLOR` is set. Flags
are not abbreviated. Lists are written with commas and without spaces.

"""
EXIT_CODES = """\
## Exit codes

| code | meaning |
| --- | --- |
| 0 | all done; tasks that a data directory does not hold are named |
| 1 | some run failed, or something that was asked for could not be opened |
| 2 | usage: an unknown name, key or value |
| 3 | environment: no run can start; with `--strict`, some cannot |
| 4 | a check did not hold |
| 75 | preempted (TERM, HUP, USR1, USR2); the same command goes on ([clusters](clusters.md)) |
| 130 | interrupted (Ctrl-C); finished runs stay |

An error on stderr has three parts: what happened, what is known, what to do. With `--json` it is an object on stdout
too.
"""


def page() -> str:
    """Return the page."""
    lines = [f"| [`bench {verb}`](#bench-{verb}) | {about} |" for verb, (_, about) in VERBS.items()]
    index = "\n".join(["| verb | what it does |", "| --- | --- |", *lines, "", ""])
    verbs = "\n".join(line for verb in VERBS for line in _section(verb_module(verb).parser(), VERBS[verb][1]))
    shared = _table(_shown(common()))
    return f"{HEAD}{index}{verbs}\n{SHARED}{shared}\n{EXIT_CODES}"


def _section(parser: argparse.ArgumentParser, about: str) -> Iterator[str]:
    """Yield the lines of a verb: what it does, its usage, a table of flags for each group, its examples."""
    yield f"## {parser.prog}\n"
    text = " ".join((parser.description or f"{about[0].upper()}{about[1:]}.").split())
    yield f"{html.escape(text, quote=False)}\n"
    yield f"```\n{_usage(parser)}\n```\n"
    shared = {flag for action in common()._actions for flag in action.option_strings}
    first, second, *others = parser._action_groups  # what argparse calls positional arguments and options
    if actions := [one for one in [*_shown(first), *_shown(second)] if not shared & {*one.option_strings}]:
        yield _table(actions)
    if parser.prog == "bench plan":
        yield f"And these flags of [`bench run`](#bench-run): {'; '.join(str(group.title) for group in others)}.\n"
        others = []
    for group in others:
        yield f"{str(group.title)[0].upper()}{str(group.title)[1:]}:\n"
        yield _table(_shown(group))
    yield "```\n" + "\n".join(line.strip() for line in (parser.epilog or "").splitlines()[1:]) + "\n```\n"


def _shown(group: argparse._ActionsContainer) -> list[argparse.Action]:
    actions: list[argparse.Action] = getattr(group, "_group_actions", group._actions)
    return [one for one in actions if one.help is not argparse.SUPPRESS and not isinstance(one, argparse._HelpAction)]


def _usage(parser: argparse.ArgumentParser) -> str:
    """Return the verb's own usage, or what must be given; that of argparse differs between versions of Python."""
    if parser.usage:
        return re.sub(r"\n +", "\n", parser.usage)
    positional = [_values(one) for one in parser._actions if not one.option_strings]
    return " ".join([parser.prog, *positional, "[flags]"])


def _table(actions: list[argparse.Action]) -> str:
    rows = [_row(action) for action in actions]
    width = 3 if any(default for *_, default in rows) else 2  # no column of defaults where there are none
    lines = [("flag", "what it does", "default"), ("---",) * 3, *rows]
    return "\n".join([*(f"| {' | '.join(line[:width])} |" for line in lines), ""])


def _row(action: argparse.Action) -> tuple[str, str, str]:
    help, default = action.help or "", ""
    if found := re.search(r"\s*\(default: (.*)\)$", help):
        help, default = help[: found.start()], found[1]
    elif action.option_strings and action.default and action.default != argparse.SUPPRESS:
        default = str(action.default)
    flags = [f"{flag} {_values(action)}".rstrip() for flag in action.option_strings] or [_values(action)]
    return ", ".join(map(code, flags)), cell(help), cell(default)


def _values(action: argparse.Action) -> str:
    """Return how the values of a flag or position are written; nothing for a switch."""
    if action.nargs == 0:
        return ""
    names = action.metavar or action.dest.upper()
    name = " ".join(names) if isinstance(names, tuple) else names
    return f"[{name}]" if action.nargs in ("?", "*") else f"{name} …" if action.nargs == "+" else name


def code(text: str) -> str:
    """Return a text as code in a cell, on one line."""
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>"


def cell(text: str) -> str:
    """Return a text as a cell: what stands in backticks stays code."""
    parts = re.split(r"`([^`]*)`", text.replace("%%", "%"))
    plain = [html.escape(part, quote=False).replace("|", "&#124;").replace("*", "&#42;") for part in parts]
    return "".join(code(parts[i]) if i % 2 else plain[i] for i in range(len(parts)))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
