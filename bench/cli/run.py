"""`bench run`: trains every combination of methods, tasks, backbones, learning rates and seeds."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, get_args

from bench.cli import names
from bench.cli.output import emit
from bench.cli.parser import Parser, choice, common, count, distinct, listed, positive, seed
from bench.config import overrides
from bench.core import registry
from bench.core.errors import OK, UsageError
from bench.env.preflight import check
from bench.harness.request import Request
from bench.records.data import DataRequest
from bench.records.spec import Precision, Track
from bench.tracking import check as check_mirror

EXAMPLES = (
    "bench run --method deeplora --task glue",
    "bench run --method full,linear,lora,deeplora --task glue --data-dir glue=~/data/glue --seeds 0,1,2",
    "bench run --method lora --task glue/rte --lr 3e-4,1e-3 --set method.rank=4 --set method.target=all-linear",
    "bench run --method lora --task glue --select lr --select-on glue/sst2",
    "bench run --method deeplora --task glue/stsb --train-samples 16 --max-steps 300 --set head.trainable=false",
    "bench run --method full --task glue/mrpc --backbone google-bert/bert-base-cased --epochs 3 --precision bf16-mixed",
    "bench run --method lora --task glue --dry-run",
    "bench run --method lora --task table:train.csv --set task.text=review --set task.label=stars",
    "bench run --method mae --task digits --max-steps 1000 --batch-size 64",
    "bench run --method full,galore,lowrank --task cifar10 --backbone resnet18 --data-dir cifar10=~/data/cifar10",
    "bench run --method full --task synthetic/completion --set backbone.depth=3 --set optim.name=momentum",
)


def parser() -> Parser:
    """The verb's parser."""
    made = Parser(
        prog="bench run",
        description="Train every combination of methods, tasks, backbones, learning rates and seeds, and write a\n"
        "record of each. The same command again goes on where it stopped: what is done is skipped.",
        parents=[common()],
        examples=EXAMPLES,
        usage="bench run --method M[,M…] --task T[,T…] [flags]",
    )
    _what(made.add_argument_group("what is run"))
    _budget(made.add_argument_group("budget and learning rate"))
    _how(made.add_argument_group("how and where"))
    return made


def _what(group: Any) -> None:
    group.add_argument("--method", metavar="M[,M…]", action="extend", type=listed(), help="see `bench list methods`")
    group.add_argument(
        "--task",
        metavar="T[,T…]",
        action="extend",
        type=listed(),
        help="task, suite (glue), cell (glue/rte) or your own table:FILE",
    )
    group.add_argument(
        "--backbone",
        metavar="B[,B…]",
        action="extend",
        type=listed(),
        help="see `bench list backbones`, or a Hugging Face id or folder "
        "(default: minilm for text, vit for images, dln for vectors)",
    )
    group.add_argument("--seeds", metavar="N[,N…]", action="extend", type=listed(seed), help="a run each (default: 0)")
    group.add_argument(
        "--data",
        metavar="SOURCE",
        default="auto",
        type=choice("auto", "dir", "hub", "embedded"),
        help="auto (the first that answers), dir, hub or embedded",
    )
    group.add_argument(
        "--data-dir",
        metavar="[NAME=]DIR",
        action="append",
        default=[],
        help="folder of a task or suite, or a parent of such folders; may be repeated (default: $BENCH_DATA)",
    )
    group.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option, such as method.rank=8; may be repeated; `bench show METHOD` lists them all",
    )


def _budget(group: Any) -> None:
    length = group.add_mutually_exclusive_group()
    length.add_argument("--max-steps", metavar="N", type=count, help="optimiser steps (default: 150)")
    length.add_argument("--epochs", metavar="X", type=positive, help="passes over train, instead of --max-steps")
    group.add_argument("--train-samples", metavar="N", type=count, help="train on N examples, drawn by seed")
    group.add_argument(
        "--batch-size", metavar="N", type=count, default=16, help="examples per step over all devices (default: 16)"
    )
    group.add_argument(
        "--lr", metavar="X[,X…]", action="extend", type=listed(positive), help="a run each (default: the method's)"
    )
    group.add_argument(
        "--select",
        metavar="lr",
        type=choice("lr"),
        help="choose the learning rate on a split cut from train, never dev",
    )
    group.add_argument("--select-on", metavar="TASK", help="task whose train decides for all (default: each its own)")


