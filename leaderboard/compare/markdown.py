"""A comparison as Markdown, aligned for a terminal."""

from __future__ import annotations

from bench.core.text import format_score
from leaderboard.compare.comparison import Comparison, Overall, Score, Summary
from leaderboard.compare.ratios import LayerPair, Ratio
from leaderboard.compare.specifications import some
from leaderboard.render import cells
from leaderboard.render.markdown import escape, grid
from leaderboard.tables.grouping import short_task
from leaderboard.tables.table import Layer

CAUTION = "⚠"
"""Sign of a caution, and of the fields that it names."""
_CELL_LENGTH, _NOTE_LENGTH = 60, 400
"""Maximum number of characters of a cell and of a note."""
_SPREAD = "±: standard deviation over all seeds of a side; for the average, over the common seeds."
_DIFFERENCE = (
    "B − A: mean over the common seeds, with a 95 % bootstrap confidence interval over these seeds (for the average, "
    "over tasks and seeds), which is too narrow with few seeds. `?`: the interval contains zero, or there is none."
)


def render(found: Comparison) -> str:
    """Render all sections, each with a heading."""
    names = _names(found)
    sections = [_heading(found), _fields(found, names), _scores(found, names), _ratios(found, names)]
    return "\n\n".join(filter(None, [*sections, _layers(found, names)])) + "\n"


def _names(found: Comparison) -> tuple[str, str]:
    """Headers of the columns of A and B, with their methods if each side has one and they differ."""
    one, two = (side.methods for side in (found.a, found.b))
    if len(one) == len(two) == 1 and one != two:
        return f"A: {_cut(one[0], 24)}", f"B: {_cut(two[0], 24)}"
    return "A", "B"


def _heading(found: Comparison) -> str:
    header = ["", "selection", "runs", "methods", "tasks", "seeds", "states"]
    lines = grid(header, [_summary(side) for side in (found.a, found.b)], left=range(len(header)))
    older = [
        f"- {cells.runs(side.superseded)} of {side.name} left out: there is a newer one of the same specification"
        for side in (found.a, found.b)
        if side.superseded
    ]
    return "\n".join(["## B compared with A", "", *lines, *([""] if older else []), *older])


def _summary(side: Summary) -> list[str]:
    states = ", ".join(f"{count} {state}" for state, count in side.states.items())
    seeds = some([str(seed) for seed in side.seeds])
    tasks = some([short_task(task) for task in side.tasks])
    return [side.name, _cut(side.label, 100), str(side.runs), _cut(some(side.methods)), _cut(tasks), seeds, states]


def _fields(found: Comparison, names: tuple[str, str]) -> str:
    body = [
        [
            _cut(one.name),
            _cut(some(one.a)) or cells.NOTHING,
            _cut(some(one.b)) or cells.NOTHING,
            CAUTION * one.cautioned,
        ]
        for one in found.fields
    ]
    lines = ["### Differences between the specifications", ""]
    lines += [*grid(["field", *names, ""], body, left=range(4)), ""] if body else []
    lines.append(f"{found.equal} fields are equal.")
    lines += ["", *(f"- {CAUTION} {_cut(one.text, _NOTE_LENGTH)}" for one in found.cautions)] if found.cautions else []
    return "\n".join(lines)


def _scores(found: Comparison, names: tuple[str, str]) -> str:
    rows = [*found.scores, *([found.overall] if found.overall else [])]
    body = [_score(one) for one in rows]
    if found.overall and found.overall.iqm_a is not None:
        body.append(_interquartile(found.overall))
    notes = [f"- {_cut(short_task(one.task))}: {_cut(note, _NOTE_LENGTH)}" for one in rows if (note := _note(one))]
    lines = grid(["score", *names, "B − A [95 %]", "B is", "seeds"], body, left=[0, 4])
    parts = ["### Scores", "", *lines, "", *notes, *([""] if notes else [])]
    parts += [f"{_SPREAD} {_DIFFERENCE}"] if any(one.difference for one in rows) else ["No difference can be computed."]
    return "\n".join(parts)


