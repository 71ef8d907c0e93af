"""`bench spectra` of what lies in files: a model, an adapter, or the difference of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.spectra_output import SHOWN
from bench.core.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from bench.figures import Figure
    from bench.spectra.files.layer_metrics import LayerMetrics
    from bench.spectra.files.weights import Contents


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a checkpoint gave.

    Attributes:
        title: what it is.
        matrix: the matrix that spectra are of, as figures write it.
        rows: layers in the network's order.
        notes: what was left out and what to know, a line each.
        more: the same for JSON.
    """

    title: str
    matrix: str
    rows: Sequence[LayerMetrics]
    notes: Sequence[str]
    more: Mapping[str, Any]

    def figure(self) -> Figure | None:
        """The profile over depth, or None where no layer has a spectrum."""
        from bench.figures import Figure
        from bench.spectra.files.panels import over_depth

        if all(row.error for row in self.rows):
            return None
        layers = [row for row in self.rows if not row.embedding] or self.rows
        caption = f"{len(self.rows)} matrices of {self.title}."
        if len(layers) < len(self.rows):
            caption += " Embeddings are in the table alone."
        return Figure(title=f"Spectra of {self.title}", panels=over_depth(layers, self.matrix, SHOWN), caption=caption)


def measure(what: str, base: str | None, revision: str, *, every: bool) -> Found:
    """Spectra of a file, folder or hub id, minus those of `base` if there is one.

    Raises:
        EnvironmentProblem: it is not there, cannot be read, or holds no matrix.
        UsageError: it is pickled, or is an adapter whose ΔW cannot be told.
    """
    from bench.spectra.files import adapters
    from bench.spectra.files.layer_metrics import measure_deltas, measure_matrices
    from bench.spectra.files.weights import contents, find_model, weight_files

    path = find_model(what, revision)
    if (found := _adapter(path)) is not None:
        if base is not None:
            raise UsageError(
                "--base does not go with an adapter",
                f"{what} holds ΔW itself, as factors",
                "Leave --base out, or give the merged model.",
            )
        rows = list(measure_deltas(found, every=every))
        warning = adapters.start_warning(path) if path.is_dir() else ""
        return Found(title=what, matrix="ΔW", rows=rows, notes=[warning] if warning else [], more={"kind": "adapter"})
    own = contents(weight_files(path))
    if base is not None:
        return _difference(own, contents(weight_files(find_model(base))), what, base, every=every)
    if not own.matrices:
        raise _no_matrix(what, own.left_out)
    rows = list(measure_matrices(own.matrices, every=every))
    left = {"kind": "checkpoint", "left_out": own.left_out}
    return Found(title=what, matrix="W", rows=rows, notes=_left_out(own.left_out), more=left)


def _adapter(path: Path) -> Any:
    """ΔW by layer, or None where there is no adapter."""
    from bench.spectra.files import adapters

    if path.is_dir():
        return adapters.deltas_of_folder(path) if adapters.is_folder(path) else None
    if path.name == "adapter_model.safetensors" and adapters.is_folder(path.parent):
        return adapters.deltas_of_folder(path.parent)
    return adapters.deltas_of_run(path) if path.suffix == ".safetensors" else None


def _difference(own: Contents, base: Contents, what: str, original: str, *, every: bool) -> Found:
    """Spectra of tuned minus base, of the layers that both have in one shape."""
    from bench.spectra.files.layer_metrics import measure_matrices

    before = {one.name: one for one in base.matrices}
    after = {one.name: one for one in own.matrices}
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
    notes = [f"{reason}: {', '.join(names)}" for reason, names in missing.items() if names]
    more = {"kind": "difference", "missing": missing}
    return Found(title=f"{what} − {original}", matrix="W − W₀", rows=rows, notes=notes, more=more)


def _left_out(reasons: Mapping[str, int]) -> list[str]:
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return [f"tensors without a spectrum: {told}"] if told else []


def _no_matrix(what: str, reasons: Mapping[str, int]) -> EnvironmentProblem:
    known = "; ".join(_left_out(reasons)) or "it holds no tensor"
    return EnvironmentProblem(f"{what} holds no matrix", known, "Give a model with floating-point matrices.")
