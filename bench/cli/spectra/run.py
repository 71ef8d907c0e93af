"""`bench spectra` of a run: what its tracker wrote, or, where it wrote nothing, the ranks in its record."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.cli.spectra.output import SHOWN, Spectra
from bench.cli.spectra.values import LayerValues
from bench.core.errors import BenchError, UsageError, did_you_mean
from bench.figures import Figure, Panel
from bench.records.record import ADAPTER, Record
from bench.spectra.files.adapters import deltas_of_run
from bench.spectra.files.history import SpectrumHistory, read_run
from bench.spectra.files.layer_metrics import LayerMetrics, metrics
from bench.spectra.files.panels import over_depth, over_training

MATRIX = {"updates": "ΔW", "weights": "W", "gradients": "∂loss/∂W", "steps": "W(t) − W(t−1)", "activations": "features"}
"""What the quantities of a tracker are, as figures write it."""


def measure_run(
    record: Record, folder: Path, *, of: str | None, layers: Sequence[str], with_values: bool = False
) -> Spectra:
    """Spectra of the run in a folder.

    Args:
        of: the quantity; None: updates, or else the first that was stored.
        layers: names, or parts of them, of the layers whose singular values are drawn; none: that of the largest norm.
        with_values: also read the singular values of the layers that were not tracked, from the run's adapter.

    Raises:
        UsageError: no such quantity or layer was stored; there are no singular values although they are wanted.
        EnvironmentProblem: a file is not as the run wrote it.
    """
    title = f"run {record.run_id}: {record.spec.method} on {record.spec.task}, seed {record.spec.seed}"
    more = {"kind": "run", "run_id": record.run_id}
    stored = read_run(record, folder)
    if not stored or not stored.spectra:
        rows = _from_record(record)
        ranks = "the ranks of ΔW after the last step" if rows else "no ranks of a ΔW either"
        print(f"run {record.run_id} stored no spectra over training\n  its record holds {ranks}", file=sys.stderr)
        todo = "Train it again, in another folder (--out), to see them: spectra are tracked by default."
        print(todo, file=sys.stderr)
        figure = _profile(title, rows, "ΔW", [], "") if rows else None
        values, notes = all_values(record, folder, []) if with_values else ([], [])
        return Spectra(rows=rows, figure=figure, notes=notes, more={**more, "trajectories": []}, values=values)
    quantities = [*dict.fromkeys(history.of for history in stored.spectra)]
    of = _quantity(of, quantities)
    histories = [history for history in stored.spectra if history.of == of]
    drawn = [*dict.fromkeys(_layer(layer, histories) for layer in layers or [None])]
    rows = [_row(history, record) for history in histories]
    if of == "updates":  # of wide layers the tracker follows some, the record tells of all after the last step
        followed = {row.layer: row for row in rows}
        rows = [followed.pop(row.layer, row) for row in _from_record(record)] + [*followed.values()]
    matrix = MATRIX.get(of, of)
    ways = ", ".join(dict.fromkeys(history.how for history in histories))
    steps = {int(step) for history in histories for step in history.steps}
    caption = f"Singular values of {matrix} ({of}), computed by: {ways}; looked at {len(steps)} times."
    figure = _profile(title, rows, matrix, over_training(histories, drawn, matrix), caption)
    others = [name for name in quantities if name != of]
    notes = [f"{of} after step {max(int(history.steps[-1]) for history in histories)}"]
    notes += [f"the run is {record.state}"] if record.state != "done" else []
    notes += [f"also stored: {', '.join(others)} (--of)"] if others else []
    values, missing = all_values(record, folder, histories) if with_values else ([], [])
    more |= {"of": of, "drawn": drawn, "trajectories": [_as_json(history) for history in histories]}
    return Spectra(rows=rows, figure=figure, notes=["; ".join(notes), *missing], more=more, values=values)


def all_values(
    record: Record, folder: Path, histories: Sequence[SpectrumHistory]
) -> tuple[list[LayerValues], list[str]]:
    """All singular values of one quantity that a run kept, and notes on what is missing.

    They are those of `histories`; of the ΔW of other layers those after the last step, from the adapter's factors.

    Raises:
        UsageError: there are none.
    """
    found = [LayerValues(layer=h.layer, shape=h.shape, values=h.values, steps=h.steps) for h in histories]
    if histories and histories[0].of != "updates":
        return found, []
    tracked = {history.layer for history in histories}
    at_end, why = _of_adapter(record, folder)
    found += [one for one in at_end if one.layer not in tracked]
    notes: list[str] = []
    if len(found) > len(tracked):
        notes.append(f"singular values of {len(found) - len(tracked)} layers are those after the last step alone")
    missing = [rank.layer for rank in record.ranks if rank.layer not in {one.layer for one in found}]
    todo = "Train it again, in another folder (--out), with --set spectra.layers=all."
    if not found:
        known = f"its record holds ranks of {len(missing)} layers alone; {why}"
        raise UsageError(f"run {record.run_id} kept no singular values", known, todo)
    if missing:
        names = ", ".join(missing[:4]) + (" …" if missing[4:] else "")
        notes.append(f"no singular values of {len(missing)} of {len(record.ranks)} layers ({names}): {why}. {todo}")
    return found, notes


def _of_adapter(record: Record, folder: Path) -> tuple[list[LayerValues], str]:
    """Singular values of every ΔW after the last step, from the factors that the run kept, or why there are none."""
    file = folder / ADAPTER
    if not file.is_file():
        return [], f"there is no {ADAPTER} in its folder"
    try:
        deltas = list(deltas_of_run(file) or ())
    except BenchError as problem:
        return [], problem.line()
    if not deltas:
        return [], f"its {ADAPTER} holds no factors of a ΔW"
    step = np.array([record.cost.steps if record.cost else 0])
    return [
        LayerValues(layer=layer, shape=delta.shape, values=delta.singular_values(name=layer).numpy()[None], steps=step)
        for layer, delta in deltas
    ], "its adapter does not hold them"


def _quantity(wanted: str | None, stored: Sequence[str]) -> str:
    if wanted is None:
        return "updates" if "updates" in stored else stored[0]
    if wanted not in stored:
        todo = "Take one of them, or train again with it in spectra.of."
        raise UsageError(f"no {wanted} were stored", f"the run has {', '.join(stored)}", todo)
    return wanted


def _layer(wanted: str | None, histories: Sequence[SpectrumHistory]) -> str:
    """The layer asked for, by its name or a part that no other has; else that of the largest matrix at the end."""
    names = [history.layer for history in histories]
    if wanted is None:
        return max(histories, key=_last_norm).layer
    meant = [name for name in names if name == wanted] or [name for name in names if wanted in name]
    if len(meant) != 1:
        known = ", ".join((meant or names)[:6]) + (" …" if len(meant or names) > 6 else "")
        known = f"{'it could be' if meant else 'layers:'} {known}"
        todo = did_you_mean(wanted, names) or "Give the whole name of one."
        raise UsageError(f"{len(meant) or 'no'} layers are called '{wanted}'", known, todo)
    return meant[0]


def _last_norm(history: SpectrumHistory) -> float:
    """σ₁ at the end, or −1 where there is none: NaN would compare with nothing."""
    last = history.values[-1:].max(initial=-1.0)
    return float(last) if np.isfinite(last) else -1.0


def _row(history: SpectrumHistory, record: Record) -> LayerMetrics:
    """A layer after the last step that was looked at."""
    allowed = {rank.layer: rank.nominal for rank in record.ranks} if history.of == "updates" else {}
    nominal = allowed.get(history.layer, min(history.shape))
    row = LayerMetrics(layer=history.layer, shape=history.shape, nominal=nominal, how=history.how)
    last = torch.tensor(history.values[-1:]).flatten()
    if not len(last) or not bool(torch.isfinite(last).all()):
        return replace(row, error=f"not finite after step {int(history.steps[-1]) if len(history.steps) else 0}")
    return replace(row, numbers=metrics(last))


def _from_record(record: Record) -> list[LayerMetrics]:
    """The spectra of ΔW at the end, as every record has them."""
    return [
        LayerMetrics(
            layer=rank.layer,
            shape=rank.shape,
            nominal=rank.nominal,
            how="in the record",
            numbers={name: getattr(rank, name) for name in ("stable", "effective", "energy90", "norm")},
        )
        for rank in record.ranks
    ]


def _profile(title: str, rows: Sequence[LayerMetrics], what: str, before: Sequence[Panel], caption: str) -> Figure:
    """The panels `before`, and the profile over depth after the last step."""
    shown = {name: SHOWN[name] for name in ("effective", "norm")}
    after = over_depth(rows, what, shown) if any(not row.error for row in rows) else []
    return Figure(title=f"Spectra of {title}", panels=[*before, *after], caption=caption)


def _as_json(history: SpectrumHistory) -> dict[str, object]:
    """All that was stored; what is not finite is null."""
    values = [[value if np.isfinite(value) else None for value in row] for row in history.values.tolist()]
    rows = None if history.rows is None else history.rows.tolist()
    layer = {"of": history.of, "layer": history.layer, "shape": history.shape, "how": history.how}
    return {**layer, "steps": history.steps.tolist(), "singular_values": values, "rows": rows}
