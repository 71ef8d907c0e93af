"""`bench import`: records from the runs of a W&B project, or from a file of `bench export --records`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bench.cli.mirrors import print_outcomes, split
from bench.cli.output import emit
from bench.cli.parser import Parser, choice, common
from bench.core.errors import OK, SOME_FAILED, EnvironmentProblem, UsageError
from bench.core.text import printable

if TYPE_CHECKING:
    from bench.records.transfer import Outcome

EXAMPLES = (
    "bench import wandb my-team/lowrank-bench --out imported",
    "bench import records records.jsonl --out imported",
    "bench leaderboard --runs imported",
)


def parser() -> Parser:
    about = (
        "Write records into a folder: those of a W&B project's runs, or the lines of `bench export --records`.\n"
        "Every record is checked, and left out if it is not valid. A record that exists already stays as it is,\n"
        "unless its run is not done and that of the other one is. Adapters and other files beside a record do not\n"
        "come along; what needs them says that they are missing."
    )
    parser = Parser(prog="bench import", description=about, parents=[common()], examples=EXAMPLES)
    add = parser.add_argument
    add("source", metavar="wandb|records", type=choice("wandb", "records"), help="where they come from")
    add("place", metavar="ENTITY/PROJECT|FILE", help="the project, as its address ends; or the file, - for stdin")
    add("--out", "--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of records (default: runs)")
    add("--replace", action="store_true", help="with wandb: overwrite records that differ")
    return parser


def handle(options: argparse.Namespace) -> int:
    out: Path = options.out.expanduser()
    if options.source == "records":
        return _from_lines(options, out)
    from bench.tracking import account
    from bench.tracking.sync import restore, runs

    entity, project = split(options.place)
    account.require()
    outcomes = list(restore(runs(f"{entity}/{project}"), out, replace=options.replace))
    print_outcomes(outcomes, as_json=options.json)
    return _summed(Counter(outcome.state for outcome in outcomes), out)


def _from_lines(options: argparse.Namespace, out: Path) -> int:
    if options.replace:
        todo = "Remove the folders of the runs that the file is right about, and import it again."
        raise UsageError("--replace belongs to wandb", "another record of the same run is never overwritten", todo)
    from bench.records.transfer import store_lines

    with _opened(options.place) as (stream, name):
        counts = _counted(store_lines(stream, name, out))
    if options.json:
        emit(counts)
    return _summed(counts, out)


def _counted(outcomes: Iterable[Outcome]) -> Counter[str]:
    """Count outcomes by state, and warn of each record that did not come in; there may be any number of them."""
    counts: Counter[str] = Counter()
    incomplete = 0
    for outcome in outcomes:
        counts[outcome.state] += 1
        if outcome.state in ("bad", "kept ours"):
            print(f"warning: {outcome.state}: {printable(outcome.why)}", file=sys.stderr)
        incomplete += outcome.state == "imported" and bool(outcome.why)
    if incomplete:
        about = "list files that are not here, such as an adapter: copy them from where the runs were trained"
        print(f"note: {incomplete:,} of the imported records {about}", file=sys.stderr)
    return counts


@contextmanager
def _opened(place: str) -> Generator[tuple[BinaryIO, str]]:
    """A stream of lines, and its name in messages; raises EnvironmentProblem if there is none."""
    if place == "-":
        yield sys.stdin.buffer, "stdin"
        return
    try:
        stream = Path(place).expanduser().open("rb")
    except OSError as error:
        todo = "Name a file that `bench export --records` wrote, or - for standard input."
        raise EnvironmentProblem(f"{place} cannot be read", str(error), todo) from error
    with stream:
        yield stream, place


def _summed(counts: Counter[str], out: Path) -> int:
    summary = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())) or "no runs"
    print(f"{summary} · next: bench leaderboard --runs {out}", file=sys.stderr)
    return SOME_FAILED if any(counts[state] for state in ("bad", "kept ours", "not fetched")) else OK
