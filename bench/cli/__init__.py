"""The command `bench`: parses, hands over to a verb, and turns whatever happens into an exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence

from bench import __version__
from bench.cli import doctor, leaderboard, listing, output, run, show
from bench.cli.parser import Parser
from bench.errors import INTERRUPTED, USAGE, BenchError, EnvironmentProblem, UsageError, did_you_mean
from bench.guard import check_packages

VERBS = {
    "run": run,
    "list": listing,
    "show": show,
    "leaderboard": leaderboard,
    "doctor": doctor,
}
BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ends: the reader (`bench list runs | head`) has gone."""
EXAMPLES = (
    "bench run --method deeplora --task glue",
    "bench list methods",
    "bench show deeplora",
    "bench leaderboard",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: words after `bench`; None is `sys.argv`.

    Returns:
        The exit code: 0 all done, 1 some run failed, 2 usage, 3 environment, 4 a check did not hold, 75 pre-empted,
        130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters still gets its table
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BenchError as error:
        if _verbose(words):
            traceback.print_exc()
        output.report(error, as_json="--json" in words)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # nothing more can be written, and Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        return _unexpected(error, words)


def parser() -> Parser:
    """The parser of all verbs."""
    top = Parser(
        prog="bench",
        description="How good is a low-rank training method, how few parameters does it need, and what rank does it "
        "really use?",
        examples=EXAMPLES,
    )
    top.add_argument("--version", action="version", version=f"lowrank-bench {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", parser_class=Parser)
    for module in VERBS.values():
        module.add(verbs)
    return top


def _dispatch(words: list[str]) -> int:
    top = parser()
    if not words:
        top.print_help(sys.stderr)
        return USAGE
    if not words[0].startswith("-") and words[0] not in VERBS:
        hint = did_you_mean(words[0], VERBS)
        raise UsageError(
            f"unknown verb '{words[0]}'", f"verbs: {', '.join(VERBS)}", f"{hint} `bench --help` describes them.".strip()
        )
    try:
        options, rest = top.parse_known_args(words)
    except SystemExit as stop:  # --help and --version have printed what was asked for
        return int(stop.code or 0)
    if rest or not hasattr(options, "parser"):
        getattr(options, "parser", top).unknown(rest or words)
    check_packages()
    return options.handle(options)


def _unexpected(error: Exception, words: Sequence[str]) -> int:
    """A defect of this program, or of a package below it: not the user's to mend."""
    if _verbose(words):
        traceback.print_exc()
    first = next(iter(str(error).splitlines()), "")
    # a package that cannot be imported is the environment's fault, the rest is this program's
    kind = EnvironmentProblem if isinstance(error, ImportError) else BenchError
    problem = kind(
        f"{type(error).__name__}: {first}".rstrip(": "),
        "this was not foreseen; finished runs and their records are whole",
        "Run the same command with -v for the traceback, and `bench doctor` for the state of this machine.",
    )
    output.report(problem, as_json="--json" in words)
    return problem.exit_code


def _verbose(words: Sequence[str]) -> bool:
    return "-v" in words or "--verbose" in words
