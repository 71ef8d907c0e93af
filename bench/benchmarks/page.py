"""Time to write and to use the leaderboard page of many runs: `python -m bench.benchmarks.page`.

Real records are copied into a temporary folder, with changed settings, budgets and slightly changed scores. Timed are
the steps of `bench leaderboard --format html` on that folder, and then the actions of a reader in headless Chromium.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import structs

from bench.benchmarks import print_or_fail
from bench.core.errors import EnvironmentProblem
from bench.core.text import table
from bench.records.record import FILE, DoneRecord, Record, is_done, load_all
from bench.records.spec import ids
from leaderboard.render import formats

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TABLES = 4
"""Budgets, each of which gets a table of its own."""
WAIT = "await new Promise(done => setTimeout(done)); await new Promise(requestAnimationFrame);"
ACTIONS = {
    "filter by a method": "document.querySelector('#methods input').click()",
    "sort by a column": "document.querySelectorAll('#table thead button')[3].click()",
    "another table": "const all = document.getElementById('table-of'); all.selectedIndex = 1; "
    "all.dispatchEvent(new Event('change'))",
    "runs of a row": "document.querySelector('#table tbody .link').click()",
}
"""Actions of a reader, as JavaScript."""


def copies(real: Sequence[DoneRecord], count: int) -> Iterator[Record]:
    """Yield `count` valid records: copies of real ones, in `TABLES` budgets and as many settings as needed."""
    generator = random.Random(0)
    for number in range(count):
        record, block = real[number % len(real)], number // len(real)
        spec, metrics, backbone = record.spec, record.metrics, record.backbone
        optim = {**spec.options.optim, "weight_decay": block // TABLES / 1000}
        options = structs.replace(spec.options, optim=optim)
        spec = structs.replace(spec, max_steps=300 + block % TABLES, options=options)
        primary, share = metrics.primary, 1 - abs(generator.gauss(0, 0.01))
        scores = {split: {name: share * value for name, value in all.items()} for split, all in metrics.all.items()}
        run_id, group_id = ids(spec.to_json(), record.source.data_hash, backbone.weights_hash)
        yield structs.replace(
            record,
            run_id=run_id,
            group_id=group_id,
            spec=spec,
            metrics=structs.replace(metrics, primary=structs.replace(primary, value=share * primary.value), all=scores),
        )


@contextmanager
def timed(rows: list[tuple[str, str]], what: str) -> Generator[None]:
    start = time.perf_counter()
    yield
    rows.append((what, f"{time.perf_counter() - start:.2f}"))
    sys.stderr.write(f"{what}: {rows[-1][1]} s\n")


def time_writing(folder: Path, page: Path) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    with timed(rows, "read and check the records"):
        records, problems = load_all(folder)
    with timed(rows, "tables and statistics"):
        leaderboard = formats.build_leaderboard(records, problems)
    with timed(rows, "the page"):
        page.write_text(formats.FORMATS["html"](leaderboard), encoding="utf-8")
    shown = f"{sum(len(part.rows) for part in leaderboard.tables)} rows in {len(leaderboard.tables)} tables"
    sys.stderr.write(f"{len(records)} records, {shown}, {page.stat().st_size / 1e6:.1f} MB\n")
    return rows


def time_using(page: Path) -> list[tuple[str, str]]:
    """Return the seconds until the page shows the result of each action: the table, then the plots."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise EnvironmentProblem("playwright is not installed", str(error), 'pip install -e ".[dev]"') from error
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise EnvironmentProblem("no browser", f"looked for {', '.join(BROWSERS)}", "Install Debian's chromium.")
    rows: list[tuple[str, str]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        with timed(rows, "open: all plots are drawn"):
            with timed(rows, "open: the table can be read"):
                tab.goto(page.as_uri(), wait_until="commit")
                tab.wait_for_selector("#table tbody tr")
            tab.wait_for_selector("#curve .plotly", state="attached")
        tab.wait_for_timeout(1000)
        for what, code in ACTIONS.items():
            first, total = tab.evaluate(
                f"async () => {{ const start = performance.now(); {code}; await new Promise(requestAnimationFrame);"
                f"const first = performance.now(); {WAIT} return [first - start, performance.now() - start]; }}"
            )
            rows.append((what, f"{first / 1000:.2f}, plots {total / 1000:.2f}"))
            tab.wait_for_timeout(500)
        browser.close()
    return rows


def measure(runs: Path, count: int) -> str:
    """Time `count` copies of the records; raises EnvironmentProblem if none is finished, or there is no browser."""
    real = [record for record in load_all(runs)[0] if is_done(record)]
    if not real:
        raise EnvironmentProblem(f"no finished records in {runs}", "", "Name a folder with some: --runs DIR.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for record in copies(real, count):
            (folder / record.run_id).mkdir()
            (folder / record.run_id / FILE).write_text(json.dumps(record.to_json()), encoding="utf-8")
        page = folder / "page.html"
        return table(("step", "seconds"), time_writing(folder, page) + time_using(page))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.benchmarks.page", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="records (default: 10000)")
    runs = Path("leaderboard/results/runs")
    parser.add_argument("--runs", type=Path, default=runs, metavar="DIR", help="real records to copy")
    options = parser.parse_args(argv)
    return print_or_fail(lambda: measure(options.runs, options.count))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
