"""A comparison as Markdown, aligned for a terminal."""

from __future__ import annotations

from dataclasses import replace

from bench.core.text import format_score
from bench.figures.style import plain
from leaderboard.compare.comparison import Comparison, Score, Summary
from leaderboard.compare.ratios import Ratio
from leaderboard.compare.selection import some
from leaderboard.render import cells
from leaderboard.render.markdown import escape, grid, section
from leaderboard.tables.build import RANK_FIELDS, RankField
from leaderboard.tables.grouping import group_by, short_task
from leaderboard.tables.intervals import Difference
from leaderboard.tables.table import Layer

CAUTION = "⚠"
"""Sign of a caution, and of the fields that it names."""
_CELL_LENGTH, _NOTE_LENGTH = 60, 400
"""Maximum number of characters of a cell and of a note."""
_SPREAD = "±: standard deviation over all seeds of a side; for the average, over the common seeds."
_DIFFERENCE = (
    "B − A: mean over the common seeds, with a 95 % confidence interval over what the last column names: seeds, and "
    "examples where both sides kept their outputs; for the average as wide as the bootstrap over tasks and seeds, if "
    "that is wider; for the interquartile mean that bootstrap alone, which is too narrow with few seeds. `?`: the "
    "interval contains zero, or there is but one seed. Of twenty comparisons of equals on one task, one has no `?`."
)
_ALONE = " Over seeds alone it is more: they do not say what other examples would."
_ONE = " An interval over the examples of one seed is about the two trained networks, not about other seeds."


def render(comparison: Comparison, titles: tuple[str, str]) -> str:
    """Render the sections; `titles` are the names of A and B where they tell them apart."""
    names = (f"A: {_cut(titles[0], 24)}", f"B: {_cut(titles[1], 24)}") if titles[0] != titles[1] else ("A", "B")
    sections = [_heading(comparison), *(part(comparison, names) for part in (_fields, _scores, _ratios))]
    return "\n\n".join(filter(None, [*sections, _layers(comparison)])) + "\n"


def _heading(comparison: Comparison) -> str:
    sides = (comparison.a, comparison.b)
    header = ["", "selection", "runs", "methods", "tasks", "seeds", "states"]
    older = [
        f"- {cells.runs(side.superseded)} of {side.name} left out: there is a newer one of the same specification"
        for side in sides
        if side.superseded
    ]
    return section("## B compared with A", grid(header, [*map(_summary, sides)], left=range(len(header))), older)


def _summary(side: Summary) -> list[str]:
    states = ", ".join(f"{count} {state}" for state, count in side.states.items())
    seeds, tasks = some([*map(str, side.seeds)]), some([*map(short_task, side.tasks)])
    return [side.name, _cut(side.label, 100), str(side.runs), _cut(some(side.methods)), _cut(tasks), seeds, states]


def _fields(comparison: Comparison, names: tuple[str, str]) -> str:
    body: list[list[str]] = []
    for field in comparison.fields:
        a, b = (_cut(some(values)) or cells.NOTHING for values in (field.a, field.b))
        body.append([_cut(field.name), a, b, CAUTION * field.cautioned])
    return section(
        "### Differences between the specifications",
        grid(["field", *names, ""], body, left=range(4)) if body else [],
        [f"{comparison.equal} fields are equal."],
        [f"- {CAUTION} {_cut(caution.text, _NOTE_LENGTH)}" for caution in comparison.cautions],
    )


def _scores(comparison: Comparison, names: tuple[str, str]) -> str:
    overall = comparison.overall
    rows = [*comparison.scores, *([overall] if overall else [])]
    body = [*map(_score, rows)]
    if overall and overall.difference and overall.iqm_a is not None and overall.iqm_b is not None:
        change, higher = overall.difference, overall.higher_is_better
        means = [format_score(overall.iqm_a, higher), format_score(overall.iqm_b, higher)]
        interval = cells.interval(change.iqm, change.iqm_low, change.iqm_high)
        body.append(["interquartile mean", *means, interval, cells.NOTHING, _over(replace(change, examples=0))])
    changes = [score.difference for score in rows if score.difference]
    said = _SPREAD + " " + _DIFFERENCE
    said += _ALONE * any(change.seeds > 1 and not change.examples for change in changes)
    said += _ONE * any(change.seeds == 1 and change.examples > 0 for change in changes)
    return section(
        "### Scores",
        grid(["score", *names, "B − A [95 %]", "B is", "over"], body, left=[0, 4, 5]),
        [f"- {_cut(short_task(score.task))}: {_cut(note, _NOTE_LENGTH)}" for score in rows if (note := _note(score))],
        [said if changes else "No difference can be computed."],
    )


