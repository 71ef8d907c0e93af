"""Comparison of two sides against numpy: scores, intervals, ratios, layers, symmetry and cautions."""

from __future__ import annotations

import random
from dataclasses import asdict

import numpy as np
import pytest
from markdown_it import MarkdownIt
from records import altered, draft, finished

from leaderboard.compare import latex as compare_latex
from leaderboard.compare import markdown as compare_text
from leaderboard.compare.comparison import compare
from leaderboard.compare.selection import select_sides

DRAW = np.random.default_rng(7)
SCORES = {
    (method, task, seed): float(DRAW.normal(0.6 + 0.05 * (method == "lora"), 0.02))
    for method in ("full", "lora")
    for task in ("cola", "rte", "sst2")
    for seed in range(5)
}
BOTH = ("full", "lora")
NOISE = (0.012, -0.008, 0.004, -0.013, 0.005)
HOSTILE = ["<script>alert(1)</script>", "a | b `c` *d* [e](f)", "two\nlines\x1b[31m", "\u202egnp\ud800", "x" * 5000, ""]


@pytest.fixture
def grid(make_record):
    """Two methods, three tasks, five seeds; `change(record)` may alter each one."""

    def make(change=lambda record: None, keep=lambda method, task, seed: True):
        records = []
        for (method, task, seed), value in SCORES.items():
            if not keep(method, task, seed):
                continue
            made = make_record(
                spec={"method": method, "task": f"glue/{task}", "seed": seed},
                source={"data_hash": task},
                metrics={"primary": {"name": "accuracy", "value": value}},
                params={"trainable": 1000 * (1 + 9 * (method == "full")) + seed, "stored_bytes": 4096},
                cost={"train_s": 10.0 + value, "peak_memory_bytes": 1 << 20},
            )
            made = draft(made)
            for i, one in enumerate(made.ranks):
                one.effective = 2.0 + i + value
            change(made)
            records.append(finished(made))
        return records

    return make


def compared(records, a="full", b="lora"):
    return compare(*select_sides(records, a, b))


def only(record, method, task=None):
    return record.spec.method == method and task in (None, record.spec.task)


def values(method, task):
    return np.array([SCORES[method, task, seed] for seed in range(5)])


def test_means_deviations_and_paired_differences_are_those_of_numpy(grid):
    found = compared(grid())
    assert [one.task for one in found.scores] == ["glue/cola", "glue/rte", "glue/sst2"]
    for one, task in zip(found.scores, ("cola", "rte", "sst2"), strict=True):
        a, b = values("full", task), values("lora", task)
        assert (one.a.mean, one.a.sd) == pytest.approx((a.mean(), a.std(ddof=1)))
        assert (one.b.mean, one.b.sd, one.b.n) == pytest.approx((b.mean(), b.std(ddof=1), 5))
        assert one.difference.mean == pytest.approx((b - a).mean())
        assert (one.difference.seeds, one.difference.tasks, one.alone) == (5, 1, ((), ()))


def test_intervals_are_those_of_scipys_t(grid):
    from scipy.stats import ttest_rel

    for one, task in zip(compared(grid()).scores, ("cola", "rte", "sst2"), strict=True):
        ends = ttest_rel(values("lora", task), values("full", task)).confidence_interval()
        assert (one.difference.low, one.difference.high) == pytest.approx((ends.low, ends.high))


def test_the_average_is_over_tasks_and_its_interquartile_mean_is_scipys(grid):
    from scipy.stats import trim_mean

    overall = compared(grid()).overall
    a, b = (np.array([values(method, task) for task in ("cola", "rte", "sst2")]) for method in ("full", "lora"))
    assert overall.task == "average of 3 tasks"
    assert (overall.a.mean, overall.a.sd) == pytest.approx((a.mean(), a.mean(axis=0).std(ddof=1)))
    assert overall.difference.mean == pytest.approx((b - a).mean())
    assert (overall.difference.iqm, overall.iqm_a, overall.iqm_b) == pytest.approx(
        [trim_mean(of.ravel(), 0.25) for of in (b - a, a, b)]
    )


def test_ratios_and_layers_are_means(grid):
    found = compared(grid())
    ratios = {one.name: one for one in found.ratios}
    full, lora = (np.array([v for (m, *_), v in SCORES.items() if m == method]) for method in ("full", "lora"))
    assert ratios["trained parameters"].a == pytest.approx(10_002) and ratios["trained parameters"].b == 1002
    assert ratios["trained parameters"].ratio == pytest.approx(1002 / 10_002)
    assert ratios["training time"].ratio == pytest.approx((10 + lora.mean()) / (10 + full.mean()))
    assert ratios["effective rank of ΔW"].ratio == pytest.approx((2.5 + lora.mean()) / (2.5 + full.mean()))
    assert (ratios["stored"].ratio, ratios["steps"].ratio) == (1, 1)
    assert [one.b.effective for one in found.layers] == pytest.approx([2 + lora.mean(), 3 + lora.mean()])
    assert [one.a.nominal for one in found.layers] == [8, 8]


