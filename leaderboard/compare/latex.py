"""A comparison as LaTeX: one booktabs table of scores, costs and ranks of both sides."""

from __future__ import annotations

from bench.figures.style import plain
from leaderboard.compare.comparison import Comparison, Score
from leaderboard.compare.markdown import amount
from leaderboard.compare.ratios import Ratio
from leaderboard.render import cells
from leaderboard.render.latex import HEAD, escape, number
from leaderboard.tables.grouping import short_task


def render(comparison: Comparison, titles: tuple[str, str]) -> str:
    """Render the table with `titles` over the columns of A and B."""
    overall = comparison.overall
    scores = [*map(_score, comparison.scores), *([_score(overall)] if overall else [])]
    costs = [_ratio(one) for one in comparison.ratios if one.a is not None and one.b is not None]
    a, b = map(escape, titles)
    seeds = max((score.difference.seeds for score in comparison.scores if score.difference), default=0)
    caption = (
        f"{b} compared with {a}: mean $\\pm$ standard deviation, and difference with a 95\\,\\% confidence interval "
        f"over {seeds} common seed{'' if seeds == 1 else 's'}; below, means of a run and their ratio."
    )
    if comparison.rank_caution:
        caption += rf" Ranks of $\Delta W$, with A for {a} and B for {b}: {escape(plain(comparison.rank_caution))}."
    return HEAD + "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{caption}}}",
            r"\label{tab:lowrank-bench-compare}",
            r"\begin{tabular}{lrrr}",
            r"\toprule",
            rf" & {a} & {b} & difference \\",
            r"\midrule",
            *scores,
            *([r"\midrule", *costs] if costs else []),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _score(score: Score) -> str:
    name = " ".join(filter(None, [short_task(score.task), score.metric, cells.ARROWS[score.higher_is_better]]))
    sides = (number(cells.score(side, score.higher_is_better)) for side in (score.a, score.b))
    return " & ".join([escape(name), *sides, number(cells.difference(score.difference))]) + r" \\"


def _ratio(ratio: Ratio) -> str:
    times = "" if ratio.ratio is None else rf"$\times$\,{ratio.ratio:.3g}"
    return (
        " & ".join([escape(ratio.name), *(escape(amount(ratio, side)) for side in (ratio.a, ratio.b)), times]) + r" \\"
    )
