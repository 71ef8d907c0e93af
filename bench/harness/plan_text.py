"""A plan in words: what will run, on what, and what the user must see before it does."""

from __future__ import annotations

from bench.api.backbone import Backbone
from bench.harness.planner import Plan


def describe(plan: Plan) -> str:
    """The plan in words, as printed before it runs and by `--dry-run`."""
    lines: list[str] = [headline(plan)]
    for cell in plan.cells:
        spec = cell.spec
        lr = f"lr {spec.lr:g}" if spec.lr is not None else f"lr chosen from {', '.join(f'{t:g}' for t in spec.select)}"
        lines.append(f"  {cell.run_id}  {spec.method:<10} {spec.task:<12} {spec.backbone:<8} seed {spec.seed}  {lr}")
    if plan.trials:
        lines.append(f"  and before them {len(plan.trials)} trials on a split held out from train")
    return "\n".join([*lines, *notes(plan)])


def headline(plan: Plan) -> str:
    """`9 cells · deeplora · minilm (22.7 M) · 150 steps of 16 · data: embedded`."""
    cells, first = plan.cells, plan.cells[0].spec
    methods = ", ".join(dict.fromkeys(c.spec.method for c in cells))
    names = ", ".join(dict.fromkeys(_sized(c.backbone) for c in cells))
    budget = f"{first.max_steps} steps" if first.max_steps else f"{first.epochs:g} epochs"
    sources = ", ".join(dict.fromkeys(f"{c.corpus.source} ({c.corpus.revision})" for c in cells))
    count = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
    return f"{count} · {methods} · {names} · {budget} of {first.batch_size} · data: {sources}"


def _sized(backbone: Backbone) -> str:
    """`minilm (22.7 M)`; a network that is still to be built has no size yet."""
    return backbone.name if backbone.parameters is None else f"{backbone.name} ({backbone.parameters / 1e6:.1f} M)"


def notes(plan: Plan) -> list[str]:
    """What the user must see: fall-backs of data sources, and what was left out and why."""
    fallen = dict.fromkeys(note for cell in plan.cells for note in cell.corpus.notes)
    absent = [s.name for s in plan.skipped if s.absent]
    lines = list(fallen)
    if absent:
        lines.append(f"not in the data directory, so left out: {', '.join(absent)}")
    return [*lines, *(f"cannot run {s.name}: {s.error}" for s in plan.broken)]
