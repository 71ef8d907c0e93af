"""The text of `bench show RUN`."""

from __future__ import annotations

import shlex
from typing import Literal, cast

import msgspec

from bench.cli.spectra.truncation import describe
from bench.core.text import printable, table
from bench.records.course import best
from bench.records.fields import FreeForm
from bench.records.record import Record
from bench.records.results import Metrics, Selection
from bench.records.schema import BackboneInfo
from leaderboard.render.json_export import subsample

EVALUATIONS = 12
"""About so many of a run's evaluations are shown."""


class _TableFile(msgspec.Struct):
    name: str
    sha256: str
    left_out: dict[str, int]


class _TableReading(msgspec.Struct):
    """What a record says of a user's table."""

    text: str | None
    text_pair: str | None
    label: str | None
    kind: str
    labels: list[str]
    scale: dict[str, float] | None
    validation: str
    split_seed: int | None
    files: list[_TableFile]
    sizes: dict[str, int]


def text(record: Record) -> str:
    """Write a record as text: state, scores, parameters, ranks, cost, warnings, specification, and its command."""
    spec = record.spec
    title = f"run {record.run_id}  ·  {record.state}  ·  {spec.method} on {spec.task}, seed {spec.seed}"
    results = (_results(record), _evaluations(record), _ranks(record), _report(record))
    title = printable(title)
    how = (_specification(record), _trials(record), _provenance(record))
    return "\n\n".join(filter(None, (title, _problems(record), *results, *how)))


def _problems(record: Record) -> str:
    error = record.error
    lines = [error.what, error.known, error.todo] if error else []
    return "\n".join(map(printable, filter(None, (*lines, *(f"warning: {warning}" for warning in record.warnings)))))


def _results(record: Record) -> str:
    rows: list[tuple[str, str]] = []
    if metrics := record.metrics:
        primary = metrics.primary
        better = "" if primary.higher_is_better else ", lower is better"
        share = _largest_class(metrics, primary.split, primary.name)
        value = f"{primary.name} {primary.value:.4f}{share}"
        rows.append(("score", f"{value} on {primary.split} (n = {primary.n}{better})"))
        if found := best(record):
            about = f"at step {found.step}, chosen on {primary.split}, so it is optimistic; the score is the last one"
            rows.append(("  best", f"{primary.name} {found.value:.4f} {about}"))
        for split, values in metrics.all.items():
            parts = (f"{name} {value:.4f}{_largest_class(metrics, split, name)}" for name, value in values.items())
            rows.append((f"  {split}", ", ".join(parts)))
    if sweep := record.sweep:
        rows.append(("  by n dropped", ", ".join(f"{point.n}: {point.primary:.4f}" for point in sweep)))
    if cut := record.truncation:
        rows.append(("rank needed", describe(cut)))
        rows.append(("  score by k", ", ".join(f"{point.k}: {point.value:.4f}" for point in cut.points)))
    if params := record.params:
        share = f"{params.trainable / params.total:.2%}" if params.total else "–"
        rows.append(("trained", f"{params.trainable:,} of {params.total:,} parameters ({share})"))
        rows.append(("  of which head", f"{params.head:,}"))
        rows.append(("stored", f"{params.stored_bytes:,} bytes"))
    if cost := record.cost:
        rows.append(("steps", f"{cost.steps} ({cost.samples:,} samples)"))
        cuts = f", {cost.truncation_s:.1f} s evaluation with ΔW cut" if record.truncation else ""
        rows.append(("time", f"{cost.train_s:.1f} s training, {cost.eval_s:.1f} s evaluation{cuts}"))
        if kept := cost.optimizer_bytes:
            rows.append(("optimiser", f"{kept / 2**20:,.1f} MiB of state"))
        if kept := cost.cache_bytes:
            rows.append(("cached", f"{kept / 2**20:,.1f} MiB, computed once per example"))
        memory = cost.peak_memory_bytes
        peak = "" if memory is None else f", peak memory {memory / 2**20:,.0f} MiB"
        rows.append(("device", f"{cost.devices} × {cost.device}{peak}"))
    return table(("result", ""), rows) if rows else ""


