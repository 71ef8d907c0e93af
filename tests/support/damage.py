"""Flips one byte at a time in every file of small runs, calls every command that reads it, and counts what happens.

    python tests/support/damage.py --places 50

Trains, in a temporary folder, a run that keeps an adapter, two that keep their network, and one that is interrupted. A
reader may refuse the damaged file, or give the same as from the whole one, as where a byte means nothing. It must not
give anything else. The exit code is 1 if one does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple
from unittest.mock import patch

from bench.cli import main
from bench.core.errors import ENVIRONMENT, OK
from bench.core.text import table
from bench.harness.progress import Progress
from bench.records import record
from bench.training.trainer import DAMAGED

Fate = Literal["refused", "same", "silent", "crashed"]
SMALL = ("--accelerator", "cpu", "--batch-size", "16", "--train-samples", "32")
ADAPTED = ("--method", "lora", "--task", "digits", "--backbone", "vit", "--max-steps", "3", *SMALL)
ADAPTED += ("--set", "backbone.width=16", "--set", "backbone.depth=1", "--set", "backbone.heads=1")
INTERRUPTED = (*ADAPTED, "--seeds", "1", "--set", "runtime.checkpoint_s=0")
DENSE = ("--method", "full", "--backbone", "mlp", "--set", "backbone.width=8", "--set", "runtime.save=all")
DENSE += ("--max-steps", "2", *SMALL)
TEXT = ("--method", "mlm", "--backbone", "bert", "--set", "backbone.layers=1", "--set", "backbone.hidden=4")
TEXT += ("--set", "backbone.heads=1", "--max-steps", "2", *SMALL)


class Answer(NamedTuple):
    """What a reader gave, and whether it refused the file."""

    code: int
    refused: bool
    content: object


Reader = Callable[[Path], Answer]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file of a run, and a command that reads it from a copy of the run's folder.

    Attributes:
        run: the run's folder.
        name: path of the file in it.
        reader: how the table calls the command.
        read: calls it; the argument is the copy.
    """

    run: Path
    name: str
    reader: str
    read: Reader


def cases(folder: Path) -> Iterator[Case]:
    """Train the runs in a folder, and give every file that they keep, with each of its readers."""
    adapted = _train(folder, *ADAPTED)
    yield Case(run=adapted, name="record.json", reader="bench show", read=_show)
    yield Case(run=adapted, name="adapter.safetensors", reader="bench export --peft", read=_export)
    yield Case(run=adapted, name="adapter.safetensors", reader="bench spectra FILE", read=_spectra_of_adapter)
    yield Case(run=adapted, name="spectra.npz", reader="bench spectra RUN", read=_spectra)
    yield Case(run=adapted, name="predictions.parquet", reader="bench leaderboard", read=_table)
    (folder / "texts.txt").write_text("\n\n".join(f"the cat number {i} sat on the mat" for i in range(60)))
    corpus = f"corpus:{folder / 'texts.txt'}"
    for words, task, kind in ((DENSE, "digits", "dense"), (TEXT, corpus, "text")):
        trained, read = _train(folder, *words, "--task", task), _continued(*words[:2], "--task", task)
        for name in record.read(trained / record.FILE).files:
            if name.startswith("backbone/"):
                yield Case(run=trained, name=name, reader=f"--backbone runs: ({kind})", read=read)
    with patch.object(Progress, "step", _fail_at_step_3):
        failed = _train(folder, *INTERRUPTED, code=1)
    yield Case(run=failed, name="spectra.npz", reader="bench spectra RUN (failed)", read=_spectra)
    [file] = failed.glob("checkpoint-*")
    yield Case(run=failed, name=file.name, reader="bench run --retry", read=_retry)


def count(case: Case, places: int) -> Counter[Fate]:
    """Flip the lowest bit at `places` bytes of a file, evenly spread and one at a time, and count what the reader does.

    The lowest bit turns a digit or letter of a text into another, so that the text stays well formed most of the time.
    """
    whole, expected = (case.run / case.name).read_bytes(), _answer_of_whole(case.run, case.read)
    assert expected.code == OK and not expected.refused, f"{case.reader} of the whole {case.name}: {expected.content}"
    fates: Counter[Fate] = Counter()
    for i in range(places):
        place = (2 * i + 1) * len(whole) // (2 * places)
        content = bytearray(whole)
        content[place] ^= 1
        found = _answer(case.run, case.read, {case.name: bytes(content)})
        if found.refused:
            fates["refused"] += 1
        elif found.code != OK:
            fates["crashed"] += 1
        else:
            fates["same" if found.content == expected.content else "silent"] += 1
    return fates


