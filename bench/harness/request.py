"""What `bench run` was asked for: names and overrides, before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict, TypeVar, Unpack, cast

from bench.config.options import Value
from bench.config.overrides import Overrides
from bench.core import registry
from bench.core.errors import UsageError
from bench.harness.task_names import check_task, full_name
from bench.records.data import DataRequest
from bench.records.spec import Course, Precision, Track

T = TypeVar("T", bound=str | float)
Source = Literal["auto", "dir", "hub", "embedded"]

WIDEN = 3
"""Default of `--widen`."""
DEFAULT_BACKBONES = {"text": "minilm", "image": "vit", "vector": "dln"}
"""Modality → the backbone for it that needs no network."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A grid: every combination of methods, tasks, backbones, variants of options, learning rates and seeds.

    Attributes:
        backbones: names as given; none: each task takes the one of `DEFAULT_BACKBONES` that reads it.
        lrs: several make a run each, or are the candidates where `select` has lr.
        select: what is chosen on a split held out from train: lr, and options by name; their candidates are in
            `overrides`.
        match_params: method whose trained parameters the others match by the option that scales theirs.
        trials: how many optuna's TPE suggests; None: every combination of the candidates is tried.
        select_on: task whose train split decides; None: each run's own.
        widen: most rates tried beyond the candidates, while the best one is at their end.
        evaluate: when dev is evaluated during training; None: at the end alone.
        strict: something that cannot run is an error, instead of being left out.
        retry: run again what failed before.
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    backbones: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    data: DataRequest = field(default_factory=DataRequest)
    max_steps: int | None = None
    epochs: float | None = None
    train_samples: int | None = None
    batch_size: int = 16
    lrs: tuple[float, ...] = ()
    select: tuple[str, ...] = ()
    match_params: str | None = None
    trials: int | None = None
    select_on: str | None = None
    widen: int = WIDEN
    evaluate: Course = None
    overrides: Overrides = field(default_factory=Overrides)
    precision: Precision = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    track: Track = "off"
    out: Path = Path("runs")
    strict: bool = False
    retry: bool = False

    @property
    def configured(self) -> tuple[str, ...]:
        """The methods whose options may be given: those that are asked for, and the one whose parameters they match."""
        return tuple(dict.fromkeys([*self.methods, *([self.match_params] if self.match_params else [])]))

    @property
    def families(self) -> tuple[str, ...]:
        """Registered names of all tasks that are asked for."""
        names = [*self.tasks, *([self.select_on] if self.select_on else [])]
        return tuple(dict.fromkeys(map(registry.family, names)))

    @property
    def all_backbones(self) -> tuple[str, ...]:
        """The backbones that are asked for, or the defaults of the tasks' modalities."""
        modalities = [registry.load("tasks", name).modality for name in self.families]
        return self.backbones or tuple(dict.fromkeys(DEFAULT_BACKBONES[modality] for modality in modalities))

    @property
    def openers(self) -> tuple[str, ...]:
        """Registered names of these backbones."""
        return tuple(dict.fromkeys(map(registry.opener, self.all_backbones)))


class Budget(TypedDict, total=False):
    """The fields of a `Request` that `make_request` takes as they are: how long, how and where it runs."""

    max_steps: int | None
    epochs: float | None
    train_samples: int | None
    evaluate: Course
    batch_size: int
    precision: Precision
    accelerator: str
    devices: int
    track: Track
    strict: bool
    retry: bool


def make_request(
    *,
    methods: str | Iterable[str] = (),
    tasks: str | Iterable[str] = (),
    backbones: str | Iterable[str] = (),
    seeds: int | Iterable[int] = 0,
    lr: float | Iterable[float] = (),
    select: bool | str | Iterable[str] = (),
    match_params: str | None = None,
    trials: int | None = None,
    select_on: str | None = None,
    widen: int | None = None,
    data: Source = "auto",
    data_dir: str | Path | Iterable[str | Path] | Mapping[str, str | Path] = (),
    bench_data: str | Path | None = None,
    set: Mapping[str, Value | Iterable[Value]] | Iterable[str] = (),
    out: str | Path = "runs",
    **fields: Unpack[Budget],
) -> Request:
    """Make a request from names; nothing is opened.

    Args:
        methods, tasks, backbones: one name or several.
        seeds, lr: one value or several; each is a run of its own.
        select: `True` or lr, options by name, or several of these; an option takes its candidates from `set`.
        match_params, trials, select_on, widen: see `Request`.
        data: which source the data come from.
        data_dir: a folder, `NAME=DIR`, several of these, or name → folder.
        bench_data: takes the place of the environment variable `BENCH_DATA`; `none`: no folder.
        set: option → value or several, `{"method.rank": [4, 8]}`, or `namespace.key=value` texts.

    Raises:
        UsageError: a name is unknown, or something is missing, given twice, or contradicts something else.
    """
    given = (tasks,) if isinstance(tasks, str) else tasks
    method_names, task_names = _distinct("--method", methods), _distinct("--task", map(full_name, given))
    select_on = full_name(select_on) if select_on else None
    _required("--method", method_names, "methods")
    _required("--task", task_names, "tasks")
    for method in (*method_names, *([match_params] if match_params else [])):
        registry.find("methods", method)
    for task in (*task_names, *([select_on] if select_on else [])):
        check_task(task)
    rates = _distinct("--lr", lr)
    selected = (("lr",) if select else ()) if isinstance(select, bool) else _distinct("--select", select)
    _check_select(selected, select_on, trials, widen, rates)
    _check_course(fields.get("evaluate"))
    if fields.get("max_steps") is not None and fields.get("epochs") is not None:
        given = f"--max-steps {fields.get('max_steps')}, --epochs {fields.get('epochs')}"
        raise UsageError("--max-steps is not allowed with --epochs", given, "Leave one of the two out.")
    settings = cast("Mapping[str, Value | Iterable[Value]]", set)
    overrides = Overrides.of(settings) if isinstance(set, Mapping) else Overrides.parse([*set])
    overrides = overrides.selecting(name for name in selected if name != "lr")
    return Request(
        methods=method_names,
        tasks=task_names,
        backbones=_distinct("--backbone", backbones),
        seeds=_distinct("--seeds", seeds) or (0,),
        lrs=rates,
        select=selected,
        match_params=match_params,
        trials=trials,
        select_on=select_on,
        widen=WIDEN if widen is None else widen,
        data=_data_request(data, data_dir, os.environ.get("BENCH_DATA", "") if bench_data is None else str(bench_data)),
        overrides=overrides,
        out=Path(out).expanduser(),
        **fields,
    )


