"""`bench work`: one worker, on any machine that sees the folder of records, makes what no other has of a plan."""

from __future__ import annotations

import argparse
import re
import sys
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.parser import Parser, common
from bench.cli.run import count_nodes
from bench.core.errors import INTERRUPTED, OK, PREEMPTED, SOME_FAILED
from bench.env.preflight import check
from bench.tracking import check as check_mirror

if TYPE_CHECKING:
    from bench.harness.nodes import Nodes
    from bench.harness.request import Request

EXAMPLES = (
    "bench work --plan grid.yaml",
    "bench work --plan grid.yaml --out /shared/runs --wait",
    "bench work --plan grid.yaml --shard 0/8",
)


def parser() -> Parser:
    parser = Parser(
        prog="bench work",
        description="Make the runs of a plan that no other process has done or is doing. Any number of workers, on\n"
        "any machines that see the same folder, share the plan; one that is killed loses its last seconds alone.",
        parents=[common()],
        examples=EXAMPLES,
        usage="bench work --plan FILE [--out DIR] [--shard I/N] [--wait] [--retry]",
    )
    add = parser.add_argument
    add("--plan", metavar="FILE", type=Path, required=True, help="a file of `bench plan`")
    add("--out", metavar="DIR", type=Path, help="folder of records, in place of the plan's")
    about = "make every Nth run alone, from the Ith of them, counted from 0 (default: whatever is free)"
    add("--shard", metavar="I/N", type=_shard, default=(0, 1), help=about)
    add("--wait", action="store_true", help="wait for what others do, and make their runs if they die")
    about = "first mark failed runs as to be made again; of several workers, give it to the first"
    add("--retry", action="store_true", help=about)
    return parser


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if index >= count:
        raise ArgumentTypeError(f"'{text}' is no part of a plan\nI/N, I from 0 to N - 1\nGive for example 0/8.")
    return index, count


def handle(options: argparse.Namespace) -> int:
    from bench.harness.plan_file import read  # imports yaml

    given = {"out": options.out.expanduser()} if options.out else {}
    request = replace(read(options.plan.expanduser(), **given), retry=options.retry)
    check()
    check_mirror(request.track)

    from bench.harness.nodes import others

    with others(count_nodes(request)) as found:
        return found if isinstance(found, int) else _work(request, options, found)


def _work(request: Request, options: argparse.Namespace, nodes: Nodes | None) -> int:
    from bench.harness.planner import make_plan  # opens data and backbones
    from bench.harness.runner import Preempted, run_plan

    plan = make_plan(request)
    index, count = options.shard
    shard = replace(plan, runs=plan.runs[index::count])
    if not shard.runs:
        print(f"no run is left for --shard {index}/{count}: the plan has {len(plan.runs)}", file=sys.stderr)
        return OK
    states: list[str] = []
    stopped = OK
    try:
        for record in run_plan(shard, wait=options.wait, verbose=options.verbose, nodes=nodes):
            states.append(record.state)
    except KeyboardInterrupt:
        stopped = INTERRUPTED
    except Preempted:
        stopped = PREEMPTED
    done = states.count("done")
    left = len(shard.runs) - len(states)
    parts = [f"{done} done, {len(states) - done} failed", f"records in {request.out}"]
    parts += [f"{left} left to other workers, or to the same command"] if left else []
    print(" · ".join(parts), file=sys.stderr)
    return stopped or (SOME_FAILED if plan.broken or done < len(states) else OK)
