"""The command `bench`: parses the verb, calls it, and turns every end into an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from types import ModuleType

from bench import __version__
from bench.cli import output
from bench.cli.parser import Parser
from bench.core.errors import INTERRUPTED, PREEMPTED, USAGE, BenchError, EnvironmentProblem, UsageError, did_you_mean
from bench.core.text import printable_lines, without_secrets
from bench.env.preflight import check_packages
from bench.harness.signals import Preempted, preemptible

VERBS: dict[str, tuple[str, str]] = {
    "run": ("bench.cli.run", "train methods on tasks, and write a record of each run"),
    "plan": ("bench.cli.plan", "write the flags of a run as a file, for run --plan"),
    "work": ("bench.cli.work", "make the runs of a plan that no other process has"),
    "status": ("bench.cli.status", "show what is done, running and failed in a folder of runs, live if wanted"),
    "cancel": ("bench.cli.cancel", "stop what trains here, and take arrays out of Slurm's queue"),
    "list": ("bench.cli.listing", "list methods, tasks, backbones or runs"),
    "show": ("bench.cli.show", "show a method with its options, a task, a backbone, an experiment or a run"),
    "reproduce": ("bench.cli.reproduce", "compare a claim of the survey with what is measured"),
    "spectra": ("bench.cli.spectra", "show the singular values and ranks of a run, a model or an adapter"),
    "leaderboard": ("bench.cli.leaderboard", "print the table of all runs in a folder"),
    "compare": ("bench.cli.compare", "compare two runs, groups of runs or methods"),
    "recommend": ("bench.cli.recommend", "say which method and rank to use, and how sure that is"),
    "predict": ("bench.cli.predict", "predict new rows or images with a finished run"),
    "export": ("bench.cli.export", "write a run's adapter for other programs, or the records of a folder"),
    "wandb": ("bench.cli.mirrors", "send finished runs to Weights & Biases, or build a report there"),
    "import": ("bench.cli.imports", "write records from a W&B project, or from a file"),
    "check": ("bench.cli.check", "check that a method keeps the contract of all methods"),
    "doctor": ("bench.cli.doctor", "check packages, devices, data and the embedded model"),
}
"""Verb → its module, imported when the verb is called, and its line in `bench --help`. A module has `EXAMPLES`,
`parser()` and `handle(options)`."""
BROKEN_PIPE = 141
"""Exit code of a program that SIGPIPE ends, as when the reader has left (`bench list runs | head`)."""
EXAMPLES = ("bench run --method deeplora --task glue", "bench list methods", "bench show deeplora", "bench leaderboard")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, `argv` after `bench` or else that of `sys.argv`, and return its exit code."""
    argv = [*(sys.argv[1:] if argv is None else argv)]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters still gets its table
    try:
        with preemptible() if argv[:1] in (["run"], ["work"], ["reproduce"]) else nullcontext():
            code = _dispatch(argv)
            sys.stdout.flush()
            return code
    except Preempted:
        print("preempted: the same command goes on", file=sys.stderr)
        return PREEMPTED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # nothing more can be written, and Python would report it again when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if "-v" in argv or "--verbose" in argv:
            sys.stderr.write(printable_lines(without_secrets(traceback.format_exc())))
        problem = error if isinstance(error, BenchError) else _explained(error)
        output.report(problem, as_json="--json" in argv)
        return problem.exit_code


def verb_module(verb: str) -> ModuleType:
    """Import the module of a verb; raises UsageError for an unknown one."""
    if verb not in VERBS:
        hint = did_you_mean(verb, VERBS)
        todo = f"{hint} `bench --help` describes them.".strip()
        raise UsageError(f"unknown verb '{verb}'", f"verbs: {', '.join(VERBS)}", todo)
    return importlib.import_module(VERBS[verb][0])


def _top() -> Parser:
    """Build the parser of a command without verb, whose help lists the verbs."""
    about = "How good is a low-rank training method, how few parameters does it need, and what rank does it really use?"
    top = Parser(prog="bench", description=about, examples=EXAMPLES)
    top.add_argument("--version", action="version", version=f"lowrank-bench {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB")
    for verb, (_, line) in VERBS.items():
        verbs.add_parser(verb, help=line)
    return top


def _dispatch(argv: list[str]) -> int:
    if not argv:
        _top().print_help(sys.stderr)
        return USAGE
    module = None if argv[0].startswith("-") else verb_module(argv[0])
    parser: Parser = module.parser() if module else _top()
    try:
        options, rest = parser.parse_known_args(argv[1:] if module else argv)
    except SystemExit as stop:  # --help and --version have printed
        return int(stop.code or 0)
    if rest or module is None:
        parser.unknown(rest or argv)
    check_packages()
    return module.handle(options)


def _explained(error: Exception) -> BenchError:
    """Word an unexpected error, a defect of this program, of a package or of the machine."""
    if isinstance(error, OSError) and error.errno and error.strerror:  # a full disk, a folder without permission
        return EnvironmentProblem(
            f"{error.filename or 'a file'}: {error.strerror}",
            "finished runs and their records are complete",
            "Fix it, then run the same command again; -v shows the traceback.",
        )
    first = next(iter(str(error).splitlines()), "")
    # a package that cannot be imported is the environment's fault, the rest is this program's
    kind = EnvironmentProblem if isinstance(error, ImportError) else BenchError
    return kind(
        f"{type(error).__name__}: {first}".rstrip(": "),
        "this error is unexpected; finished runs and their records are complete",
        "Run the same command with -v for the traceback, and `bench doctor` for the state of this machine.",
    )
