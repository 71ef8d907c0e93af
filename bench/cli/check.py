"""`bench check`: whether a method keeps the contract of all methods."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING

from bench.checks.run import NAMES
from bench.cli.output import emit
from bench.cli.parser import ACCELERATORS, Parser, choice, common, listed
from bench.config.overrides import Overrides
from bench.core.errors import CHECK, OK
from bench.core.text import printable

if TYPE_CHECKING:
    from bench.checks import Result

EXAMPLES = (
    "bench check lora",
    "bench check lora --set method.dora=true --set method.rank=4",
    "bench check lora --backbone mlp",
    "bench check peft:vera --json",
)
WIDTH = max(map(len, NAMES))
MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "–"}


def parser() -> Parser:
    parser = Parser(
        prog="bench check",
        description="Check that a method keeps the contract of all methods, on small networks and data that need no\n"
        "download: it starts at the backbone, trains what it declares, its ΔW is the change of its function, its\n"
        "export loads back, … Exit code 4 if a check does not hold. In a package's own tests: pytest --bench-check.",
        parents=[common()],
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("method", metavar="METHOD", help="a registered method, also of an installed package; see `bench list methods`")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="an option: method.rank=4; may be repeated")
    about = "check it on these (default: a small BERT, ViT and MLP, which are built)"
    add("--backbone", dest="backbones", metavar="B[,B…]", type=listed(), default=(), help=about)
    about = "auto, cpu, gpu, cuda or mps (default: cpu)"
    add("--accelerator", metavar="A", type=choice(*ACCELERATORS), default="cpu", help=about)
    return parser


def handle(options: argparse.Namespace) -> int:
    from bench.checks import run_checks

    given = {name: value for name, value in Overrides.parse(options.set).by_name().items() if isinstance(value, str)}
    results: list[Result] = []
    for result in run_checks(options.method, set=given, backbones=options.backbones, accelerator=options.accelerator):
        results.append(result)
        if not options.json:
            line = f"{result.on:6}  {result.check.replace('_', ' '):{WIDTH}}  {MARKS[result.state]:6}  {result.reason}"
            print(printable(line.rstrip()), flush=True)
    counts = Counter(result.state for result in results)
    holds = counts["passed"] > 0 and not counts["failed"]
    if options.json:
        emit({"method": options.method, "ok": holds, "results": results})
    else:
        words = {"passed": "hold", "failed": "do not hold", "skipped": "do not apply"}
        print(f"\n{options.method}: " + ", ".join(f"{counts[s]} {w}" for s, w in words.items() if counts[s]))
        sys.stdout.flush()
    return OK if holds else CHECK