def test_tasks_have_equal_weight_whatever_their_seeds(grid):
    """cola took 100 s and rte 200 s on both sides; A has one seed of cola and three of rte."""

    def slower(record):
        record.cost.train_s = {"glue/cola": 100.0, "glue/rte": 200.0}[record.spec.task]

    def keep(method, task, seed):
        return task != "sst2" and (method == "lora" or seed < {"cola": 1, "rte": 3}[task])

    ratio = next(one for one in compared(grid(slower, keep)).ratios if one.name == "training time")
    assert (ratio.a, ratio.b, ratio.ratio) == (150, 150, 1)


def test_ranks_are_compared_on_common_layers(grid):
    """`full` has a third layer of effective rank 100: its mean must not enter."""

    def wider(record):
        if only(record, "full"):
            record.ranks.insert(1, {**record.ranks[0], "layer": "dense", "effective": 100.0})

    found = compared(grid(wider))
    ratio = next(one for one in found.ratios if one.name == "effective rank of ΔW")
    assert ratio.a < 4 and "over the 2 layers that both adapt (A 3, B 2)" in ratio.note
    assert [one.layer == "dense" for one in found.layers] == [False, True, False]
    assert [one.b is None for one in found.layers] == [False, True, False]
    assert [one.layer for one in compared(grid(wider), "lora", "full").layers] == [one.layer for one in found.layers]


def shifted(by):
    """Scores of `lora` are `by` above those of `full`, plus noise of mean 0 whose interval over seeds holds 0."""

    def change(record):
        record.metrics.primary.value = 0.7
        if only(record, "lora"):
            record.metrics.primary.value += by + NOISE[record.spec.seed]

    return change


@pytest.mark.parametrize("by", [-0.02, -0.01, 0.0, 0.01, 0.02])
def test_ranks_are_cautioned_where_scores_differ_beyond_noise(grid, by):
    """The interval is that of scipy: scores differ if it excludes zero."""
    from scipy.stats import ttest_1samp

    found = compared(grid(shifted(by), keep=lambda method, task, seed: task == "cola"))
    ends = ttest_1samp(by + np.array(NOISE), 0).confidence_interval()
    apart = not ends.low <= 0 <= ends.high
    assert apart == (abs(by) == 0.02), "of both kinds"
    text = compare_text.render(found, BOTH)
    marked = [line for line in text.splitlines() if "⚠" in line]
    assert bool(found.rank_caution) == bool(marked) == apart
    if apart:
        assert f"cola {by:+.3f} [{ends.low:+.3f}, {ends.high:+.3f}]" in found.rank_caution
        assert [line.split("|")[1].strip() for line in marked[:3]] == [
            "effective rank of ΔW",
            "stable rank of ΔW",
            "‖ΔW‖₂",
        ]
        assert marked[3].startswith("- ⚠ scores differ beyond noise") and marked[4].startswith("### Rank of ΔW")
        tex = compare_latex.render(found, ("full_a", "b"))
        assert r"Ranks of $\Delta W$, with A for full\_a and B for b: scores differ beyond noise" in tex
    else:
        assert r"Ranks of $\Delta W$" not in compare_latex.render(found, BOTH)


def test_ranks_of_a_side_at_chance_are_cautioned(grid):
    """Both score what always naming the larger class would: there is no gap, and nothing was learned."""

    def at_chance(record):
        shifted(0.0)(record)
        record.metrics.majority = {"dev": 0.7}
        record.metrics.all = {"dev": {"accuracy": record.metrics.primary.value}}

    caution = compared(grid(at_chance, keep=lambda method, task, seed: task == "cola")).rank_caution
    for side in "AB":
        assert f"{side} is not above the score of ignoring the input on cola (0.700)" in caution


def test_ranks_of_one_seed_each_are_not_known_to_be_comparable(grid):
    found = compared(grid(shifted(0.0), keep=lambda method, task, seed: (task, seed) == ("cola", 0)))
    assert found.rank_caution.startswith("whether scores differ beyond noise is not known")


def test_ranks_of_one_side_alone_have_no_caution(grid):
    found = compared(grid(lambda record: setattr(record, "ranks", record.ranks * only(record, "full"))))
    assert found.layers and found.rank_caution == ""


