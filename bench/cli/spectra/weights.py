"""`bench spectra` of what lies in files: a model, an adapter, or the difference of two models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.cli.spectra.output import SHOWN, Spectra
from bench.core.errors import EnvironmentProblem, UsageError
from bench.figures import Figure
from bench.spectra.delta import Delta
from bench.spectra.files import adapters
from bench.spectra.files.layer_metrics import LayerMetrics, measure_deltas, measure_matrices
from bench.spectra.files.panels import over_depth
from bench.spectra.files.weights import Contents, contents, find_model, weight_files


def measure_weights(what: str, base: str | None, revision: str, *, every: bool) -> Spectra:
    """Spectra of a file, folder or hub id, minus those of `base` if there is one; `every`: with all metrics.

    Raises:
        EnvironmentProblem: it is not there, cannot be read, or holds no matrix.
        UsageError: it is pickled, or is an adapter whose ΔW cannot be told.
    """
    path = find_model(what, revision)
    if (deltas := _adapter(path)) is not None:
        if base is not None:
            todo = "Leave --base out, or give the merged model."
            raise UsageError("--base does not go with an adapter", f"{what} holds ΔW itself, as factors", todo)
        rows = list(measure_deltas(deltas, every=every))
        warning = adapters.start_warning(path)
        notes = [warning] if warning else []
        return Spectra(rows=rows, figure=_figure(what, "ΔW", rows), notes=notes, more={"kind": "adapter"})
    model = contents(weight_files(path))
    if base is not None:
        return _difference(model, contents(weight_files(find_model(base))), what, base, every=every)
    reasons = ", ".join(f"{count} {reason}" for reason, count in model.left_out.items())
    notes = [f"tensors without a spectrum: {reasons}"] if reasons else []
    notes += _listed(model)
    if not model.matrices:
        known = "\n".join(notes) or "it holds no tensor"
        raise EnvironmentProblem(f"{what} holds no matrix", known, "Give a model with floating-point matrices.")
    rows = list(measure_matrices(model.matrices, every=every))
    more = {"kind": "checkpoint", "left_out": model.left_out, "listed": model.listed}
    return Spectra(rows=rows, figure=_figure(what, "W", rows), notes=notes, more=more)


def _adapter(path: Path) -> Iterator[tuple[str, Delta]] | None:
    """ΔW by layer, or None where there is no adapter."""
    if path.is_dir():
        return adapters.deltas_of_folder(path) if adapters.is_folder(path) else None
    if path.name == "adapter_model.safetensors" and adapters.is_folder(path.parent):
        return adapters.deltas_of_folder(path.parent)
    return adapters.deltas_of_run(path) if path.suffix == ".safetensors" else None


def _difference(tuned: Contents, base: Contents, what: str, original: str, *, every: bool) -> Spectra:
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
    changes = (replace(after[name], base=before[name]) for name in both)
    rows = list(measure_matrices(changes, every=every))
    notes = [f"{reason}: {', '.join(names)}" for reason, names in missing.items() if names] + _listed(tuned)
    more: Mapping[str, object] = {"kind": "difference", "missing": missing}
    return Spectra(rows=rows, figure=_figure(f"{what} − {original}", "W − W₀", rows), notes=notes, more=more)


def _listed(model: Contents) -> list[str]:
    return [f"not measured, since they are no linear maps: {', '.join(model.listed)}"] if model.listed else []


def _figure(title: str, matrix: str, rows: Sequence[LayerMetrics]) -> Figure | None:
    """The profile over depth, or None where no layer has a spectrum; `matrix` as figures write it."""
    if all(row.error for row in rows):
        return None
    layers = [row for row in rows if not row.embedding] or rows
    left_out = " Embeddings are in the table alone." if len(layers) < len(rows) else ""
    caption = f"{len(rows)} matrices of {title}.{left_out}"
    return Figure(title=f"Spectra of {title}", panels=over_depth(layers, matrix, SHOWN), caption=caption)
