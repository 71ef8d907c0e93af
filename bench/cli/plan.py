"""`bench plan`: writes the flags of `bench run` as a file that `bench run --plan` reads."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from bench.cli import run
from bench.cli.leaderboard import writing
from bench.cli.output import emit
from bench.cli.parser import Parser, common
from bench.config.overrides import build_configs
from bench.core.errors import OK
from bench.core.files import write_atomic

EXAMPLES = (
    "bench plan --method lora,full --task glue --seeds 0,1,2 --set method.rank=4,8,16 > grid.yaml",
    "bench plan --method lora --task glue --select lr --output grid.yaml",
    "bench plan --plan grid.yaml --seeds 3,4 --output more.yaml",
)


def parser() -> Parser:
    parser = Parser(
        prog="bench plan",
        description="Write the runs that these flags of `bench run` ask for as a file for `bench run --plan`; nothing\n"
        "is opened or trained.",
        parents=[common()],
        examples=EXAMPLES,
        usage="bench plan --method M[,M…] --task T[,T…] [flags of bench run] [--output FILE]",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="write a file instead of standard output")
    run.add_flags(parser)
    return parser


def handle(options: argparse.Namespace) -> int:
    from bench.harness.plan_file import values, write  # imports yaml

    path: Path | None = options.output.expanduser() if options.output else None
    request = run.request_of(options)
    build_configs(request.overrides, methods=request.configured, tasks=request.families, backbones=request.openers)
    if options.json:
        emit(values(request))
    elif not path:
        sys.stdout.write(write(request))
    if path:
        with writing(path):
            write_atomic(path, write(request).encode())
        print(f"wrote {path} · next: bench run --plan {shlex.quote(str(path))}", file=sys.stderr)
    return OK
