"""Texts to learn from without labels: the standard library's docstrings, a folder or file of yours, or the hub's.

`corpus` alone is the embedded one: every docstring of Python's standard library, labelled by what it belongs to
(module, class, function, method). `corpus:PATH` is a text file, or every .txt and .md below a folder;
`--set task.hub=ID` a data set of the Hugging Face hub. Those have no labels. A passage is a paragraph, the text between
two blank lines; its tokens beyond `task.max_length` are cut off. Files are read a passage at a time, and may be larger
than memory. Held out is a tenth of the passages, drawn by their text, so that equal ones are on one side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from bench.api.task import TaskSpec
from bench.config.options import option
from bench.config.sections import TaskConfig
from bench.core.errors import DataProblem, UsageError
from bench.records.data import DataRequest, Dataset
from tasks.corpus.docstrings import KINDS
from tasks.text.task import TextTask

HUB = {"config": None, "split": "train", "column": "text", "revision": "main"}
"""Options that belong to `task.hub`, and their defaults."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(TaskConfig):
    """What a passage is, which of them are held out, and where on the hub they are."""

    unit: Literal["paragraph", "line"] = option(
        "paragraph",
        "A passage is the text between two blank lines, or a line; docstrings are passages as they are.",
    )
    validation: str = option(
        "0.1",
        "Share of the passages that is held out, or a folder, a file, or a split of the hub's data set to evaluate on.",
    )
    split_seed: int = option(
        0,
        "Draws that share, whatever the run's seed: all runs and seeds are scored on the same passages.",
        at_least=0,
    )
    hub: str | None = option(None, "Id of a data set on the hub, such as Salesforce/wikitext, or the folder of one.")
    config: str | None = option(None, "Its configuration, such as wikitext-2-raw-v1.")
    split: str = option("train", "Its split to train on.")
    column: str = option("text", "Its column of texts.")
    revision: str = option("main", "Its branch, tag or commit; a full commit that was read before needs no network.")

    def __post_init__(self) -> None:
        """Check ranges, and that options of the hub have one."""
        super().__post_init__()
        if (share := self.share) is not None and not 0 < share < 1:
            known = "a share between 0 and 1, or where to find texts"
            raise UsageError(f"task.validation={self.validation}", known, "Change it.")
        idle = [name for name, default in HUB.items() if getattr(self, name) != default]
        if self.hub is None and idle:
            known = "there is no task.hub, whose option it is"
            raise UsageError(f"task.{idle[0]} changes nothing", known, "Give --set task.hub=ID, or leave it out.")

    @property
    def share(self) -> float | None:
        """`validation` as a number; None where it names texts."""
        try:
            return float(self.validation)
        except ValueError:
            return None


class TextCorpus(TextTask):
    """Docstrings (`corpus`), or the texts of a path (`corpus:texts` is `corpus/texts`).

    Raises:
        UsageError: a path without a name.
    """

    argument: ClassVar[str] = "[PATH]"
    Config: ClassVar[type] = CorpusConfig

    def __init__(self, argument: str) -> None:
        self.path = Path(argument).expanduser() if argument else None
        self.spec = TaskSpec(
            name="corpus/docstrings",
            version=1,
            modality="text",
            num_classes=len(KINDS),
            metrics=("macro_f1", "accuracy"),
            primary=("macro_f1",),
        )

    def open(self, request: DataRequest) -> Dataset:
        """Read and check every passage, and hold some out.

        Raises:
            UsageError: two sources are named, or `--data hub` without one.
            DataProblem: nothing is there, it holds no text, or a passage is not UTF-8; the error names file and line.
        """
        config = request.config or CorpusConfig()
        if config.hub is not None and (self.path or request.data in ("dir", "embedded")):
            other = f"corpus:{self.path}" if self.path else f"--data {request.data}"
            raise UsageError("two sources of text", f"task.hub={config.hub} and {other}", "Leave one of them out.")
        from tasks.corpus import sources

        if self.path:
            self.spec, dataset = sources.files(self.path, config, request.on_bad, source="file")
            return dataset
        if config.hub is not None:
            self.spec, dataset = sources.hub(config.hub, config, request.on_bad)
            return dataset
        if request.data == "hub":
            raise UsageError("--data hub: which data set?", "task.hub names none", "Add --set task.hub=ID.")
        if request.data in ("auto", "dir") and (folder := _directory(request)):
            self.spec, dataset = sources.files(folder, config, request.on_bad, source="directory")
            return dataset
        if request.data == "dir":
            known = "--data dir was asked; neither --data-dir corpus=DIR nor BENCH_DATA names a folder of texts"
            raise DataProblem("no directory of texts", known, "Name it: --task corpus:PATH.")
        return sources.embedded(config)


def _directory(request: DataRequest) -> Path | None:
    """A folder of texts among the directories the user named: `--data-dir corpus=DIR`, or `corpus` in any other."""
    for name, folder in request.dirs:
        if name == "corpus":
            return folder
        if name is None and (folder / "corpus").is_dir():
            return folder / "corpus"
    folder = request.parent / "corpus" if request.parent else None
    return folder if folder and folder.is_dir() else None
