"""Texts to learn from without labels: the standard library's docstrings, a folder or file of yours, or the hub's.

`corpus` alone is the embedded one: every docstring of Python's standard library, labelled by the kind of object it
belongs to (module, class, function, method). `corpus:PATH` is a text file, or every .txt and .md below a folder;
`--set task.hub=ID` is a dataset of the Hugging Face hub. Those have no labels. A passage is a paragraph, the text
between two blank lines; its tokens beyond `task.max_length` are cut off. Files are read a passage at a time, and may be
larger than memory. A tenth of the passages is held out, chosen by their text, so that equal ones are in one split.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.api.task import TaskSpec
from bench.config.options import option
from bench.config.sections import TaskConfig
from bench.core.errors import DataProblem, UsageError
from bench.core.hub import HubDataset
from bench.records.data import DataRequest, Dataset, Example, SourceKind
from tasks.corpus import docstrings
from tasks.io.cautions import seen_in_training
from tasks.text.task import TextTask

if TYPE_CHECKING:
    from tasks.corpus.passages import TextIndex

HUB_OPTIONS = ("config", "split", "column", "revision")  # options that have an effect only with `task.hub`


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(TaskConfig):
    unit: Literal["paragraph", "line"] = option(
        "paragraph", "A passage is the text between two blank lines, or a line; docstrings are passages as they are."
    )
    validation: str = option(
        "0.1",
        "Share of the passages that is held out; or a folder, a file, or a split of the hub's dataset to evaluate on.",
    )
    split_seed: int = option(
        0, "Draws that share, whatever the run's seed: all runs and seeds are scored on the same passages.", at_least=0
    )
    hub: str | None = option(
        None, "Id of a dataset on the hub, such as Salesforce/wikitext, or a folder that holds one."
    )
    config: str | None = option(None, "Its configuration, such as wikitext-2-raw-v1.")
    split: str = option("train", "Its split to train on.")
    column: str = option("text", "Its column of texts.")
    revision: str = option("main", "Its branch, tag or commit; a full commit that was read before needs no network.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (share := self.share) is not None and not 0 < share < 1:
            known = "a share between 0 and 1, or where to find texts"
            raise UsageError(f"task.validation={self.validation}", known, "Change it.")
        unused = [name for name in HUB_OPTIONS if getattr(self, name) != getattr(CorpusConfig, name)]
        if self.hub is None and unused:
            known = "it is an option of task.hub, which is not given"
            raise UsageError(f"task.{unused[0]} has no effect", known, "Give --set task.hub=ID, or leave it out.")

    @property
    def share(self) -> float | None:
        """`validation` as a number; None where it names texts."""
        try:
            return float(self.validation)
        except ValueError:
            return None


class TextCorpus(TextTask):
    """Docstrings (`corpus`), or the texts of a path (`corpus:texts` is `corpus/texts`).

    Modules that need numpy are imported when texts are read, so that lists of tasks come without it.
    """

    argument: ClassVar[str] = "[PATH]"
    Config: ClassVar[type] = CorpusConfig

    def __init__(self, argument: str) -> None:
        self.path = Path(argument).expanduser() if argument else None
        self.spec = TaskSpec(
            name="corpus/docstrings",
            version=1,
            modality="text",
            num_classes=len(docstrings.KINDS),
            metrics=("macro_f1", "accuracy"),
            primary=("macro_f1",),
        )

    def open(self, request: DataRequest) -> Dataset:
        """Read and check every passage, and hold some out.

        Raises:
            UsageError: two sources are named, or `--data hub` without one.
            DataProblem: there is no text, or a passage is not UTF-8; the error names file and line.
        """
        config = request.config_as(CorpusConfig)
        if config.hub is not None and (self.path or request.data in ("dir", "embedded")):
            other = f"corpus:{self.path}" if self.path else f"--data {request.data}"
            raise UsageError("two sources of text", f"task.hub={config.hub} and {other}", "Leave one of them out.")
        if self.path:
            return self._files(self.path, config, request, "file")
        if config.hub is not None:
            return self._hub(config.hub, config, request)
        if request.data == "hub":
            raise UsageError("--data hub: which dataset?", "task.hub names none", "Add --set task.hub=ID.")
        if request.data in ("auto", "dir") and (folder := _named_folder(request)):
            return self._files(folder, config, request, "directory")
        if request.data == "dir":
            known = "--data dir was given; neither --data-dir corpus=DIR nor BENCH_DATA names a folder of texts"
            raise DataProblem("no directory of texts", known, "Name it: --task corpus:PATH.")
        return _docstrings(config)

    def _files(self, path: Path, config: CorpusConfig, request: DataRequest, source: SourceKind) -> Dataset:
        from tasks.corpus.passages import find_files, index_files

        paths = [path] if config.share is not None else [path, Path(config.validation).expanduser()]
        names = [path.resolve().name for path in paths]
        indexes = [index_files(find_files(path), unit=config.unit, on_bad=request.on_bad) for path in paths]
        return self._unlabelled(config, indexes, names, source, names[0])

    def _hub(self, name: str, config: CorpusConfig, request: DataRequest) -> Dataset:
        from tasks.corpus.hub import HubTexts, index_texts

        splits = [config.split] if config.share is not None else [config.split, config.validation]
        dataset = HubDataset(name=name, config=config.config, revision=config.revision)
        texts = [index_texts(HubTexts(dataset, split, config.column, request.on_bad), config.unit) for split in splits]
        names = [name.rstrip("/").rpartition("/")[2], *splits[1:]]
        _, revision = texts[0]
        return self._unlabelled(config, [index for index, _ in texts], names, "hub", revision)

    def _unlabelled(
        self, config: CorpusConfig, indexes: list[TextIndex], names: list[str], source: SourceKind, revision: str
    ) -> Dataset:
        """Hold out a share of the first texts, or all of the second ones, and describe the task."""
        import numpy as np

        from tasks.corpus.passages import held_out

        train, dev = indexes[0].passages, indexes[-1].passages
        validation, where = names[-1], names[-1]
        if config.share is not None:
            held = held_out(train.places["key"], config.share, seed=config.split_seed)
            if not held.any():
                known = f"{len(train)} passages, all equal"
                raise DataProblem(f"nothing of {names[0]} can be held out", known, "Give more text.")
            train, dev = train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))
            validation = f"{config.share:g}"
            where = f"share {validation}, split seed {config.split_seed}"
        hashes = [index.sha256 for index in indexes]
        version = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", re.sub(r"\.(txt|md)$", "", names[0], flags=re.I)).strip("-.")
        name = f"corpus/{stem[:50] or 'texts'}"
        self.spec = TaskSpec(
            name=name, version=version, modality="text", num_classes=0, metrics=(), primary=(), labelled=False
        )
        notes = [f"{len(train)} {config.unit}s to train, {len(dev)} to evaluate ({where}), no labels"]
        for index in indexes:
            if index.left_out:
                files = ", ".join(f"{count} in {file}" for file, count in index.left_out.items())
                first = f", the first: {index.first_left_out}" if index.first_left_out else ""
                notes.append(f"{sum(index.left_out.values())} left out ({files}){first}")
        if len(set(hashes)) < len(hashes):
            notes.append("the held-out texts are the training texts; their scores do not count")
        seen = int(np.isin(dev.places["key"], train.places["key"]).sum())
        texts = [
            {"name": name, "files": len(index.passages.files), "sha256": index.sha256, "left_out": index.left_out}
            for name, index in zip(names, indexes, strict=True)
        ]
        return Dataset(
            train=train,
            evaluation={"dev": dev},
            source=source,
            revision=revision,
            notes=tuple(f"{name}: {note}" for note in notes),
            warnings=tuple(seen_in_training(name, seen, len(dev), f"{config.unit}s to evaluate")),
            reading={
                **_options(config),
                "validation": validation,
                "split_seed": None if config.share is None else config.split_seed,
                "texts": texts,
                "sizes": {"train": len(train), "dev": len(dev)},
                "also_in_train": seen,
            },
            version=version,
        )


def _docstrings(config: CorpusConfig) -> Dataset:
    """Read the docstrings, and hold out the same share of every kind."""
    import numpy as np

    from bench.core.files import cache_folder
    from tasks.corpus.passages import held_out, key_of

    if config.share is None:
        known = f"task.validation={config.validation}: of the docstrings a share is held out"
        raise UsageError("the embedded corpus has no other texts", known, "Give a share, such as 0.1.")
    gathered = docstrings.gather(cache_folder())
    rows = [Example(text, None, docstrings.KINDS.index(kind)) for text, kind in gathered]
    keys = np.array([key_of(row.text.encode()) for row in rows], dtype=np.uint64)
    held = held_out(keys, config.share, seed=config.split_seed, classes=np.array([row.label for row in rows]))
    train = [row for row, is_held in zip(rows, held, strict=True) if not is_held]
    dev = [row for row, is_held in zip(rows, held, strict=True) if is_held]
    sizes = {"train": len(train), "dev": len(dev)}
    return Dataset(
        train=train,
        evaluation={"dev": dev},
        source="embedded",
        revision=docstrings.revision(gathered),
        reading={**_options(config), "labels": list(docstrings.KINDS), "sizes": sizes},
    )


def _options(config: CorpusConfig) -> dict[str, object]:
    """Return what decides about the passages, for the record; options of a hub that is not used are None."""
    unused = () if config.hub else HUB_OPTIONS
    options = {name: None if name in unused else value for name, value in config.to_json().items()}
    return {name: value for name, value in options.items() if name != "max_length"}


def _named_folder(request: DataRequest) -> Path | None:
    """Return the folder of texts among the user's directories: `--data-dir corpus=DIR`, or `corpus` in another."""
    for name, folder in request.dirs:
        if name == "corpus":
            return folder
        if name is None and (folder / "corpus").is_dir():
            return folder / "corpus"
    folder = request.parent / "corpus" if request.parent else None
    return folder if folder and folder.is_dir() else None
