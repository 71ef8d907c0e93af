"""A plan as text: what will run, on what data, and what was left out."""

from __future__ import annotations

from bench.api.backbone import Backbone
from bench.harness.planner import Plan


def describe(plan: Plan) -> str:
    """Write a plan as `--dry-run` prints it."""
    lines: list[str] = [headline(plan)]
    for run in plan.runs:
        spec = run.spec
        lr = f"lr {spec.lr:g}" if spec.lr is not None else f"lr chosen from {', '.join(f'{t:g}' for t in spec.select)}"
        lines.append(f"  {run.run_id}  {spec.method:<10} {spec.task:<12} {spec.backbone:<8} seed {spec.seed}  {lr}")
    if plan.trials:
        more = ", and more while the best learning rate is at the end of those tried" * bool(plan.request.widen)
        lines.append(f"  first {len(plan.trials)} trials on a split held out from train{more}")
    return "\n".join([*lines, *notes(plan)])


def headline(plan: Plan) -> str:
    """`9 runs · deeplora · minilm (22.7 M) · 150 steps of 16 · data: embedded`."""
    runs, first = plan.runs, plan.runs[0].spec
    methods = ", ".join(dict.fromkeys(run.spec.method for run in runs))
    names = ", ".join(dict.fromkeys(_sized(run.backbone) for run in runs))
    budget = f"{first.max_steps} steps" if first.max_steps else f"{first.epochs:g} epochs"
    sources = ", ".join(dict.fromkeys(f"{run.dataset.source} ({run.dataset.revision})" for run in runs))
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    return f"{count} · {methods} · {names} · {budget} of {first.batch_size} · data: {sources}"


def _sized(backbone: Backbone) -> str:
    """`minilm (22.7 M)`, or `bert (random)`, which is still to be built and has no size yet."""
    size = "" if backbone.parameters is None else f"{backbone.parameters / 1e6:.1f} M"
    about = ", ".join(filter(None, ("" if backbone.pretrained else "random", size)))
    return f"{backbone.name} ({about})" if about else backbone.name


def notes(plan: Plan) -> list[str]:
    """What the user must see: fall-backs of data sources, warnings, and what was left out and why."""
    fallen = dict.fromkeys(note for run in plan.runs for note in (*run.dataset.notes, *run.dataset.warnings))
    absent = [s.name for s in plan.skipped if s.absent]
    lines = list(fallen)
    if absent:
        lines.append(f"not in the data directory, so left out: {', '.join(absent)}")
    return [*lines, *(f"cannot run {s.name}: {s.error}" for s in plan.broken)]