def test_swapping_the_sides_flips_signs_and_inverts_ratios(grid):
    one, two = compared(grid()), compared(grid(), "lora", "full")
    for mine, theirs in zip((*one.scores, one.overall), (*two.scores, two.overall), strict=True):
        assert (mine.a, mine.b) == (theirs.b, theirs.a)
        a, b = mine.difference, theirs.difference
        assert (a.mean, a.low, a.high, a.iqm) == pytest.approx((-b.mean, -b.high, -b.low, -b.iqm))
        assert {mine.verdict, theirs.verdict} == {"better", "worse"} and mine.sure == theirs.sure
    for mine, theirs in zip(one.ratios, two.ratios, strict=True):
        assert mine.ratio == pytest.approx(1 / theirs.ratio)
    assert [(f.name, f.a, f.b) for f in one.fields] == [(f.name, f.b, f.a) for f in two.fields]


def test_the_order_of_records_changes_nothing(grid):
    def layers(record):
        record.ranks = record.ranks[:: -1 if record.spec.seed % 2 else 1]

    records = grid(layers, keep=lambda method, task, seed: (method, task, seed) != ("full", "rte", 1))
    expected = compared(records)
    for seed in range(5):
        shuffled = random.Random(seed).sample(records, len(records))
        assert compared(shuffled) == expected


def test_seeds_of_one_side_only_are_named_and_left_out(grid):
    keep = {("full", 0), ("full", 1), ("full", 2), ("lora", 1), ("lora", 2), ("lora", 4)}
    found = compared(grid(keep=lambda method, task, seed: task == "cola" and (method, seed) in keep))
    (one,) = found.scores
    assert one.alone == (("0",), ("4",))
    assert one.difference.mean == pytest.approx((values("lora", "cola") - values("full", "cola"))[1:3].mean())
    assert (one.difference.seeds, one.a.n) == (2, 3)
    text = compare_text.render(found, ("full", "lora"))
    assert "seed 0 of A only, not part of the difference; seed 4 of B only" in text
    assert [caution.code for caution in found.cautions] == ["seeds"] and found.overall is None


def test_one_run_each_has_a_difference_and_no_interval(grid):
    found = compared(grid(keep=lambda method, task, seed: (task, seed) == ("cola", 3)))
    (one,) = found.scores
    assert one.difference.mean == pytest.approx(SCORES["lora", "cola", 3] - SCORES["full", "cola", 3])
    assert (one.difference.low, one.difference.high, one.a.sd, one.sure) == (None, None, None, False)
    line = next(line for line in compare_text.render(found, ("full", "lora")).splitlines() if line.startswith("| cola"))
    assert "[" not in line and "?" in line


def test_lower_is_better_where_the_metric_says_so(grid):
    def loss(record):
        record.metrics.primary |= {"name": "loss", "higher_is_better": False}

    for one, other in zip(compared(grid(loss)).scores, compared(grid()).scores, strict=True):
        assert {one.verdict, other.verdict} == {"better", "worse"}
        assert one.verdict == ("worse" if one.difference.mean > 0 else "better")


def test_no_average_over_metrics_of_different_direction(grid):
    def loss(record):
        if record.spec.task == "glue/rte":
            record.metrics.primary |= {"name": "loss", "higher_is_better": False}

    found = compared(grid(loss))
    assert found.overall.difference is None and "no average" in found.overall.note
    assert "no average" in compare_text.render(found, ("full", "lora"))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.source.update(data_hash="other"),
        lambda record: record.task.update(version=2),
    ],
)
def test_other_data_has_no_difference_and_says_so(grid, change):
    found = compared(grid(lambda record: change(record) if only(record, "lora", "glue/rte") else None))
    cola, rte, sst2 = found.scores
    assert rte.difference is None and rte.verdict is None and rte.note == "the data differ: not compared"
    assert rte.a and rte.b and cola.difference and sst2.difference
    assert found.overall.task == "average of 2 tasks"
    caution = next(one for one in found.cautions if one.code == "data")
    assert "rte" in caution.text and "cola" not in caution.text
    field = next(one for one in found.fields if one.name in ("data hash", "data version"))
    assert field.cautioned and all("(rte)" in value for value in (*field.a, *field.b))


@pytest.mark.parametrize(
    "change", [{"name": "matthews"}, {"split": "holdout"}, {"n": 10}, {"of": "method"}, {"higher_is_better": False}]
)
def test_other_metrics_have_no_difference(grid, change):
    def altered(record):
        if only(record, "lora", "glue/rte"):
            record.metrics.primary |= change

    rte = compared(grid(altered)).scores[1]
    assert rte.difference is None and rte.note.startswith("the metrics differ")
    assert rte.a.mean == pytest.approx(values("full", "rte").mean())