def _how(group: Any) -> None:
    group.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("runs"), help="folder of records (default: runs)"
    )
    group.add_argument(
        "--track",
        metavar="WHERE",
        type=choice(*get_args(Track)),
        default="off",
        help="mirror of the records: wandb, tensorboard, csv, mlflow (default: off)",
    )
    group.add_argument(
        "--accelerator",
        metavar="A",
        type=choice("auto", "cpu", "gpu", "cuda", "mps"),
        default="auto",
        help="auto, cpu, gpu, cuda or mps",
    )
    group.add_argument("--devices", metavar="N", type=count, default=1, help="devices per run (default: 1)")
    group.add_argument(
        "--precision",
        metavar="P",
        type=choice(*get_args(Precision)),
        default="32-true",
        help=f"{', '.join(get_args(Precision))} (default: 32-true)",
    )
    group.add_argument("--strict", action="store_true", help="a cell that cannot run, or is absent, stops everything")
    group.add_argument("--retry", action="store_true", help="run again what failed before")
    group.add_argument("--dry-run", action="store_true", help="show the plan and train nothing")


def handle(options: argparse.Namespace) -> int:
    """Check what is cheap, plan, and run."""
    request = make_request(options)
    overrides.resolve_all(request.settings, request.methods, request.families, request.openers)
    check()
    check_mirror(options.track)

    from bench.harness.plan_text import describe
    from bench.harness.planner import make

    plan = make(request)
    if options.dry_run:
        emit(plan.to_json()) if options.json else print(describe(plan))
        return OK

    from bench.harness.runner import execute

    return execute(plan, request, json=options.json, verbose=options.verbose)


def make_request(options: argparse.Namespace) -> Request:
    """The request, with names looked up but nothing opened.

    Raises:
        UsageError: a name is unknown, something is missing, twice, or contradicts something else.
    """
    _required("--method", options.method, "methods")
    _required("--task", options.task, "tasks")
    for method in options.method:
        registry.where("methods", method)
    for task in [*options.task, *([options.select_on] if options.select_on else [])]:
        names.check_task(task)
    lrs = distinct("--lr", options.lr or ())
    _check_select(options, lrs)
    return Request(
        methods=distinct("--method", options.method),
        tasks=distinct("--task", options.task),
        backbones=distinct("--backbone", options.backbone or ()),
        seeds=distinct("--seeds", options.seeds or (0,)),
        data=_data(options),
        max_steps=options.max_steps,
        epochs=options.epochs,
        train_samples=options.train_samples,
        batch_size=options.batch_size,
        lrs=lrs,
        select=options.select is not None,
        select_on=options.select_on,
        settings=tuple(options.set),
        precision=options.precision,
        accelerator=options.accelerator,
        devices=options.devices,
        track=options.track,
        out=options.out.expanduser(),
        strict=options.strict,
        retry=options.retry,
    )


def _required(flag: str, values: object, kind: registry.Kind) -> None:
    if not values:
        known = f"known {kind}: {', '.join(sorted(registry.entries(kind)))}"
        raise UsageError(f"{flag} is missing", known, "Write for example: bench run --method deeplora --task glue")


def _check_select(options: argparse.Namespace, lrs: tuple[float, ...]) -> None:
    if options.select_on and not options.select:
        raise UsageError(
            "--select-on without --select",
            "it says on which task a choice is made",
            "Add --select lr, or leave it out.",
        )
    if options.select and len(lrs) == 1:
        raise UsageError(
            "--select lr with one learning rate has nothing to choose from",
            f"--lr {lrs[0]}",
            "Give several (--lr 3e-4,1e-3,3e-3), or none for the method's own three.",
        )


def _data(options: argparse.Namespace) -> DataRequest:
    dirs = tuple(_named_dir(text) for text in options.data_dir)
    for i, (name, folder) in enumerate(dirs):
        if name in [other for other, _ in dirs[:i]]:
            raise UsageError(
                f"--data-dir is given twice for {name or 'all tasks'}",
                f"the second is {folder}",
                "Write --data-dir NAME=DIR, each name once.",
            )
    parent = os.environ.get("BENCH_DATA", "").strip()
    if dirs and options.data in ("hub", "embedded"):
        raise UsageError(
            f"--data {options.data} reads no directory",
            f"--data-dir {options.data_dir[0]}",
            "Leave one of the two out.",
        )
    if options.data == "dir" and not dirs and not parent:
        raise UsageError(
            "--data dir without a directory", "neither --data-dir nor BENCH_DATA is given", "Add --data-dir DIR."
        )
    return DataRequest(data=options.data, dirs=dirs, parent=Path(parent).expanduser() if parent else None)


def _named_dir(text: str) -> tuple[str | None, Path]:
    """`NAME=DIR` or `DIR`; a folder whose own name holds `=` is taken as it is."""
    name, equals, folder = text.partition("=")
    if not text.strip() or (equals and not folder):
        raise UsageError(f"--data-dir '{text}' names no directory", "DIR or NAME=DIR", "Give a directory.")
    if not equals or Path(text).expanduser().exists():
        return None, Path(text).expanduser()
    names.check_task(name)
    return name, Path(folder).expanduser()
