"""`bench export`: a run as other programs load it, or the records of a folder as JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, get_args

from bench.cli.leaderboard import writing
from bench.cli.output import emit, no_records, warn
from bench.cli.parser import Parser, common
from bench.core.errors import OK, SOME_FAILED, BenchError, UsageError
from bench.deploy import Form

FORMS: tuple[Form, ...] = get_args(Form)
EXAMPLES = (
    "bench export 1f3a9c --peft adapter",
    "bench export 1f3a9c --merged model --runs results",
    "bench export 1f3a9c --peft adapter --base me/my-model",
    "bench export --records --runs results --output records.jsonl",
)


def parser() -> Parser:
    about = (
        "RUN --peft: write what a run trained as an adapter of peft. RUN --merged: write a whole model of\n"
        "transformers or timm. RUN --adapter: write bottleneck adapters, which have neither form. README.md in the\n"
        "folder is a model card with the lines that load it without lowrank-bench; they are run, and their outputs\n"
        "held against the run's, before the folder is there. docs/deploy.md says which method has which form.\n"
        "--records: write every record of a folder, whatever its state, as a line of JSON, which\n"
        "`bench import records` reads on another machine. Files beside the records are not in it."
    )
    parser = Parser(prog="bench export", description=about, parents=[common()], examples=EXAMPLES)
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN", help="the beginning of a run id, or a run's folder")
    form = parser.add_mutually_exclusive_group().add_argument
    form("--peft", metavar="DIR", type=Path, help="folder to write an adapter of peft into; must not exist yet")
    form("--merged", metavar="DIR", type=Path, help="the same of a whole model")
    form("--adapter", metavar="DIR", type=Path, help="the same of bottleneck adapters")
    about = "what the backbone is called where the folder will be loaded (default: its hub id, or its folder here)"
    add("--base", metavar="ID|DIR", help=about)
    about = "where the backbone is now, if it moved; its content must be that of training"
    add("--backbone", metavar="B", help=about)
    add("--records", action="store_true", help="write records, not an adapter")
    add("--output", metavar="FILE", help="with --records: the file, - for stdout (default: -)")
    add("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    return parser


def handle(options: argparse.Namespace) -> int:
    _check(options)
    return _records(options) if options.records else _run(options)


def _check(options: argparse.Namespace) -> None:
    usage = "`bench export --help` shows them."
    forms = "it is RUN with --peft DIR, --merged DIR or --adapter DIR, or --records [--output FILE]"
    asked = any(getattr(options, form) for form in FORMS)
    if options.records and (options.run or asked):
        raise UsageError("--records is of all runs of a folder", forms, "Leave RUN and its form out.")
    if not options.records and not (options.run and asked):
        raise UsageError("nothing to export is given", forms, usage)
    if options.output and not options.records:
        raise UsageError("--output belongs to --records", forms, usage)
    if options.records and options.json and options.output in (None, "-"):
        raise UsageError("--json needs --output FILE here", "the records, JSON themselves, go to stdout", usage)


def _records(options: argparse.Namespace) -> int:
    from bench.records.record import iterate, to_json

    folder: Path = options.runs.expanduser()
    written = left_out = 0
    with _output(options.output) as stream:
        for one in iterate(folder):
            if isinstance(one, BenchError):
                warn(one)
                left_out += 1
            else:
                stream.write(json.dumps(to_json(one), separators=(",", ":"), allow_nan=False).encode() + b"\n")
                written += 1
        if not written and not left_out:
            raise no_records(folder)
    if options.json:
        emit({"file": options.output, "records": written, "left_out": left_out})
    print(f"wrote {written:,} records" + (f", {left_out:,} left out" if left_out else ""), file=sys.stderr)
    return SOME_FAILED if left_out else OK


@contextmanager
def _output(name: str | None) -> Generator[BinaryIO]:
    """Standard output, a pipe, or a file that is there only when it is whole."""
    from bench.core.files import replacing

    if name in (None, "-"):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name).expanduser()
    with writing(path):
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                yield stream
        else:
            with replacing(path) as temporary, temporary.open("wb") as stream:
                yield stream


def _run(options: argparse.Namespace) -> int:
    from bench.deploy.restore import open_run
    from bench.records.record import locate

    runs = options.runs.expanduser()
    record, folder = locate(runs, options.run)
    run = open_run(record, folder, runs=runs, backbone=options.backbone)
    form: Form = next(one for one in FORMS if getattr(options, one))
    path: Path = getattr(options, form)
    from bench.deploy.card import show_difference
    from bench.deploy.export import export  # imports torch

    made = export(run, path.expanduser(), form, options.base)
    loader = made.loader
    if options.json:
        emit({"directory": str(path), **made.note})
        return OK
    loads = f"{loader.library}'s {loader.architecture}" if loader.architecture else f"{loader.library} and its README"
    print(f"{record.run_id} written to {path}: {record.spec.method} on {record.backbone.name}, loaded by {loads}")
    if made.difference is not None:
        print(f"outputs loaded from it differ from the run's by at most {show_difference(made.difference)}")
    return OK
