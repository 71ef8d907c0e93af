"""`bench spectra` of a run: what its tracker wrote, or, where it wrote nothing, the ranks in its record."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.spectra_output import SHOWN, report
from bench.core.errors import UsageError, did_you_mean
from bench.records import record

if TYPE_CHECKING:
    from bench.figures import Figure
    from bench.spectra.files.history import SpectrumHistory
    from bench.spectra.files.layer_metrics import LayerMetrics

MATRIX = {
    "updates": "ΔW",
    "weights": "W",
    "gradients": "∂loss/∂W",
    "steps": "W(t) − W(t−1)",
    "activations": "features",
}
"""What the quantities of a tracker are, as figures write it."""


def show(options: argparse.Namespace) -> int:
    """Table and pictures of a run.

    Raises:
        UsageError: there is no such run, quantity or layer.
        EnvironmentProblem: the record or the spectra cannot be read.
    """
    given, out = Path(options.what).expanduser(), options.runs.expanduser()
    if (given / record.FILE).is_file():
        folder = given
        found = record.read(given.resolve() / record.FILE)
    else:
        found = record.find(out, options.what)
        folder = record.folder(out, found.run_id)
    pictures: Path = (options.output or folder).expanduser()
    title = f"run {found.run_id}: {found.spec.method} on {found.spec.task}, seed {found.spec.seed}"
    more: dict[str, Any] = {"kind": "run", "run_id": found.run_id}
    spectra = _stored(folder)
    if not spectra:
        rows = _from_record(found)
        _say_none_stored(found, rows)
        drawn = _profile(title, rows, "ΔW", [], "") if rows else None
        return report(rows, drawn, pictures, notes=[], options=options, more={**more, "trajectories": []})
    of = _quantity(options.of, spectra)
    chosen = [one for one in spectra if one.of == of]
    layer = _layer(options.layer, chosen)
    rows = [_row(one, found) for one in chosen]
    if of == "updates":  # of wide layers the tracker follows some, the record tells of all after the last step
        followed = {row.layer: row for row in rows}
        rows = [followed.pop(row.layer, row) for row in _from_record(found)] + [*followed.values()]
    drawn = _over_training(title, chosen, layer, rows)
    more |= {"of": of, "layer": layer, "trajectories": [_as_json(one) for one in chosen]}
    others = [name for name in dict.fromkeys(one.of for one in spectra) if name != of]
    said = [f"{of} after step {max(int(one.steps[-1]) for one in chosen)}"]
    said += [f"the run is {found.state}"] * (found.state != "done")
    said += [f"also stored: {', '.join(others)} (--of)"] if others else []
    notes = ["; ".join(said)]
    return report(rows, drawn, pictures, notes=notes, options=options, more=more)


def _stored(folder: Path) -> Sequence[SpectrumHistory]:
    """Spectra over training, or none where the run was not tracked."""
    from bench.spectra.files.history import FILE, read

    return read(folder / FILE).spectra if (folder / FILE).is_file() else ()


def _quantity(wanted: str | None, spectra: Sequence[SpectrumHistory]) -> str:
    there = list(dict.fromkeys(one.of for one in spectra))
    if wanted is None:
        return "updates" if "updates" in there else there[0]
    if wanted not in there:
        raise UsageError(
            f"no {wanted} were stored",
            f"the run has {', '.join(there)}",
            "Take one of them, or train again with it in spectra.of.",
        )
    return wanted


def _layer(wanted: str | None, spectra: Sequence[SpectrumHistory]) -> str:
    """The layer asked for, by its name or a part that no other has; else that of the largest matrix at the end."""
    names = [one.layer for one in spectra]
    if wanted is None:
        return max(spectra, key=_last_norm).layer
    meant = [name for name in names if name == wanted] or [name for name in names if wanted in name]
    if len(meant) != 1:
        known = ", ".join((meant or names)[:6]) + (" …" if len(meant or names) > 6 else "")
        raise UsageError(
            f"{len(meant) or 'no'} layers are called '{wanted}'",
            f"{'it could be' if meant else 'layers:'} {known}",
            did_you_mean(wanted, names) or "Give the whole name of one.",
        )
    return meant[0]


def _last_norm(one: SpectrumHistory) -> float:
    """σ₁ at the end, or −1 where there is none: NaN would compare with nothing."""
    import numpy as np

    last = one.values[-1:].max(initial=-1.0)
    return float(last) if np.isfinite(last) else -1.0


def _row(one: SpectrumHistory, found: record.Record) -> LayerMetrics:
    """A layer after the last step that was looked at."""
    import torch

    from bench.spectra.files.layer_metrics import LayerMetrics, metrics

    allowed = {rank.layer: int(rank.nominal) for rank in found.ranks} if one.of == "updates" else {}
    last = torch.tensor(one.values[-1:]).flatten()
    row = LayerMetrics(layer=one.layer, shape=one.shape, nominal=allowed.get(one.layer, min(one.shape)), how=one.how)
    if not len(last) or not bool(torch.isfinite(last).all()):
        return replace(row, error=f"not finite after step {int(one.steps[-1]) if len(one.steps) else 0}")
    return replace(row, numbers=metrics(last))


def _from_record(found: record.Record) -> list[LayerMetrics]:
    """The spectra of ΔW at the end, as every record has them."""
    from bench.spectra.files.layer_metrics import LayerMetrics

    return [
        LayerMetrics(
            layer=rank.layer,
            shape=(rank.shape[0], rank.shape[1]),
            nominal=rank.nominal,
            how="in the record",
            numbers={name: getattr(rank, name) for name in ("stable", "effective", "energy90", "norm")},
        )
        for rank in found.ranks
    ]


def _say_none_stored(found: record.Record, rows: Sequence[LayerMetrics]) -> None:
    held = (
        "its record holds the ranks of ΔW after the last step" if rows else "its record holds no ranks of a ΔW either"
    )
    print(
        f"run {found.run_id} stored no spectra over training\n  {held}\n"
        "Train it again, in another folder (--out), to see them: spectra are tracked by default.",
        file=sys.stderr,
    )


def _over_training(
    title: str, spectra: Sequence[SpectrumHistory], layer: str, rows: Sequence[LayerMetrics]
) -> Figure | None:
    from bench.spectra.files.panels import over_training

    of = spectra[0].of
    ways = ", ".join(dict.fromkeys(one.how for one in spectra))
    steps = sorted({int(step) for one in spectra for step in one.steps})
    caption = f"Singular values of {MATRIX.get(of, of)} ({of}), computed by: {ways}; looked at {len(steps)} times."
    return _profile(title, rows, MATRIX.get(of, of), over_training(spectra, layer, MATRIX.get(of, of)), caption)


def _profile(title: str, rows: Sequence[LayerMetrics], what: str, before: Sequence[Any], caption: str) -> Figure:
    """The panels `before`, and the profile over depth after the last step."""
    from bench.figures import Figure
    from bench.spectra.files.panels import over_depth

    shown = {name: SHOWN[name] for name in ("effective", "norm")}
    after = over_depth(rows, what, shown) if any(not row.error for row in rows) else []
    return Figure(title=f"Spectra of {title}", panels=[*before, *after], caption=caption)


def _as_json(one: SpectrumHistory) -> dict[str, Any]:
    """All that was stored; what is not finite is null."""
    import numpy as np

    return {
        "of": one.of,
        "layer": one.layer,
        "shape": list(one.shape),
        "how": one.how,
        "steps": one.steps.tolist(),
        "singular_values": [[v if np.isfinite(v) else None for v in row] for row in one.values.tolist()],
        "rows": None if one.rows is None else one.rows.tolist(),
    }
