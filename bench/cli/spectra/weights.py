"""`bench spectra` of what lies in files: a model, an adapter, or the difference of two models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.cli.spectra.output import SHOWN, Spectra
from bench.cli.spectra.values import LayerValues
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean
from bench.figures import Figure
from bench.spectra.delta import Delta
from bench.spectra.files import adapters
from bench.spectra.files.layer_metrics import LayerMetrics, measure_deltas, measure_matrices
from bench.spectra.files.panels import evenly, over_depth, over_index
from bench.spectra.files.weights import Contents, contents, find_model, weight_files

CURVES = 7
"""Layers whose singular values are drawn by default."""


def measure_weights(
    what: str, base: str | None, revision: str, *, every: bool = False, drawn: Sequence[str] = ()
) -> Spectra:
    """Spectra of a file, folder or hub id, minus those of `base` if there is one.

    Args:
        every: with all metrics.
        drawn: names, or parts of them, of the layers whose singular values are drawn; none: some over the depth.

    Raises:
        EnvironmentProblem: it is not there, cannot be read, or holds no matrix.
        UsageError: it is pickled, is an adapter whose ΔW cannot be told, or has no layer of a name in `drawn`.
    """
    path = find_model(what, revision)
    if (deltas := _adapter(path)) is not None:
        if base is not None:
            todo = "Leave --base out, or give the merged model."
            raise UsageError("--base does not go with an adapter", f"{what} holds ΔW itself, as factors", todo)
        rows = list(measure_deltas(deltas, every=every))
        chosen = _chosen(drawn, [row.layer for row in rows])
        warning = adapters.start_warning(path)
        notes = [warning] if warning else []
        return _spectra(what, "ΔW", rows, chosen, notes, {"kind": "adapter"})
    model = contents(weight_files(path))
    if base is not None:
        return _difference(model, contents(weight_files(find_model(base))), what, base, every=every, drawn=drawn)
    reasons = ", ".join(f"{count} {reason}" for reason, count in model.left_out.items())
    notes = [f"tensors without a spectrum: {reasons}"] if reasons else []
    notes += _listed(model)
    if not model.matrices:
        known = "\n".join(notes) or "it holds no tensor"
        raise EnvironmentProblem(f"{what} holds no matrix", known, "Give a model with floating-point matrices.")
    chosen = _chosen(drawn, [matrix.name for matrix in model.matrices])
    rows = list(measure_matrices(model.matrices, every=every))
    more = {"kind": "checkpoint", "left_out": model.left_out, "listed": model.listed}
    return _spectra(what, "W", rows, chosen, notes, more)


def _adapter(path: Path) -> Iterator[tuple[str, Delta]] | None:
    """ΔW by layer, or None where there is no adapter."""
    if path.is_dir():
        return adapters.deltas_of_folder(path) if adapters.is_folder(path) else None
    if path.name == "adapter_model.safetensors" and adapters.is_folder(path.parent):
        return adapters.deltas_of_folder(path.parent)
    return adapters.deltas_of_run(path) if path.suffix == ".safetensors" else None


def _difference(
    tuned: Contents, base: Contents, what: str, original: str, *, every: bool, drawn: Sequence[str]
) -> Spectra:
    """Spectra of tuned minus base, of the layers that both have in one shape."""
    before = {matrix.name: matrix for matrix in base.matrices}
    after = {matrix.name: matrix for matrix in tuned.matrices}
    both = [name for name in after if name in before and after[name].shape == before[name].shape]
    missing = {
        f"only in {what}": [name for name in after if name not in before],
        f"only in {original}": [name for name in before if name not in after],
        "of another shape": [name for name in after if name in before and name not in both],
    }
    if not both:
        raise EnvironmentProblem(
            f"{what} and {original} have no layer in common",
            f"such as {', '.join([*after][:2]) or 'none'}, and {', '.join([*before][:2]) or 'none'}",
            "Give the model that was fine-tuned, and what it started from.",
        )
    chosen = _chosen(drawn, both)
    changes = (replace(after[name], base=before[name]) for name in both)
    rows = list(measure_matrices(changes, every=every))
    notes = [f"{reason}: {', '.join(names)}" for reason, names in missing.items() if names] + _listed(tuned)
    more: Mapping[str, object] = {"kind": "difference", "missing": missing}
    return _spectra(f"{what} − {original}", "W − W₀", rows, chosen, notes, more)


def _listed(model: Contents) -> list[str]:
    return [f"not measured, since they are no linear maps: {', '.join(model.listed)}"] if model.listed else []


def _chosen(wanted: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """The layers that are called as wanted, or whose names contain it; all layers that the wanted texts fit.

    Raises:
        UsageError: a text fits none.
    """
    found: set[str] = set()
    for text in wanted:
        fitting = {text} & {*names} or {name for name in names if text in name}
        if not fitting:
            known = f"layers: {', '.join(names[:6])}{' …' if names[6:] else ''}"
            raise UsageError(f"no layers are called '{text}'", known, did_you_mean(text, names) or "Give one of them.")
        found |= fitting
    return [name for name in names if name in found]


def _spectra(
    title: str,
    matrix: str,
    rows: Sequence[LayerMetrics],
    chosen: Sequence[str],
    notes: Sequence[str],
    more: Mapping[str, object],
) -> Spectra:
    """Join the results; `matrix` as figures write it."""
    good = [row for row in rows if not row.error]
    layers = [row for row in good if not row.embedding] or good
    drawn = [row.layer for row in good if row.layer in chosen] or [row.layer for row in evenly(layers, CURVES)]
    values = [LayerValues(layer=row.layer, shape=row.shape, values=row.values) for row in good]
    figure = _figure(title, matrix, rows, layers, drawn) if good else None
    return Spectra(rows=rows, figure=figure, notes=notes, more={**more, "drawn": drawn}, values=values)


def _figure(
    title: str, matrix: str, rows: Sequence[LayerMetrics], layers: Sequence[LayerMetrics], drawn: Sequence[str]
) -> Figure:
    """Singular values of the layers `drawn`, and the profile over depth of `layers`."""
    few = (
        f" Singular values are those of {len(drawn)} of them; --layer chooses others." if len(drawn) < len(rows) else ""
    )
    left_out = " Embeddings are not in the profiles over depth." if any(row.embedding for row in rows) else ""
    caption = f"{len(rows)} matrices of {title}.{few}{left_out}"
    panels = [over_index(rows, drawn, matrix), *over_depth(layers, matrix, SHOWN)]
    return Figure(title=f"Spectra of {title}", panels=panels, caption=caption)