@cache
def _answer_of_whole(run: Path, read: Reader) -> Answer:
    return _answer(run, read, {})


def _answer(run: Path, read: Reader, changed: Mapping[str, bytes]) -> Answer:
    """Call a reader with a copy of the run's folder in which some files have other content."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "runs" / run.name
        shutil.copytree(run, copy)
        for file, content in changed.items():
            (copy / file).write_bytes(content)
        return read(copy)


def _train(folder: Path, *words: str, code: int = OK) -> Path:
    """Train one run, and return its folder."""
    out = folder / "runs"
    before = {*out.glob("*")}
    answer = _bench("run", *words, "--out", str(out))
    assert answer.code == code, answer.content
    [made] = {*out.glob("*")} - before
    return made


def _fail_at_step_3(self: Progress, step: int, loss: float) -> None:
    if step == 3:
        raise RuntimeError("interrupted")


def _bench(*words: str) -> Answer:
    """Run a command in this process; it refuses a file if it ends with the exit code of the environment."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*words])
    return Answer(code, code == ENVIRONMENT, out.getvalue() if code == OK else err.getvalue())


def _show(copy: Path) -> Answer:
    return _bench("show", copy.name, "--runs", str(copy.parent))


def _table(copy: Path) -> Answer:
    """The tables; a warning says that a run counts as one without outputs."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["leaderboard", "--runs", str(copy.parent)])
    return Answer(code, "warning" in err.getvalue(), out.getvalue())


def _export(copy: Path) -> Answer:
    """The content of all files that the export wrote."""
    target = copy.parent.parent / "exported"
    answer = _bench("export", copy.name, "--runs", str(copy.parent), "--peft", str(target))
    if answer.code != OK:
        return answer
    return answer._replace(content={file.name: file.read_bytes() for file in target.glob("*")})


def _spectra(copy: Path) -> Answer:
    return _numbers(copy, copy.name)


def _spectra_of_adapter(copy: Path) -> Answer:
    return _numbers(copy, str(copy / "adapter.safetensors"))


def _numbers(copy: Path, what: str) -> Answer:
    """All that `bench spectra` says of a run or file, without the paths of its pictures."""
    pictures = ("--output", str(copy.parent.parent / "pictures"))
    answer = _bench("spectra", what, "--runs", str(copy.parent), *pictures, "--json")
    if answer.code != OK:
        return answer
    return answer._replace(content={k: v for k, v in json.loads(str(answer.content)).items() if k != "files"})


def _continued(*words: str) -> Reader:
    """A reader that trains from the network of the run."""

    def read(copy: Path) -> Answer:
        where = ("--backbone", f"runs:{copy.name}", "--out", str(copy.parent))
        answer = _bench("run", *words, *where, "--max-steps", "2", *SMALL)
        if answer.code != OK:
            return answer
        others = [found for found in copy.parent.glob("*") if found.name != copy.name]
        return answer._replace(content=[_result(other) for other in others])

    return read


def _retry(copy: Path) -> Answer:
    """Goes on with the interrupted run; a warning says where it began anew."""
    answer = _bench("run", *INTERRUPTED, "--retry", "--out", str(copy.parent))
    made = record.read(copy / record.FILE)
    return Answer(answer.code, DAMAGED in made.warnings, _result(copy))


def _result(folder: Path) -> object:
    """What training decided, without times."""
    made = record.read(folder / record.FILE)
    return made.metrics, made.curve, made.ranks, made.params, made.spectra, made.state


def run(argv: Sequence[str] | None = None) -> int:
    """Print the table of all files; return 1 if a reader gave another result in silence, or crashed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--places", type=int, default=50, help="bytes to flip in each file (default: 50)")
    places: int = parser.parse_args(argv).places
    fates: tuple[Fate, ...] = ("refused", "same", "silent", "crashed")
    rows: list[tuple[str, ...]] = []
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        for case in cases(Path(name)):
            found = count(case, places)
            bad += found["silent"] + found["crashed"]
            rows.append((case.name, case.reader, *(str(found[fate]) for fate in fates)))
            print(f"{case.name}, {case.reader}: {dict(found)}", file=sys.stderr, flush=True)
    print(table(("file", "read by", *fates), rows))
    return 1 if bad else 0


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(run())