@pytest.mark.parametrize("change", [{"name": "matthews"}, {"split": "holdout"}, {"n": 10}])
def test_a_side_that_mixes_metrics_has_no_mean(grid, change):
    def altered(record):
        if only(record, "lora", "glue/rte") and record.spec.seed == 0:
            record.metrics.primary |= change

    rte = compared(grid(altered)).scores[1]
    assert rte.a and (rte.b, rte.difference) == (None, None) and "the metrics differ" in rte.note


def test_tasks_of_one_side_only_are_listed(grid):
    found = compared(grid(keep=lambda method, task, seed: task == "cola" or (method, task) == ("lora", "rte")))
    assert [(one.task, one.note) for one in found.scores] == [("glue/cola", ""), ("glue/rte", "only B has it")]
    assert found.overall is None


@pytest.mark.parametrize(
    ("code", "field", "change"),
    [
        ("steps", "steps done", lambda r: r.cost.update(steps=151, samples=4832)),
        ("steps", "max_steps", lambda r: r.spec.update(max_steps=300)),
        ("batch", "batch_size", lambda r: r.spec.update(batch_size=32)),
        ("batch", "examples per step", lambda r: r.cost.update(samples=9600)),
        ("backbone", "backbone", lambda r: r.backbone.update(name="bert")),
        ("backbone", "weights", lambda r: r.backbone.update(weights_hash="e" * 64)),
        ("examples", "train_samples", lambda r: r.spec.update(train_samples=16)),
        ("precision", "precision", lambda r: r.spec.update(precision="bf16-mixed")),
        ("selection", "lr chosen", lambda r: r.spec.update(lr=None, select=[1e-3, 3e-3])),
    ],
)
def test_what_makes_a_comparison_unfair_is_marked(grid, code, field, change):
    def altered(record):
        if only(record, "lora"):
            change(record)

    found = compared(grid(altered))
    assert [one.code for one in found.cautions] == [code]
    marked = {one.name for one in found.fields if one.cautioned}
    assert field in marked
    text = compare_text.render(found, ("full", "lora"))
    assert "⚠ " in text and next(line for line in text.splitlines() if line.startswith(f"| {field} ")).endswith("⚠   |")
    assert all(one.difference for one in found.scores), "marked, yet computed"
    assert compared(grid()).cautions == ()


def test_a_selected_learning_rate_against_a_given_one_is_named(grid):
    found = compared(grid(lambda r: r.spec.update(lr=None, select=[1e-3]) if only(r, "lora") else None))
    expected = "the learning rate of one side was selected, of the other given (A given; B selected)"
    assert [one.text for one in found.cautions] == [expected]


@pytest.mark.parametrize(("candidates", "codes"), [(3, []), (2, ["selection"])])
def test_other_numbers_of_trials_are_marked_other_candidates_are_not(grid, candidates, codes):
    def selected(record):
        mine = [3e-4, 1e-3, 3e-3] if only(record, "full") else [1e-2, 3e-2, 1e-1][:candidates]
        record.spec.update(lr=None, select=mine)

    assert [one.code for one in compared(grid(selected)).cautions] == codes


def test_a_side_of_several_configurations_says_so_and_compares_the_mean_of_each_seed(grid):
    records = grid(lambda r: r.spec.options.method.update(rank=4) if r.spec.seed % 2 else None)

    def higher(record):
        record.spec.options.method = {"rank": 16, "target": "all-linear"}
        record.run_id = record.run_id[::-1]
        record.metrics.primary.value += 0.1

    again = [altered(r, higher) for r in grid() if only(r, "lora")]
    found = compared([*records, *again])
    mixed = [one.text for one in found.cautions if one.code == "mixed"]
    assert mixed[-1].startswith("B mixes configurations (method.rank 16, 4, 8)")
    assert found.scores[0].difference.mean == pytest.approx(
        (values("lora", "cola") - values("full", "cola")).mean() + 0.05
    )
    assert found.scores[0].b.n == 5


def test_the_newest_of_the_same_run_stands(grid, make_record):
    records = grid()
    old = next(record for record in records if only(record, "lora", "glue/cola"))

    def again(record):
        record.run_id, record.provenance.created = "0" * 16, "2026-01-01T00:00:00+00:00"
        record.metrics.primary.value = 0.99

    newer = altered(old, again)
    found = compared([*records, newer])
    assert found.b.superseded == 1 and found.b.runs == 15
    mean = values("lora", "cola").sum() - old.metrics.primary.value + 0.99
    assert found.scores[0].b.mean == pytest.approx(mean / 5)
    assert "1 run of B left out" in compare_text.render(found, ("full", "lora"))


