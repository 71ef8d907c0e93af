"""Corpora from each source: the embedded docstrings with labels; files, folders and the hub without."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bench.api.task import TaskSpec
from bench.core.errors import DataProblem, UsageError
from bench.records.data import Dataset, Example
from tasks.corpus import docstrings
from tasks.corpus.hub import Wanted, fetch
from tasks.corpus.passages import held_out, key_of
from tasks.corpus.read import Reading, find, read
from tasks.text.tokens import cache_folder

if TYPE_CHECKING:
    from tasks.corpus.task import CorpusConfig

OnBad = Literal["error", "skip"]
OPTIONS = ("unit", "validation", "split_seed", "hub", "config", "split", "column", "revision")
"""Options that say nothing but what the passages are: the record keeps them, no identity does."""


def embedded(config: CorpusConfig) -> Dataset:
    """Docstrings and what they belong to; of every kind the same share is held out.

    Raises:
        UsageError: `validation` is no share.
    """
    if config.share is None:
        known = f"task.validation={config.validation}: of the docstrings a share is held out"
        raise UsageError("the embedded corpus has no other texts", known, "Give a share, such as 0.1.")
    found = docstrings.gather(cache_folder())
    rows = [Example(text, None, docstrings.KINDS.index(kind)) for text, kind in found]
    keys = np.array([key_of(row.text.encode()) for row in rows], dtype=np.uint64)
    held = held_out(keys, config.share, seed=config.split_seed, classes=np.array([row.label for row in rows]))
    train = [row for row, out in zip(rows, held, strict=True) if not out]
    dev = [row for row, out in zip(rows, held, strict=True) if out]
    return Dataset(
        train=train,
        evaluation={"dev": dev},
        source="embedded",
        revision=docstrings.revision(found),
        reading={
            **_options(config),
            "labels": list(docstrings.KINDS),
            "sizes": {"train": len(train), "dev": len(dev)},
        },
    )


def files(
    path: Path, config: CorpusConfig, on_bad: OnBad, *, source: Literal["file", "directory"]
) -> tuple[TaskSpec, Dataset]:
    """A file or a folder; what is held out is a share of it, or another.

    Raises:
        DataProblem: nothing is there, it holds no text, or a passage is not UTF-8.
    """
    paths = [path] if config.share is not None else [path, Path(config.validation).expanduser()]
    readings = [read(find(one), unit=config.unit, on_bad=on_bad) for one in paths]
    return _unlabelled(config, readings, [one.resolve().name for one in paths], source=source)


def hub(name: str, config: CorpusConfig, on_bad: OnBad) -> tuple[TaskSpec, Dataset]:
    """A data set of the hub; what is held out is a share of its split, or another split.

    Raises:
        DataProblem: it cannot be had, or holds no text.
    """
    splits = [config.split] if config.share is not None else [config.split, config.validation]
    options: dict[str, Any] = {key: getattr(config, key) for key in ("config", "column", "revision")}
    fetched = [fetch(Wanted(hub=name, split=split, on_bad=on_bad, **options), cache_folder()) for split in splits]
    readings = [read((one.file,), unit=config.unit, on_bad=on_bad) for one in fetched]
    for one, reading, split in zip(fetched, readings, splits, strict=True):
        left_out = sum(reading.left_out.values()) + one.left_out
        reading.left_out, reading.first_left_out = {split: left_out} if left_out else {}, ""  # no file of the user's
    names = [name.rstrip("/").rpartition("/")[2], *splits[1:]]
    spec, dataset = _unlabelled(config, readings, names, source="hub")
    return spec, replace(dataset, revision=fetched[0].revision)


def _unlabelled(
    config: CorpusConfig,
    readings: Sequence[Reading],
    names: Sequence[str],
    *,
    source: Literal["file", "directory", "hub"],
) -> tuple[TaskSpec, Dataset]:
    train, dev = readings[0].passages, readings[-1].passages
    if drawn := config.share is not None:
        held = held_out(train.places["key"], config.share or 0, seed=config.split_seed)
        if not held.any():
            known = f"{len(train)} passages, all alike"
            raise DataProblem(f"nothing of {names[0]} can be held out", known, "Give more text.")
        train, dev = train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))
    hashes = [reading.sha256 for reading in readings]
    version = hashes[0] if drawn else hashlib.sha256("".join(hashes).encode()).hexdigest()
    spec = TaskSpec(
        name=_name(names[0]),
        version=version,
        modality="text",
        num_classes=0,
        metrics=(),
        primary=(),
        labelled=False,
    )
    reading: dict[str, Any] = {
        **_options(config),
        "validation": f"{config.share:g}" if drawn else names[-1],
        "split_seed": config.split_seed if drawn else None,
        "texts": [
            {"name": name, "files": len(one.passages.files), "sha256": one.sha256, "left_out": one.left_out}
            for name, one in zip(names, readings, strict=True)
        ],
        "sizes": {"train": len(train), "dev": len(dev)},
    }
    same = [f"{spec.name}: held out is train itself: no score of it counts"] if len(set(hashes)) < len(hashes) else []
    return spec, Dataset(
        train=train,
        evaluation={"dev": dev},
        source=source,
        revision=names[0],
        notes=(_found(spec.name, reading), *_said(spec.name, readings), *same),
        reading=reading,
        version=version,
    )


def _options(config: CorpusConfig) -> dict[str, Any]:
    """Options for the record; those of a hub that is not used are None."""
    return {name: getattr(config, name) if config.hub or name in OPTIONS[:3] else None for name in OPTIONS}


def _name(text: str) -> str:
    """`corpus/NAME`, of a name that may stand anywhere."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", re.sub(r"\.(txt|md)$", "", text, flags=re.I)).strip("-.")
    return f"corpus/{stem[:50] or 'texts'}"


def _found(name: str, reading: dict[str, Any]) -> str:
    sizes, seed = reading["sizes"], reading["split_seed"]
    where = reading["validation"] if seed is None else f"share {reading['validation']}, split seed {seed}"
    return f"{name}: {sizes['train']} {reading['unit']}s to train, {sizes['dev']} to evaluate ({where}), no labels"


def _said(name: str, readings: Sequence[Reading]) -> list[str]:
    """What was left out."""
    return [
        f"{name}: {sum(one.left_out.values())} left out ({', '.join(f'{n} in {w}' for w, n in one.left_out.items())})"
        + (f", the first: {one.first_left_out}" if one.first_left_out else "")
        for one in readings
        if one.left_out
    ]