def _score(one: Score) -> list[str]:
    arrow = {True: " ↑", False: " ↓", None: ""}[one.higher_is_better]
    name = _cut(" ".join(filter(None, [short_task(one.task), one.metric]))) + arrow
    a, b = (cells.score(stat, one.higher_is_better) for stat in (one.a, one.b))
    return [
        name,
        a,
        b,
        cells.difference(one.difference),
        _verdict(one),
        str(one.difference.seeds if one.difference else 0),
    ]


def _verdict(one: Score) -> str:
    if one.verdict is None:
        return cells.NOTHING
    return one.verdict + ("" if one.sure or one.verdict == "equal" else "?")


def _interquartile(one: Overall) -> list[str]:
    a, b = (
        cells.NOTHING if value is None else format_score(value, one.higher_is_better)
        for value in (one.iqm_a, one.iqm_b)
    )
    change = one.difference
    if change is None:
        return ["interquartile mean", a, b, cells.NOTHING, cells.NOTHING, "0"]
    interval = cells.interval(change.iqm, change.iqm_low, change.iqm_high)
    return ["interquartile mean", a, b, interval, cells.NOTHING, str(change.seeds)]


def _note(one: Score) -> str:
    unpaired = [
        f"seed{'s' * (len(seeds) > 1)} {some(seeds)} of {name} only, not part of the difference"
        for name, seeds in zip("AB", one.alone, strict=True)
        if seeds
    ]
    return "; ".join(filter(None, [one.note, *unpaired]))


def _ratios(found: Comparison, names: tuple[str, str]) -> str:
    rows = [one for one in found.ratios if one.a is not None or one.b is not None]
    if not rows:
        return ""
    body = [
        [one.name, _amount(one, one.a), _amount(one, one.b), cells.NOTHING if one.ratio is None else f"{one.ratio:.3g}"]
        for one in rows
    ]
    notes: dict[str, list[str]] = {}
    for one in rows:
        if one.note:
            notes.setdefault(one.note, []).append(one.name)
    lines = ["### Costs and ranks", "", *grid(["mean of a run", *names, "B / A"], body, left=[0])]
    lines += (
        ["", *(f"- {', '.join(about)}: {_cut(note, _NOTE_LENGTH)}" for note, about in notes.items())] if notes else []
    )
    return "\n".join(lines)


def _amount(one: Ratio, value: float | None) -> str:
    if value is None:
        return cells.NOTHING
    if one.unit == "bytes":
        return cells.size(value)
    if one.unit == "s":
        return cells.duration(value)
    return f"{value:,.0f}" if one.unit == "count" else f"{value:.{2 if one.unit == 'rank' else 3}f}"


def _layers(found: Comparison, names: tuple[str, str]) -> str:
    if not found.layers:
        return ""
    header = ["layer"] + [f"{what} {name[0]}" for what in ("nominal", "effective", "stable", "‖ΔW‖₂") for name in names]
    body = [_layer(one) for one in found.layers]
    lines = ["### Rank of ΔW, layer by layer (mean over runs)", "", *grid(header, body, left=[0])]
    return "\n".join(lines)


def _layer(one: LayerPair) -> list[str]:
    cells = [_cut(one.layer)]
    for field in ("nominal", "effective", "stable", "norm"):
        cells += [_number(layer, field) for layer in (one.a, one.b)]
    return cells


def _number(layer: Layer | None, field: str) -> str:
    if layer is None:
        return cells.NOTHING
    value: float = getattr(layer, field)
    return f"{value:.3g}" if field == "norm" else f"{value:g}" if value == round(value) else f"{value:.2f}"


def _cut(raw: str, longest: int = _CELL_LENGTH) -> str:
    """Escaped text of a record; a long text is shortened in its middle."""
    half = longest // 2
    return escape(raw if len(raw) <= longest else f"{raw[:half]}…{raw[1 - half :]}")