def _required(flag: str, values: tuple[str, ...], kind: registry.Kind) -> None:
    if not values:
        known = f"known {kind}: {', '.join(sorted(registry.entries(kind)))}"
        raise UsageError(f"{flag} is missing", known, "Write for example: bench run --method deeplora --task glue")


def _distinct(flag: str, given: T | Iterable[T]) -> tuple[T, ...]:
    """One value or several, as a tuple; none of them twice, since a run is made once."""
    values = cast("tuple[T, ...]", (given,) if isinstance(given, str | int | float) else tuple(given or ()))
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        raise UsageError(
            f"{flag}: {twice} is given twice", f"given: {', '.join(map(str, values))}", "Keep one of them."
        )
    return values


def _check_select(
    select: tuple[str, ...], select_on: str | None, trials: int | None, widen: int | None, rates: tuple[float, ...]
) -> None:
    if select_on and not select:
        raise UsageError(
            "--select-on without --select",
            "it says on which task a choice is made",
            "Add --select lr, or leave it out.",
        )
    if trials is not None and (not select or trials < 2):
        raise UsageError(
            f"--trials {trials}" + ("" if select else " without --select"),
            "it is how many trials a selection makes",
            "Give 2 or more." if select else "Add --select lr, or leave it out.",
        )
    if widen is not None and ("lr" not in select or widen < 0):
        raise UsageError(
            f"--widen {widen}" + ("" if "lr" in select else " without --select lr"),
            "it is how many learning rates a selection may try beyond its candidates",
            "Give 0 or more." if "lr" in select else "Add --select lr, or leave it out.",
        )
    if widen is not None and trials is not None:
        raise UsageError(
            f"--widen {widen} with --trials {trials}",
            "--trials samples learning rates between the smallest and the largest candidate, and none beyond",
            "Leave one of the two out.",
        )
    if "lr" in select and len(rates) == 1:
        raise UsageError(
            "--select lr with one learning rate has nothing to choose from",
            f"--lr {rates[0]}",
            "Give several (--lr 3e-4,1e-3,3e-3), or none for the method's own three.",
        )


def _check_course(evaluate: object) -> None:
    if evaluate in (None, "epoch") or (type(evaluate) is int and evaluate >= 1):
        return
    raise UsageError(
        f"--evaluate {evaluate!r} is neither a number of steps nor epoch",
        "N scores dev after every N optimiser steps, epoch after every pass over train",
        "Give a whole number of at least 1, or epoch.",
    )


def _data_request(
    source: Source, folders: str | Path | Iterable[str | Path] | Mapping[str, str | Path], bench_data: str
) -> DataRequest:
    if isinstance(folders, Mapping):
        texts = [f"{name}={folder}" for name, folder in cast(Mapping[str, str | Path], folders).items()]
    else:
        texts = [str(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]
    dirs = tuple(_named_dir(text) for text in texts)
    for i, (name, folder) in enumerate(dirs):
        if name in [other for other, _ in dirs[:i]]:
            raise UsageError(
                f"--data-dir is given twice for {name or 'all tasks'}",
                f"the second is {folder}",
                "Write --data-dir NAME=DIR, each name once.",
            )
    parent = "" if bench_data == "none" else bench_data.strip()
    if dirs and source in ("hub", "embedded"):
        raise UsageError(f"--data {source} reads no directory", f"--data-dir {texts[0]}", "Leave one of the two out.")
    if source == "dir" and not dirs and not parent:
        raise UsageError(
            "--data dir without a directory", "neither --data-dir nor BENCH_DATA is given", "Add --data-dir DIR."
        )
    return DataRequest(data=source, dirs=dirs, parent=Path(parent).expanduser() if parent else None)


def _named_dir(text: str) -> tuple[str | None, Path]:
    """`NAME=DIR` or `DIR`; a folder whose own name holds `=` is taken as it is."""
    name, equals, folder = text.partition("=")
    if not text.strip() or (equals and not folder):
        raise UsageError(f"--data-dir '{text}' names no directory", "DIR or NAME=DIR", "Give a directory.")
    if not equals or Path(text).expanduser().exists():
        return None, Path(text).expanduser()
    check_task(name)
    return name, Path(folder).expanduser()
