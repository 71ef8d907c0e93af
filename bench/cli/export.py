"""`bench export`: a run's adapter and head as other programs read them, or the records of a folder as JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bench.cli.leaderboard import writing
from bench.cli.output import emit, no_records, warn
from bench.cli.parser import Parser, common
from bench.core import registry
from bench.core.errors import OK, SOME_FAILED, BenchError, EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.records.record import DoneRecord

EXAMPLES = (
    "bench export 1f3a9c --peft adapter",
    "bench export 1f3a9c --peft adapter --runs results",
    "bench export --records --runs results --output records.jsonl",
)


def parser() -> Parser:
    about = (
        "RUN --peft: write a run's adapter as a directory that peft loads (adapter_config.json and\n"
        "adapter_model.safetensors), its head beside it (head.safetensors: weight (outputs, D) and bias (outputs,)),\n"
        "and bench.json: the backbone, pooling and task that both belong to.\n"
        "--records: write every record of a folder, whatever its state, as a line of JSON, which\n"
        "`bench import records` reads on another machine. Files beside the records are not in it."
    )
    parser = Parser(prog="bench export", description=about, parents=[common()], examples=EXAMPLES)
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN", help="the beginning of a run id, or a run's folder")
    add("--peft", metavar="DIR", type=Path, help="folder to write; must not exist yet")
    add("--records", action="store_true", help="write records, not an adapter")
    add("--output", metavar="FILE", help="with --records: the file, - for stdout (default: -)")
    add("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    return parser


def handle(options: argparse.Namespace) -> int:
    _check(options)
    return _records(options) if options.records else _adapter(options)


def _check(options: argparse.Namespace) -> None:
    usage = "`bench export --help` shows both."
    forms = "it is either RUN --peft DIR, or --records [--output FILE]"
    if options.records and (options.run or options.peft):
        raise UsageError("--records is of all runs of a folder", forms, "Leave RUN and --peft out.")
    if not options.records and not (options.run and options.peft):
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


def _adapter(options: argparse.Namespace) -> int:
    from bench.records.record import is_done, locate

    record, folder = locate(options.runs.expanduser(), options.run)
    if not is_done(record):
        todo = "Rerun its command, with --retry if it failed."
        raise UsageError(f"run {record.run_id} has no adapter", f"its state is {record.state}", todo)
    tensors = _tensors(record, folder)
    from bench.api.peft import write_folder

    method, output = registry.load("methods", record.spec.method), options.peft.expanduser()
    config, adapter = method.peft(method.Config(**record.spec.options.method), tensors)
    name = record.backbone.name
    config["base_model_name_or_path"] = name if "/" in name else None
    head = {key.removeprefix("head."): tensor for key, tensor in tensors.items() if key.startswith("head.")}
    note = _note(record)
    write_folder(output, config, adapter, head, note)
    if options.json:
        emit({"directory": str(output), "adapter_config": config, **note})
    else:
        print(f"{record.run_id} written to {output}: {config['peft_type']} for {name}, with its head")
    return OK


def _tensors(record: DoneRecord, folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    from bench.records.files import checked
    from bench.records.record import ADAPTER

    file = checked(record, folder, ADAPTER)
    if not file.is_file():
        known = f"there is no {file}; runtime.save was {record.spec.options.runtime.get('save')}"
        todo = "Run its command with another --out and --set runtime.save=all."
        raise UsageError(f"run {record.run_id} has no adapter", known, todo)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise EnvironmentProblem(f"{file} cannot be read", str(error), "Run its command again elsewhere.") from error
    if not {"head.weight", "head.bias"} <= tensors.keys():
        raise UsageError(f"{file} holds no head", "an earlier version left a frozen head out", "Run its command again.")
    return tensors


def _note(record: DoneRecord) -> dict[str, object]:
    spec, backbone = record.spec, record.backbone
    pooling = spec.options.head["pooling"]
    return {
        "run_id": record.run_id,
        "method": spec.method,
        "task": record.task.to_json(),
        "backbone": backbone.to_json(),
        "pooling": backbone.pooling if pooling == "auto" else pooling,
        "max_length": spec.options.task.get("max_length"),  # of texts alone
        "precision": spec.precision,
        "metrics": record.metrics.all,
    }
