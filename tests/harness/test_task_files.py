"""`--task reviews.csv`: a file stands for the task that reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.core import registry
from bench.core.errors import UsageError
from bench.harness.planner import make_plan
from bench.harness.request import make_request
from bench.harness.task_names import full_name


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "b.TSV", "c.jsonl", "d.parquet", "glue/rte.csv", "e f,g.csv"])
def test_a_file_is_the_argument_of_the_task_that_reads_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert full_name(name) == f"table:{name}"
    assert full_name(f"table:{name}") == f"table:{name}"


def test_a_registered_name_is_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.entries("tasks"), "own.csv", registry.Entry("tasks.images.digits:Digits"))
    (tmp_path / "glue").mkdir()
    for name in ("digits", "glue/rte", "own.csv"):
        (tmp_path / name).touch()
        assert full_name(name) == name
    assert full_name("images:photos.csv") == "images:photos.csv"
    assert full_name("no/such.thing") == "no/such.thing"


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match=r"there is no file 'reviews\.csv', and no task of that name"):
        make_request(methods="lora", tasks="reviews.csv")


def test_both_ways_to_write_it_are_one_run(tmp_path: Path) -> None:
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(30))
    (tmp_path / "mine.csv").write_text(f"text,label\n{rows}")
    plans = [make_plan(make_request(methods="linear", tasks=name)) for name in ("mine.csv", "table:mine.csv")]
    ids = {run.run_id for plan in plans for run in plan.runs}
    assert len(ids) == 1
    assert plans[0].runs[0].loaded.name == "table:mine.csv"
    with pytest.raises(UsageError, match="given twice"):
        make_request(methods="linear", tasks=["mine.csv", "table:mine.csv"])
    chosen = make_request(methods="lora", tasks="glue/rte", select="lr", select_on="mine.csv")
    assert chosen.select_on == "table:mine.csv"
