"""`bench spectra RUN --truncation`: the score with ΔW cut to its k largest singular directions, as text and picture."""

from __future__ import annotations

from pathlib import Path

from bench.cli.output import emit
from bench.cli.spectra.draw import draw
from bench.core.errors import OK, UsageError
from bench.core.text import printable, printable_lines, table
from bench.figures import Figure, Panel, Series
from bench.records.record import Record
from bench.records.results import Truncation


def report(record: Record, folder: Path, picture: Path | None, *, as_json: bool) -> int:
    """Print the curve of a run, or JSON, and draw it: `picture`, or truncation.png and truncation.html in `folder`.

    Raises:
        UsageError: the record has no curve, or the folder cannot be written.
    """
    cut = record.truncation
    if not cut or not record.metrics:
        raise UsageError(
            f"run {record.run_id} has no scores with ΔW cut",
            "they are taken after training, of a method with a ΔW, unless runtime.truncation=off",
            "Train it again, in another folder (--out), with --set runtime.truncation=network.",
        )
    metric = record.metrics.primary.name
    if not as_json:
        rows = [(str(point.k), f"{point.value:.4f}", f"{point.value - cut.whole:+.4f}") for point in cut.points]
        print(table(("k", f"{metric} on {cut.split}", "− whole"), rows))
        if cut.layers:
            without = [(one.layer, f"{one.value:.4f}", "needed" if one.needed else "not needed") for one in cut.layers]
            print("\nwithout the ΔW of one layer\n" + printable_lines(table(("layer", metric, ""), without)))
        print(f"\nrank needed: {describe(cut)}", flush=True)
    files = draw(_figure(record, cut, metric), "truncation", folder, picture)
    if as_json:
        emit({"kind": "truncation", "run_id": record.run_id, **cut.to_json(), "files": list(map(str, files))})
    else:
        print("pictures:", printable(", ".join(map(str, files))))
    return OK


def describe(cut: Truncation) -> str:
    """`2 of 8, the smallest k within one standard error (0.0131) of the whole (0.8150) on 872 examples of dev`."""
    return (
        f"{cut.text}, the smallest k within one standard error ({cut.se:.4f}) of the whole ({cut.whole:.4f}) "
        f"on {cut.n:,} examples of {cut.split}"
    )


def _figure(record: Record, cut: Truncation, metric: str) -> Figure:
    names = [str(point.k) for point in cut.points]
    assert record.metrics
    bound = cut.whole - cut.se if record.metrics.primary.higher_is_better else cut.whole + cut.se
    panel = Panel(
        title=f"Rank needed: {cut.text}",
        x="k, singular directions kept of every ΔW",
        y=f"{metric} on {cut.split}",
        content=[
            Series(name="ΔW cut to rank k", x=names, y=[p.value for p in cut.points], form="points"),
            Series(name="one standard error from the whole", x=names, y=[bound] * len(names), form="dashed"),
        ],
    )
    spec = record.spec
    title = f"Truncation of run {record.run_id}: {spec.method} on {spec.task}, seed {spec.seed}"
    caption = f"All else that was trained stays. {cut.n:,} examples; standard error by the bootstrap over them."
    return Figure(title=title, panels=[panel], caption=caption)