def _largest_class(metrics: Metrics, split: str, name: str) -> str:
    """What an accuracy is to be held against, where it is known."""
    share = metrics.majority.get(split) if "accuracy" in name.split("+") else None
    return "" if share is None else f" (largest class {share:.4f})"


def _evaluations(record: Record) -> str:
    """Scores of the first split during training, a row for each of some evaluations, the best and the last included."""
    every, found = record.evaluations, best(record)
    first = next((split for row in every for split in row.metrics), None)
    if first is None:
        return ""
    steps = {row.step for row in subsample([*every], EVALUATIONS)} | ({found.step} if found else set[int]())
    scores = [(row.step, row.metrics.get(first, {})) for row in every if row.step in steps]
    names = tuple(dict.fromkeys(name for _, values in scores for name in values))
    rows = [
        (
            str(step),
            *("–" if (value := values.get(name)) is None else f"{value:.4f}" for name in names),
            "best" if found and step == found.step else "",
        )
        for step, values in scores
    ]
    part = f", {len(rows)} of {len(every)} evaluations" if len(rows) < len(every) else ""
    return f"{printable(first)} during training{part}\n" + table(("step", *names, ""), rows)


def _ranks(record: Record) -> str:
    without = {one.layer: one for one in record.truncation.layers} if record.truncation else {}
    more = ("score without it",) if without else ()
    header = ("layer", "shape", "nominal", "stable", "effective", "90 % energy", "‖ΔW‖₂", *more)

    def score_without(layer: str) -> str:
        one = without.get(layer)
        return f"{one.value:.4f}{'' if one.needed else ', not needed'}" if one else "–"

    rows = [
        (
            *(rank.layer, "×".join(map(str, rank.shape)), str(rank.nominal)),
            *(f"{rank.stable:.2f}", f"{rank.effective:.2f}", str(rank.energy90), f"{rank.norm:.3g}"),
            *(score_without(rank.layer) for _ in more),
        )
        for rank in record.ranks
    ]
    return f"rank of ΔW\n{table(header, rows)}" if rows else ""


def _report(record: Record) -> str:
    """What the method reports: a list of similar objects is a table, anything else a line."""
    report = record.report
    tables = {name: value for name, value in report.items() if value and _is_table(value)}
    lines = [(name, _plain(value)) for name, value in report.items() if name not in tables]
    parts = [table(("report", ""), lines)] if lines else []
    for name, rows in tables.items():
        parts.append(
            f"{printable(name)}\n" + table(tuple(rows[0]), [tuple(_plain(v) for v in row.values()) for row in rows])
        )
    return "\n\n".join(parts)


def _is_table(value: object) -> bool:
    rows = cast(list[object], value) if isinstance(value, list) else []
    columns = [tuple(cast(dict[str, object], row)) if isinstance(row, dict) else None for row in rows]
    return bool(columns) and bool(columns[0]) and all(names == columns[0] for names in columns)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_plain(inner)}" for name, inner in cast(dict[str, object], value).items())
    if isinstance(value, list):
        return ", ".join(map(_plain, cast(list[object], value)))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _specification(record: Record) -> str:
    spec, source = record.spec, record.source
    length = f"{spec.epochs:g} epochs" if spec.epochs is not None else f"{spec.max_steps} steps"
    rows = [
        ("backbone", _backbone(record.backbone)),
        ("data", f"{source.kind} {source.revision}, {source.train_examples:,} training examples"),
        *_reading(source.reading),
        ("budget", f"{length}, global batch {spec.batch_size}, {spec.precision}"),
        *([] if spec.evaluate is None else [("evaluation", _course(spec.evaluate))]),
        ("learning rate", "–" if record.lr is None else f"{record.lr:g}{_chosen(record)}"),
    ]
    if (selection := record.selection) and selection.options:
        chosen = ", ".join(f"{name}={value}" for name, value in selection.options.items())
        rows.append(("selected options", f"{chosen}, chosen by {_judge(selection)}, see trials"))
    for space, options in spec.options.namespaces().items():
        if options:
            rows.append((space, ", ".join(f"{key}={value}" for key, value in options.items())))
    return table(("specification", ""), rows)


