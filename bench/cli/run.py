"""`bench run`: trains every combination of methods, tasks, backbones, learning rates and seeds."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from bench.cli.output import emit
from bench.cli.parser import ACCELERATORS, SOURCES, Parser, choice, common, count, course, jobs, listed, positive, seed
from bench.config.overrides import build_configs
from bench.core.errors import INTERRUPTED, OK, PREEMPTED, SOME_FAILED, UsageError
from bench.core.text import printable_lines, without_secrets
from bench.env.preflight import check
from bench.harness.request import WIDEN, Request, make_request
from bench.launchers.options import SLURM, SlurmConfig, take
from bench.records.record import is_done
from bench.records.spec import Precision, Track
from bench.tracking import check as check_mirror

if TYPE_CHECKING:
    from bench.harness.nodes import Nodes
    from bench.harness.planner import Plan
    from bench.harness.pool import Jobs
    from bench.launchers.arrays import Array
    from bench.records.record import Record

EXAMPLES = (
    "bench run --method deeplora --task glue",
    "bench run --method full,linear,lora,deeplora --task glue --data-dir glue=~/data/glue --seeds 0,1,2",
    "bench run --method lora --task glue/rte --lr 3e-4,1e-3 --set method.rank=4 --set method.target=all-linear",
    "bench run --method lora --task glue --select lr --select-on glue/sst2",
    "bench run --method lora --task glue/rte --select lr,method.rank --set method.rank=2,4,8,16 --trials 20",
    "bench run --method deeplora --task glue/stsb --train-samples 16 --max-steps 300 --set head.trainable=false",
    "bench run --method full --task glue/mrpc --backbone google-bert/bert-base-cased --epochs 3 --precision bf16-mixed",
    "bench run --method lora,full --task glue/rte --epochs 3 --evaluate epoch",
    "bench run --method lora --task glue --dry-run",
    "bench run --method lora,deeplora --task glue --set method.rank=4,8,16 --dry-run",
    "bench run --plan grid.yaml",
    "bench run --plan grid.yaml --launcher slurm --set slurm.partition=gpu --set slurm.gres=gpu:1",
    "bench run --method lora --task table:train.csv --set task.text=review --set task.label=stars",
    "bench run --method mae --task digits --max-steps 1000 --batch-size 64",
    "bench run --method full,galore,lowrank --task cifar10 --backbone resnet18 --data-dir cifar10=~/data/cifar10",
    "bench run --method full --task synthetic/completion --set backbone.depth=3 --set optim.name=momentum",
)

SHORT = ("on_oom", "nodes", "strategy")
"""Flags that stand for an option `runtime.…`."""
NOT_OF_A_REQUEST = ("plan", "output", "json", "verbose", "dry_run", "measure", "jobs", "launcher", "wait", *SHORT)
MANY = 20
"""Up to here a single seed may have been meant as a number of seeds."""


def parser() -> Parser:
    parser = Parser(
        prog="bench run",
        description="Train every combination of methods, tasks, backbones, options, learning rates and seeds, and\n"
        "write a record of each. The same command again goes on where it stopped: what is done is skipped.",
        parents=[common()],
        examples=EXAMPLES,
        usage="bench run --method M[,M…] --task T[,T…] [flags]\n       bench run --plan FILE [flags]",
    )
    add_flags(parser)
    add = parser.add_argument_group("this command alone").add_argument
    about = "train N runs at a time, each in a process of its own; auto: one for each GPU, or each core (default: 1)"
    add("--jobs", metavar="N|auto", type=jobs, default=1, help=about)
    about = "slurm: submit an array of workers, see `bench show slurm` (default: local, train here)"
    add("--launcher", metavar="local|slurm", type=choice("local", SLURM), default="local", help=about)
    add("--wait", action="store_true", help="with --launcher slurm: wait for the array, and print the table")
    add("--dry-run", action="store_true", help="show every run, its state, size and time, and train nothing")
    add("--measure", action="store_true", help="with --dry-run: train a few steps where no finished run says the time")
    return parser


def add_flags(parser: Parser) -> None:
    """Add the flags that make a request; the values have the names of the arguments of `make_request`."""
    add = parser.add_argument_group("what is run").add_argument
    about = (
        "read the flags from a file of `bench plan`; one that is given too replaces the file's, --set option by option"
    )
    add("--plan", metavar="FILE", type=Path, help=about)
    add("--method", dest="methods", metavar="M[,M…]", action="extend", type=listed(), help="see `bench list methods`")
    about = "task, suite (glue), task of it (glue/rte) or your own reviews.csv"
    add("--task", dest="tasks", metavar="T[,T…]", action="extend", type=listed(), help=about)
    about = (
        "see `bench list backbones`, or a Hugging Face id or folder "
        "(default: minilm for text, vit for images, dln for vectors)"
    )
    add("--backbone", dest="backbones", metavar="B[,B…]", action="extend", type=listed(), help=about)
    add("--seeds", metavar="N[,N…]", action="extend", type=listed(seed), help="a run each (default: 0)")
    about = "auto (the first that answers), dir, hub or embedded"
    add("--data", metavar="SOURCE", type=choice(*SOURCES), help=about)
    about = "folder of a task or suite, or a parent of such folders; may be repeated (default: $BENCH_DATA)"
    add("--data-dir", metavar="[NAME=]DIR", action="append", help=about)
    about = "an option: method.rank=8, or method.rank=4,8 for a run each; may be repeated; see `bench show METHOD`"
    add("--set", metavar="KEY=VALUE[,VALUE…]", action="append", help=about)

    budget = parser.add_argument_group("budget and learning rate")
    length = budget.add_mutually_exclusive_group()
    length.add_argument("--max-steps", metavar="N", type=count, help="optimiser steps (default: 150)")
    length.add_argument("--epochs", metavar="X", type=positive, help="passes over train, instead of --max-steps")
    add = budget.add_argument
    add("--train-samples", metavar="N", type=count, help="train on N examples, drawn by seed")
    add("--batch-size", metavar="N", type=count, help="examples per step over all devices (default: 16)")
    about = "score dev after every N steps, or every pass over train, too; the score stays that of the last step"
    add("--evaluate", metavar="N|epoch", type=course, help=about)
    add("--lr", metavar="X[,X…]", action="extend", type=listed(positive), help="a run each (default: the method's)")
    about = "choose lr, and options whose values --set lists, on a split cut from train, never dev"
    add("--select", metavar="lr|KEY[,…]", action="extend", type=listed(), help=about)
    about = "choose rank, or what else scales the others, so that they train no more parameters than this method"
    add("--match-params", metavar="METHOD", help=about)
    about = "let optuna suggest N trials of them (default: try every combination)"
    add("--trials", metavar="N", type=count, help=about)
    add("--select-on", metavar="TASK", help="task whose train decides for all (default: each its own)")
    about = f"most rates tried beyond the candidates, while the best one is at their end (default: {WIDEN})"
    add("--widen", metavar="N", type=int, help=about)

    add = parser.add_argument_group("how and where").add_argument
    add("--out", metavar="DIR", type=Path, help="folder of records (default: runs)")
    about = "mirror of the records: wandb, tensorboard, csv, mlflow (default: off)"
    add("--track", metavar="WHERE", type=choice(*get_args(Track)), help=about)
    add("--accelerator", metavar="A", type=choice(*ACCELERATORS), help="auto, cpu, gpu, cuda or mps (default: auto)")
    add("--devices", metavar="N", type=count, help="devices per run (default: 1)")
    about = "nodes per run, on each of which the same command starts, by srun or torchrun (default: 1)"
    add("--nodes", metavar="N", type=count, help=about)
    about = "auto, ddp, or fsdp: the frozen weights are sharded over the devices (default: auto, which is ddp)"
    add("--strategy", metavar="S", type=choice("auto", "ddp", "fsdp"), help=about)
    about = f"{', '.join(get_args(Precision))} (default: 32-true)"
    add("--precision", metavar="P", type=choice(*get_args(Precision)), help=about)
    about = "a run that needs too much memory fails, or (halve) is made again with smaller parts of a batch"
    add("--on-oom", metavar="fail|halve", type=choice("fail", "halve"), help=about)
    add("--strict", action="store_true", help="a task that cannot run, or is absent, stops everything")
    add("--retry", action="store_true", help="run again what failed before")


def handle(options: argparse.Namespace) -> int:
    if options.measure and not options.dry_run:
        known = "it trains a few steps to say how long runs take"
        raise UsageError("--measure without --dry-run", known, "Add --dry-run, or leave it out.")
    slurm = launcher_of(options)
    request = request_of(options)
    nodes = count_nodes(request)
    if nodes > 1 and options.jobs != 1:
        known = "a pool trains its runs on the devices of this node"
        raise UsageError(f"--nodes {nodes} with --jobs", known, "Leave one of the two out.")
    check()
    if slurm and not options.dry_run:
        from bench.launchers.submit import check_launcher

        check_launcher()
    check_mirror(request.track)

    if options.dry_run or slurm:
        nodes = 1  # nothing trains here
    from bench.harness.nodes import others

    with others(nodes) as found:
        return found if isinstance(found, int) else _lead(request, options, slurm, found)


def count_nodes(request: Request) -> int:
    """Check the options of a request, and return how many nodes its runs have."""
    configs = build_configs(
        request.overrides, methods=request.configured, tasks=request.families, backbones=request.openers
    )
    return configs[0].sections.runtime.nodes


def _lead(request: Request, options: argparse.Namespace, slurm: SlurmConfig | None, nodes: Nodes | None) -> int:
    """Plan, and then show the plan, train it, or submit it; return the exit code."""
    from bench.harness.planner import make_plan  # opens data and backbones

    plan = make_plan(request)
    if len(request.seeds) == 1 and 1 < (number := request.seeds[0]) <= MANY:
        every = ",".join(map(str, range(number)))
        note = f"--seeds {number} is one seed, the number {number}; for {number} seeds: --seeds {every}"
        print(note, file=sys.stderr)
    if options.dry_run:
        return _show(plan, measured=options.measure, as_json=options.json)
    if slurm:
        from bench.launchers.launch import launch  # imports torch

        records = launch(plan, slurm, wait=options.wait, show=partial(_show_array, plan, options))
        if records is None:
            return OK
        return _report(plan, records, stopped=PREEMPTED if len(records) < len(plan.runs) else 0, as_json=options.json)
    return _run(plan, jobs=options.jobs, nodes=nodes, as_json=options.json, verbose=options.verbose)


def launcher_of(options: argparse.Namespace) -> SlurmConfig | None:
    """Take the options of Slurm out of `--set`, if it is the launcher."""
    if options.launcher != SLURM:
        if options.wait:
            raise UsageError("--wait without --launcher slurm", "a local run is waited for anyway", "Leave it out.")
        return None
    if options.jobs != 1:
        known = "how many runs are trained at a time is the size of the array"
        raise UsageError("--jobs with --launcher slurm", known, "Use --set slurm.workers=N instead.")
    config, options.set = take(options.set or [])
    return config


def _show(plan: Plan, *, measured: bool, as_json: bool) -> int:
    """Print the plan, with the state of every run and the time it takes."""
    from bench.harness.outlook import forecast
    from bench.harness.plan_text import describe

    found = forecast(plan)
    if measured or found.sizes_unknown:
        from bench.harness.measure import count, measure  # imports torch

        look = measure if measured else count
        found = forecast(plan, look(found, lambda line: print(line, file=sys.stderr)))
    if as_json:
        shown = plan.to_json()
        runs = [run | one.to_json() for run, one in zip(shown["runs"], found.runs, strict=True)]
        emit({**shown, "runs": runs, "total": found.to_json()})
    else:
        print(printable_lines(describe(plan, found)))
    return OK


def request_of(options: argparse.Namespace) -> Request:
    """Make the request that the flags, and the plan file that they name, stand for; no data are opened."""
    given = {name: value for name, value in vars(options).items() if name not in NOT_OF_A_REQUEST}
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    short = [f"runtime.{name}={getattr(options, name)}" for name in SHORT if getattr(options, name) is not None]
    if short:
        given["set"] = [*given.get("set", ()), *short]
    if not options.plan:
        return make_request(**given)
    from bench.harness.plan_file import read  # imports yaml

    return read(options.plan.expanduser(), **given)


def _run(plan: Plan, *, jobs: Jobs, nodes: Nodes | None, as_json: bool, verbose: bool) -> int:
    """Train, print the table, and return the exit code: whatever ends this, finished runs stay finished."""
    from bench.harness.runner import Preempted, run_plan  # imports torch

    records: list[Record] = []
    stopped = 0
    try:
        for record in run_plan(plan, jobs=jobs, verbose=verbose, nodes=nodes):
            records.append(record)
    except KeyboardInterrupt:
        stopped = INTERRUPTED
    except Preempted:
        stopped = PREEMPTED
    return _report(plan, records, stopped=stopped, as_json=as_json)


def _show_array(plan: Plan, options: argparse.Namespace, array: Array) -> None:
    """Print the array that makes the runs, and how to look after it; with --wait the table is the result."""
    if options.json and not options.wait:
        emit({"job": array.job, "workers": array.workers, "logs": array.logs})
        return
    where = _where(plan)
    lines = (
        f"job {array.job}: an array of {array.workers} {'worker' if array.workers == 1 else 'workers'}",
        f"logs: {array.logs}",
        f"watch: bench status{where}, squeue --job {array.job}",
        f"stop: bench cancel{where}",
    )
    print("\n".join(lines), file=sys.stderr if options.wait else sys.stdout)


def _where(plan: Plan) -> str:
    out = plan.request.out
    return "" if out == Path("runs") else f" --runs {shlex.quote(str(out))}"


def _report(plan: Plan, records: list[Record], *, stopped: int, as_json: bool) -> int:
    """Print the table of the records that a plan has now, and return the exit code; `stopped` is that of its end."""
    records = plan.in_order(records)
    _print(plan, records, as_json=as_json)
    if stopped:
        return stopped
    return SOME_FAILED if plan.broken or any(r.state != "done" for r in records) else OK


def _print(plan: Plan, records: list[Record], *, as_json: bool) -> None:
    """Table (or JSON) on stdout; counts and the next command on stderr."""
    done = [record for record in records if is_done(record)]
    if as_json:
        runs = [record.to_json() for record in records]
        print(json.dumps(without_secrets({"runs": runs, "skipped": plan.to_json()["skipped"]})))
    elif done:
        from leaderboard.render.markdown import render

        print("\n" + render(done, plan.request.out))
    sys.stdout.flush()
    failed, left = len(records) - len(done), len(plan.runs) - len(records)
    parts = [f"{len(done)} done, {failed} failed", f"records in {plan.request.out}"]
    parts += [f"{left} not run: the same command goes on"] if left else []
    parts += ["the same command with --retry runs failed ones again"] if failed else []
    where = _where(plan)
    parts += [f"next: bench leaderboard{where}, bench show {done[0].run_id}{where}"] if done else []
    print(" · ".join(parts), file=sys.stderr)
