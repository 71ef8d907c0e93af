"""Time to make and to use the page of many runs: `python -m bench.benchmarks.page`.

Records are copied from real ones, with other settings, budgets and slightly other scores, into a folder of their own;
what `bench leaderboard --format html` does with that folder is timed, then what a reader does in headless Chromium.
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
from hashlib import sha256
from pathlib import Path

from msgspec import structs

from bench.core.errors import BenchError, EnvironmentProblem
from bench.core.text import table
from bench.records.record import FILE, DoneRecord, Record, is_done, load_all

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TABLES = 4
WAIT = "await new Promise(done => setTimeout(done)); await new Promise(requestAnimationFrame);"
ACTIONS = {
    "filter by a method": "document.querySelector('#methods input').click()",
    "sort by a column": "document.querySelectorAll('#table thead button')[3].click()",
    "another table": "const all = document.getElementById('table-of'); all.selectedIndex = 1; "
    "all.dispatchEvent(new Event('change'))",
    "runs of a row": "document.querySelector('#table tbody .link').click()",
}
"""What a reader does, as code for the page."""


def copies(real: Sequence[DoneRecord], count: int) -> Iterator[Record]:
    """`count` valid records: copies of real ones, in four budgets and as many settings as are needed."""
    draw = random.Random(0)
    for number in range(count):
        one, block = real[number % len(real)], number // len(real)
        optim = {**one.spec.options.optim, "weight_decay": block // TABLES / 1000}
        options = structs.replace(one.spec.options, optim=optim)
        primary = structs.replace(one.metrics.primary, value=one.metrics.primary.value + draw.gauss(0, 0.01))
        yield structs.replace(
            one,
            run_id=sha256(f"{one.run_id} {block}".encode()).hexdigest()[:16],
            group_id=sha256(f"{one.group_id} {block}".encode()).hexdigest()[:16],
            spec=structs.replace(one.spec, max_steps=300 + block % TABLES, options=options),
            metrics=structs.replace(one.metrics, primary=primary),
        )


@contextmanager
def timed(rows: list[tuple[str, str]], what: str) -> Generator[None]:
    """The seconds of a block, as a row."""
    start = time.perf_counter()
    yield
    rows.append((what, f"{time.perf_counter() - start:.2f}"))
    sys.stderr.write(f"{what}: {rows[-1][1]} s\n")


def making(folder: Path, page: Path) -> list[tuple[str, str]]:
    """Seconds from records to the page."""
    from leaderboard.render import formats

    rows: list[tuple[str, str]] = []
    with timed(rows, "read and check the records"):
        records, problems = load_all(folder)
    with timed(rows, "tables and statistics"):
        made = formats.build_leaderboard(records, problems)
    with timed(rows, "the page"):
        page.write_text(formats.FORMATS["html"](made), encoding="utf-8")
    shown = f"{sum(len(one.rows) for one in made.tables)} rows in {len(made.tables)} tables"
    sys.stderr.write(f"{len(records)} records, {shown}, {page.stat().st_size / 1e6:.1f} MB\n")
    return rows


def using(page: Path) -> list[tuple[str, str]]:
    """Seconds until a reader sees what was asked for: the table, then the plots.

    Raises:
        EnvironmentProblem: there is no browser, or nothing to drive it with.
    """
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
            first, all_of_it = tab.evaluate(
                f"async () => {{ const start = performance.now(); {code}; await new Promise(requestAnimationFrame);"
                f"const first = performance.now(); {WAIT} return [first - start, performance.now() - start]; }}"
            )
            rows.append((what, f"{first / 1000:.2f}, plots {all_of_it / 1000:.2f}"))
            tab.wait_for_timeout(500)
        browser.close()
    return rows


def main(words: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.benchmarks.page", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="records (default: 10000)")
    parser.add_argument(
        "--runs", type=Path, default=Path("leaderboard/results/runs"), metavar="DIR", help="real records to copy"
    )
    options = parser.parse_args(words)
    try:
        real = [record for record in load_all(options.runs)[0] if is_done(record)]
        if not real:
            raise EnvironmentProblem(f"no finished records in {options.runs}", "", "Name a folder of some: --runs DIR.")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for record in copies(real, options.count):
                (folder / record.run_id).mkdir()
                (folder / record.run_id / FILE).write_text(json.dumps(record.to_json()), encoding="utf-8")
            page = folder / "page.html"
            rows = making(folder, page) + using(page)
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    print(table(("what", "seconds"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