@pytest.mark.parametrize("known", [{"metrics": None, "params": None, "cost": None, "lr": None, "ranks": []}, {}])
def test_failures_are_counted_and_have_no_score(grid, known):
    """Not even where a run failed after it was evaluated."""

    def failed(record):
        if only(record, "lora", "glue/rte") and record.spec.seed == 0:
            record.update(state="oom", **known)
            record.error = {"what": "w", "known": "k", "todo": "t"}

    found = compared(grid(failed))
    assert found.b.states == {"done": 14, "oom": 1} and found.scores[1].b.n == 4
    assert [one.text for one in found.cautions] == ["1 oom of the 15 runs of B: its scores are from the other runs"]
    assert found.overall.difference.seeds == 4 and found.overall.alone == (("0",), ("0",))


def test_weights_that_runs_trained_are_paired_where_both_started_from_them(grid):
    """Each seed started from the weights of a parent run of its own: seed 0 twice, from two parents."""
    parents = {0: "a" * 64, 1: "b" * 64}
    records = grid(
        lambda r: r.backbone.update(weights_hash=parents[r.spec.seed]),
        keep=lambda method, task, seed: task == "cola" and seed < 2,
    )
    records = [altered(record, lambda r: r.spec.update(seed=0)) for record in records]
    found = compared(records)
    assert found.scores[0].difference.seeds == 2 and found.scores[0].alone == ((), ())
    other = [r for r in records if not (only(r, "lora") and r.backbone.weights_hash == "b" * 64)]
    (one,) = compared(other).scores
    assert one.alone == (("0 (weights bbbbbbb)",), ()) and one.difference.seeds == 1


def test_other_backbones_are_paired_by_seed(grid):
    found = compared(grid(lambda r: r.backbone.update(weights_hash="e" * 64) if only(r, "lora") else None))
    assert found.scores[0].difference.seeds == 5


def test_specifications_field_by_field(grid):
    def altered(record):
        if only(record, "lora"):
            record.spec.options.method.update(rank=16, novel=None)
            record.spec.options.optim.update(name="sgd")
            record.lr = 3e-3 if record.spec.task == "glue/rte" else 1e-3
            record.provenance.packages["torch"] = "2.7.0"
            record.provenance.git = "0123456789abcdef"

    found = {one.name: (one.a, one.b) for one in compared(grid(altered)).fields}
    assert found == {
        "method": (("full",), ("lora",)),
        "method.rank": (("8",), ("16",)),
        "method.novel": ((), ("none",)),
        "optim.name": (("adamw",), ("sgd",)),
        "lr": (("1e-3 (rte)",), ("3e-3 (rte)",)),
        "git": (("–",), ("0123456789ab",)),
        "package torch": (("2.6.0",), ("2.7.0",)),
    }


def test_different_devices_are_noted_with_times(grid):
    found = compared(grid(lambda r: r.cost.update(device="cuda") if only(r, "lora") else None))
    notes = {one.name: one.note for one in found.ratios}
    assert notes["training time"] == "devices differ: A 1 × cpu; B 1 × cuda" and not notes["steps"]


def test_nothing_is_divided_by_zero(grid):
    def none(record):
        record.params.trainable = 5 * only(record, "lora")
        record.params.stored_bytes = 5 * only(record, "full")
        record.cost.peak_memory_bytes = None

    found = {one.name: one.ratio for one in compared(grid(none)).ratios}
    assert (found["trained parameters"], found["stored"], found["peak memory"]) == (None, 0, None)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(grid, text):
    def altered(record):
        record.backbone.name = record.source.revision = record.cost.device = text + "A"
        record.provenance.packages = {text: "1"}
        record.metrics.primary.name = text
        if only(record, "lora"):
            record.spec.method = text or "empty"
            record.backbone.name = record.source.revision = record.cost.device = text + "B"
            record.spec.options.method[text] = text
            record.source.data_hash = text
            record.ranks[0].layer = text

    made = compare_text.render(compared(grid(altered), "full", "method!=full"), ("full", text))
    assert not [c for c in made if c != "\n" and not c.isprintable()]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(made)
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == kinds.count("table_close") == 5
    inline = {child.type for token in tokens if token.type == "inline" for child in token.children}
    assert inline <= {"text", "text_special", "softbreak"} and "html_block" not in kinds
    assert max(map(len, made.splitlines())) < 1000


def test_everything_is_plain_values(grid):
    import json

    json.dumps(asdict(compared(grid())), allow_nan=False)