def _score(score: Score) -> list[str]:
    name = _cut(" ".join(filter(None, [short_task(score.task), score.metric])))
    unsure = "" if score.sure or score.verdict == "equal" else "?"
    return [
        f"{name} {cells.ARROWS[score.higher_is_better]}".rstrip(),
        cells.score(score.a, score.higher_is_better),
        cells.score(score.b, score.higher_is_better),
        cells.difference(score.difference),
        score.verdict + unsure if score.verdict else cells.NOTHING,
        _over(score.difference),
    ]


def _over(change: Difference | None) -> str:
    """`3 seeds, 408 examples`: what an interval is over."""
    if change is None:
        return "0 seeds"
    seeds = f"{change.seeds} seed{'s' * (change.seeds > 1)}"
    return f"{seeds}, {change.examples:,} examples" if change.examples else seeds


def _note(score: Score) -> str:
    unpaired = [
        f"seed{'s' * (len(seeds) > 1)} {some(seeds)} of {name} only, not part of the difference"
        for name, seeds in zip("AB", score.alone, strict=True)
        if seeds
    ]
    return "; ".join(filter(None, [score.note, *unpaired]))


def _ratios(comparison: Comparison, names: tuple[str, str]) -> str:
    rows = [ratio for ratio in comparison.ratios if ratio.a is not None or ratio.b is not None]
    if not rows:
        return ""
    caution = comparison.rank_caution
    body = [
        [row.name, amount(row, row.a), amount(row, row.b), cells.number(row.ratio, ".3g"), *_mark(caution, row)]
        for row in rows
    ]
    by_note = group_by((row for row in rows if row.note), lambda row: row.note)
    notes = [f"- {', '.join(row.name for row in noted)}: {_cut(note, _NOTE_LENGTH)}" for note, noted in by_note.items()]
    notes += [f"- {CAUTION} {_cut(caution, _NOTE_LENGTH)}"] if caution else []
    header = ["mean of a run", *names, "B / A", *([""] if caution else [])]
    return section("### Costs and ranks", grid(header, body, left=[0, 4]), notes)


def _mark(caution: str, row: Ratio) -> list[str]:
    """The cell of the column that is there if ranks are cautioned."""
    return [CAUTION * row.of_update] if caution else []


def amount(ratio: Ratio, value: float | None) -> str:
    """Write a quantity with its unit."""
    if ratio.unit == "bytes":
        return cells.size(value)
    if ratio.unit == "s":
        return cells.duration(value)
    return cells.number(value, {"count": ",.0f", "rank": ".2f", "norm": ".3f"}[ratio.unit])


def _layers(comparison: Comparison) -> str:
    if not comparison.layers:
        return ""
    header = ["layer", *(f"{what} {side}" for what in ("nominal", "effective", "stable", "‖ΔW‖₂") for side in "AB")]
    body = [
        [_cut(pair.layer), *(_number(layer, field) for field in RANK_FIELDS for layer in (pair.a, pair.b))]
        for pair in comparison.layers
    ]
    caution = f" {CAUTION}" * bool(comparison.rank_caution)
    return section(f"### Rank of ΔW, layer by layer (mean over runs){caution}", grid(header, body, left=[0]))


def _number(layer: Layer | None, field: RankField) -> str:
    if layer is None:
        return cells.NOTHING
    value: float = getattr(layer, field)
    return f"{value:.3g}" if field == "norm" else f"{value:g}" if value == round(value) else f"{value:.2f}"


def _cut(raw: str, longest: int = _CELL_LENGTH) -> str:
    """Escaped text of a record; a long text is shortened in its middle."""
    return escape(plain(raw, longest))
