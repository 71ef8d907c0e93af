"""`bench spectra` of a run: what its tracker wrote, or, where it wrote nothing, the ranks in its record."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.cli.spectra.output import SHOWN, Spectra
from bench.core.errors import UsageError, did_you_mean
from bench.figures import Figure, Panel
from bench.records.record import Record
from bench.spectra.files.history import SpectrumHistory, read_run
from bench.spectra.files.layer_metrics import LayerMetrics, metrics
from bench.spectra.files.panels import over_depth, over_training

MATRIX = {"updates": "ΔW", "weights": "W", "gradients": "∂loss/∂W", "steps": "W(t) − W(t−1)", "activations": "features"}
"""What the quantities of a tracker are, as figures write it."""


def measure_run(record: Record, folder: Path, *, of: str | None, layer: str | None) -> Spectra:
    """Spectra of the run in a folder.

    Args:
        of: the quantity; None: updates, or else the first that was stored.
        layer: name, or part of it, of the layer whose singular values are drawn; None: the one of the largest norm.
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
        return Spectra(rows=rows, figure=figure, notes=[], more={**more, "trajectories": []})
    quantities = [*dict.fromkeys(history.of for history in stored.spectra)]
    of = _quantity(of, quantities)
    histories = [history for history in stored.spectra if history.of == of]
    layer = _layer(layer, histories)
    rows = [_row(history, record) for history in histories]
    if of == "updates":  # of wide layers the tracker follows some, the record tells of all after the last step
        followed = {row.layer: row for row in rows}
        rows = [followed.pop(row.layer, row) for row in _from_record(record)] + [*followed.values()]
    matrix = MATRIX.get(of, of)
    ways = ", ".join(dict.fromkeys(history.how for history in histories))
    steps = {int(step) for history in histories for step in history.steps}
    caption = f"Singular values of {matrix} ({of}), computed by: {ways}; looked at {len(steps)} times."
    figure = _profile(title, rows, matrix, over_training(histories, layer, matrix), caption)
    others = [name for name in quantities if name != of]
    notes = [f"{of} after step {max(int(history.steps[-1]) for history in histories)}"]
    notes += [f"the run is {record.state}"] if record.state != "done" else []
    notes += [f"also stored: {', '.join(others)} (--of)"] if others else []
    more |= {"of": of, "layer": layer, "trajectories": [_as_json(history) for history in histories]}
    return Spectra(rows=rows, figure=figure, notes=["; ".join(notes)], more=more)


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
