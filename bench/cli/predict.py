"""`bench predict`: a finished run's predictions for new rows of texts, or for new images."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bench.cli.leaderboard import writing
from bench.cli.output import emit
from bench.cli.parser import ACCELERATORS, Parser, choice, common, count, listed
from bench.core import registry
from bench.core.errors import OK, UsageError
from bench.core.text import printable

if TYPE_CHECKING:
    from bench.api.inputs import NewInputs
    from bench.deploy.restore import FinishedRun

EXAMPLES = (
    "bench predict 1f3a9c new.csv",
    "bench predict 1f3a9c new.csv --out predictions.parquet --keep id",
    "bench predict 1f3a9c new.jsonl --set task.text=review --set data.on_bad=skip",
    "bench predict 1f3a9c photos --runs results --out predictions.csv",
)


def parser() -> Parser:
    about = (
        "Predict new rows of a CSV, TSV, JSON lines or Parquet file, or new images, with a finished run. Rows keep\n"
        "the order of the file. Columns: row (from 0) or image, the columns to keep, then label and a probability\n"
        "p_CLASS for each class; labels, where a row may have several; value, where the run predicts a number.\n"
        "All rows are read once before the first is predicted: a bad one ends the command with its line."
    )
    parser = Parser(prog="bench predict", description=about, parents=[common()], examples=EXAMPLES)
    add = parser.add_argument
    add("run", metavar="RUN", help="the beginning of a run id, or a run's folder")
    add("files", nargs="+", metavar="FILE", type=Path, help="one table of texts; or images, or folders of them")
    add("--out", metavar="FILE", type=Path, help=".csv, .jsonl or .parquet (default: CSV on stdout)")
    about = "columns that are copied into the output, such as an id"
    add("--keep", metavar="COLUMN[,…]", action="extend", type=listed(), default=[], help=about)
    add("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    about = "where the backbone is now, if it moved: a folder or a hub id; its content must be that of training"
    add("--backbone", metavar="B", help=about)
    add("--batch-size", metavar="N", type=count, help="examples per forward pass (default: the run's, 64)")
    about = "auto, cpu, gpu, cuda or mps (default: auto)"
    add("--accelerator", metavar="A", type=choice(*ACCELERATORS), default="auto", help=about)
    about = "task.text, task.text_pair, task.quotes, data.on_bad=skip or an option of the backbone; may be repeated"
    add("--set", metavar="KEY=VALUE", action="append", default=[], help=about)
    return parser


def handle(options: argparse.Namespace) -> int:
    from bench.deploy.writers import Columns, check_suffix

    if options.out:
        check_suffix(options.out)
    elif options.json:
        todo = "Add --out FILE, or leave --json out."
        raise UsageError("--json needs --out FILE here", "the predictions themselves go to stdout", todo)
    run, inputs = _opened(options)
    columns = Columns.of(run, inputs.name, tuple(options.keep))
    inputs.check()
    from bench.deploy.predictions import predict  # imports torch
    from bench.deploy.writers import writing_rows

    began, done = time.monotonic(), 0
    size = options.batch_size or run.spec.options.runtime.eval_batch
    with _output(options.out) as stream, writing_rows(stream, _suffix(options.out), columns) as write:
        for found in predict(run, inputs, accelerator=options.accelerator, batch_size=size):
            write([*columns.rows(found)])
            done += len(found.names)
    seconds = time.monotonic() - began
    for note in inputs.notes():
        print(f"note: {printable(note)}", file=sys.stderr)
    if options.json:
        emit({"file": str(options.out), "rows": done, "left_out": inputs.left_out, "seconds": round(seconds, 3)})
    what = "images" if inputs.name == "image" else "rows"
    print(f"{done:,} {what} predicted by {run.record.run_id} in {seconds:.1f} s", file=sys.stderr)
    return OK


def _opened(options: argparse.Namespace) -> tuple[FinishedRun, NewInputs]:
    """Find the run and the files; names and options are checked before anything is loaded."""
    from bench.api.inputs import InputRequest
    from bench.config.overrides import build_each
    from bench.config.sections import DataConfig, TaskConfig
    from bench.deploy.restore import open_run
    from bench.records.record import locate

    record, folder = locate(options.runs.expanduser(), options.run)
    task = registry.load("tasks", registry.family(record.spec.task))
    backbone = registry.load_config("backbones", registry.opener(options.backbone or record.spec.backbone))
    config, data, _ = build_each(options.set, task.InputConfig, DataConfig, backbone)
    of_backbone = [setting for setting in options.set if setting.startswith("backbone.")]
    run = open_run(record, folder, runs=options.runs.expanduser(), backbone=options.backbone, settings=of_backbone)
    request = InputRequest(
        places=tuple(file.expanduser() for file in options.files),
        config=config,
        on_bad=data.on_bad,
        keep=tuple(options.keep),
        task=run.task,
        reading=record.source.reading,
        max_length=run.spec.options.task_as(TaskConfig).max_length if run.task.modality == "text" else 0,
        tokenizer=run.backbone.tokenizer,
    )
    return run, task.new_inputs(request)


@contextmanager
def _output(file: Path | None) -> Generator[BinaryIO]:
    """Standard output, or a file that is there only when it is whole."""
    from bench.core.files import replacing

    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = file.expanduser()
    with writing(path), replacing(path) as temporary, temporary.open("wb") as stream:
        yield stream


def _suffix(file: Path | None) -> str:
    return file.suffix if file else ".csv"
