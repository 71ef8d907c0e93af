"""`bench export`: a run's adapter and head as other programs read them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.output import emit
from bench.cli.parser import Parser, common
from bench.core import registry
from bench.core.errors import OK, EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.records.record import DoneRecord

EXAMPLES = ("bench export 1f3a9c --peft adapter", "bench export 1f3a9c --peft adapter --runs results")


def parser() -> Parser:
    about = (
        "Write a run's adapter as a directory that peft loads (adapter_config.json and\n"
        "adapter_model.safetensors), its head beside it (head.safetensors: weight (outputs, D) and bias (outputs,)),\n"
        "and bench.json: the backbone, pooling and task that both belong to."
    )
    parser = Parser(prog="bench export", description=about, parents=[common()], examples=EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="the beginning of a run id, or a run's folder")
    parser.add_argument("--peft", metavar="DIR", type=Path, required=True, help="folder to write; must not exist yet")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    return parser


def handle(options: argparse.Namespace) -> int:
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