def _course(evaluate: int | Literal["epoch"]) -> str:
    return "after every epoch" if evaluate == "epoch" else f"after every {evaluate} steps"


def _backbone(backbone: BackboneInfo) -> str:
    """Name, whether it started at random, size, and the runs that it comes from."""
    size = "" if backbone.parameters is None else f"{backbone.parameters:,} parameters"
    about = ", ".join(filter(None, ("random at the start" if backbone.random else "", size)))
    text, parent = backbone.name + (f" ({about})" if about else ""), backbone.parent
    while parent:
        text += f" ← {parent.method} on {parent.task} from {parent.backbone}"
        parent = parent.parent
    return text


def _reading(reading: FreeForm) -> list[tuple[str, str]]:
    """How data was read; of a user's table the columns, labels, rows left out and hashes of files."""
    try:
        of_table = msgspec.convert(reading, _TableReading)
    except msgspec.ValidationError:  # of another kind of data, or of a stranger
        return [(f"  {name.replace('_', ' ')}", _plain(value)) for name, value in reading.items() if value]
    named = {"text": of_table.text, "text pair": of_table.text_pair, "label": of_table.label}
    scale = of_table.scale or {}
    rows = [
        ("  columns", ", ".join(f"{part} {name!r}" for part, name in named.items() if name)),
        (
            f"  {of_table.kind}",
            ", ".join(f"{name!r} → {index}" for index, name in enumerate(of_table.labels))
            or ", ".join(f"{name} {value:g}" for name, value in scale.items()),
        ),
    ]
    for file in of_table.files:
        left_out = "".join(f", {count} × {reason} left out" for reason, count in file.left_out.items())
        rows.append((f"  {file.name}", f"sha256 {file.sha256}{left_out}"))
    seed = "" if of_table.split_seed is None else f", split seed {of_table.split_seed}"
    size = of_table.sizes.get("validation", 0)
    return [*rows, ("  validation", f"{size:,} rows, {of_table.validation}{seed}")]


def _chosen(record: Record) -> str:
    if not (selection := record.selection) or record.spec.lr is not None:
        return ""
    if selection.options or record.spec.trials:
        return f", chosen by {_judge(selection)}, see trials"
    values = ["–" if trial.value is None else f"{trial.value:.3f}" for trial in selection.trials]
    tried = ", ".join(f"{trial.lr:g} → {value}" for trial, value in zip(selection.trials, values, strict=True))
    return f", chosen by {_judge(selection)} ({tried})"


def _judge(selection: Selection) -> str:
    return f"{selection.metric} on {selection.task} {selection.split}"


def _trials(record: Record) -> str:
    """Every trial of a selection of options, or of one by optuna, as a table."""
    selection = record.selection
    if not selection or not (selection.options or record.spec.trials):
        return ""
    header = ("lr", *selection.options, selection.metric, "state", "run")
    rows = [
        (
            f"{trial.lr:g}",
            *(str(trial.options.get(name, "–")) for name in selection.options),
            "–" if trial.value is None else f"{trial.value:.4f}",
            trial.state,
            trial.run_id or "–",
        )
        for trial in selection.trials
    ]
    same = f", {len(rows)} of them distinct" if len(rows) < record.spec.trials else ""
    by = f", {record.spec.trials} suggested by optuna{same}" if record.spec.trials else ""
    return printable(f"trials on {selection.task} {selection.split}{by}") + f"\n{table(header, rows)}"


def _provenance(record: Record) -> str:
    origin = record.provenance
    rows = [
        ("created", origin.created),
        ("git", origin.git or "–"),
        ("python", f"{origin.python} on {origin.platform}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in origin.packages.items())),
        ("group", f"{record.group_id} (the same without the seed)"),
        ("command", shlex.join(origin.command)),
    ]
    return table(("provenance", ""), rows)
