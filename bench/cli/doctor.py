"""`bench doctor`: what this machine has, and what is broken."""

from __future__ import annotations

import argparse

from bench.cli.output import emit
from bench.cli.parser import Parser, common
from bench.core.errors import ENVIRONMENT, OK
from bench.core.text import table

EXAMPLES = ("bench doctor", "bench doctor --json")


def parser() -> Parser:
    about = "Check packages, devices, data and the embedded model. Exit code 3 if something is broken."
    return Parser(prog="bench doctor", description=about, parents=[common()], examples=EXAMPLES)


def handle(options: argparse.Namespace) -> int:
    from bench.env.doctor import run_checks

    findings = run_checks()
    broken = [finding for finding in findings if finding.state == "broken"]
    if options.json:
        emit({"ok": not broken, "findings": findings})
    else:
        marks = {"ok": "ok", "note": "–", "broken": "BROKEN"}
        print(table(("check", "state", "found"), [(f.name, marks[f.state], f.text) for f in findings]))
        for finding in broken:
            print(f"\n{finding.name}: {finding.todo}")
        print(f"\n{len(broken)} broken" if broken else "\nnothing is broken")
    return ENVIRONMENT if broken else OK
