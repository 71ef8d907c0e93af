"""The sides of a comparison by every name that they may have, and what is said where there is no such side."""

from __future__ import annotations

import pytest

from bench.core.errors import UsageError
from leaderboard.compare.selection import select_sides


def test_sides_by_every_name(grid, make_record):
    records, _ = grid()
    run = next(r for r in records if (r.spec.method, r.spec.task) == ("lora", "glue/rte"))
    trial = make_record(spec={"method": "lora", "task": "glue/rte", "holdout": 50})
    records.append(trial)

    def runs(text):
        return {record.run_id for record in select_sides(records, "full", text)[1].records}

    lora = {record.run_id for record in records if record.spec.method == "lora"} - {trial.run_id}
    group = {record.run_id for record in records if record.group_id == run.group_id}
    assert runs(run.run_id) == runs(run.run_id[:8]) == {run.run_id}
    assert runs(run.group_id) == runs(run.group_id[:8]) == group and len(group) == 4
    assert runs("lora") == runs("method=lora") == lora
    assert runs("method=lora & seed<2&task=glue/rte") == {r for r in group if r in lora and seed_of(records, r) < 2}
    assert runs(trial.run_id) == runs("holdout=50") == {trial.run_id}


def seed_of(records, run_id):
    return next(record.spec.seed for record in records if record.run_id == run_id)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("loar", "full", "Did you mean 'lora'?"),
        ("full", "zzz", "the methods are full, lora"),
        ("", "full", "no run, group or method ''"),
        ("lora", "lora", "are the same runs"),
        ("lora", "method=lora&seed<2", "share 6 of their runs"),
        ("method=lorra", "full", "Did you mean 'lora'?"),
        ("method.rnak=8", "full", "Did you mean 'method.rank'?"),
        ("method=lora&seed=77", "full", "seed is 0, 1, 2, 3"),
        ("method=lora&", "full", "'' is not a condition"),
        ("=lora", "full", "'=lora' is not a condition"),
    ],
)
def test_what_cannot_be_found_names_what_is_there(grid, a, b, said):
    with pytest.raises(UsageError) as caught:
        select_sides(grid()[0], a, b)
    error = caught.value
    assert said in str(error) and error.what and error.known and error.todo


def test_the_beginning_of_several_ids_names_them(make_record):
    records = [make_record(run_id="ab" + "0" * 14), make_record(run_id="ab" + "1" * 14, group_id="abc" + "0" * 13)]
    records.append(make_record(spec={"method": "full"}))
    with pytest.raises(UsageError, match="begins 3 ids") as caught:
        select_sides(records, "ab", "full")
    assert "ab00" in caught.value.known and "group abc0" in caught.value.known
    assert len(select_sides(records, "abc", "full")[0].records) == 1
