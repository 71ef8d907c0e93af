"""What a served page shows of runs that are not done: counts, progress, failures, as text alone."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boards
import pytest
from looking import Opened, Show, serious

from bench.records import claims, progress, record
from bench.records.record import Record
from leaderboard import serve

HOSTILE = '<img src=x onerror="document.title=1"></script>\u202e'


@pytest.fixture
def runs(tmp_path: Path, make_record: Callable[..., Record]) -> Path:
    """A done run, one that trains with a stale neighbour, and twelve that failed."""
    bare: dict[str, Any] = {"metrics": None, "params": None, "cost": None, "ranks": [], "curve": []}
    for seed in range(15):
        error = {"what": f"it broke {HOSTILE if seed == 14 else seed}", "known": "", "todo": ""}
        changes: dict[str, Any] = {} if seed == 0 else bare | {"state": "running" if seed < 3 else "failed"}
        one = make_record(spec={"seed": seed}, **changes, **({"error": error} if seed > 2 else {}))
        folder = record.folder(tmp_path, one.run_id)
        record.write(one, folder)
        os.utime(folder / record.FILE, (time.time() - 100 + seed,) * 2)
        if 0 < seed < 3:
            now = datetime.now(UTC).isoformat()
            text = {"owner": "me", "host": f"node-{seed}", "pid": 7, "machine": "m", "born": "", "since": now}
            (folder / claims.FILE).write_text(json.dumps(text))
            os.utime(folder / claims.FILE, (time.time() - (seed - 1) * 99,) * 2)
        if seed == 1:
            step(folder, 30)
    return tmp_path


def step(folder: Path, number: int) -> None:
    value = {"owner": "me", "step": number, "steps": 120, "loss": 0.5, "train_s": 60.0}
    (folder / progress.FILE).write_text(json.dumps(value))


@pytest.fixture
def address(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(serve, "POLL_S", 0.1)
    monkeypatch.setattr(serve, "LOOK_S", 0.0)
    server = serve.listen(boards.small, runs, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def opened(show: Show, address: str) -> Iterator[Opened]:
    made = show(None, at=address)
    made.page.locator("#now").wait_for()
    yield made
    assert made.complaints == []
    made.page.close()


def numbers(opened: Opened) -> dict[str, str]:
    names, values = (opened.page.locator(f"#now-counts {tag}").all_text_contents() for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def test_counts_cards_and_failures(opened: Opened) -> None:
    assert numbers(opened) == {"done": "1", "running": "1", "interrupted": "1", "failed": "12"}
    page = opened.page
    first, second = (text.replace("\xa0", " ") for text in page.locator("#now-cards li").all_inner_texts())
    assert "lora glue/cola seed 1" in first and "step 30 of 120 · loss 0.5" in first and "3.0 min left" in first
    assert "node-1, process 7" in first and "⚠" not in first
    assert "seed 2" in second and "⚠ no heartbeat for" in second
    assert page.locator("#now-cards progress").first.get_attribute("value") == "0.25"
    assert page.locator("#now-failures li").count() == 10
    assert page.locator("#now-failed summary").text_content() == "12 failures"
    assert (page.locator("#now-more").text_content() or "").startswith("and 2 more")
    assert page.locator("#now-facts").text_content() == "1 run done in the last hour · training on node-1 (1)"


def test_text_of_records_is_no_markup(opened: Opened) -> None:
    text = opened.page.locator("#now-failures li").first.text_content() or ""
    assert '<img src=x onerror="document.title=1"></script>' in text and "\u202e" not in text
    assert opened.page.locator("#now img").count() == 0


def test_it_follows_the_folder(opened: Opened, runs: Path) -> None:
    page = opened.page
    folder = next(path.parent for path in runs.glob(f"*/{progress.FILE}"))
    step(folder, 90)
    page.locator("#now-cards li", has_text="90").wait_for()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#now-cards code'))")
    step(folder, 100)
    page.wait_for_timeout(500)
    assert page.evaluate("String(getSelection())") == folder.name[:8], "a selection stays, to be copied"
    page.evaluate("getSelection().removeAllRanges()")
    page.locator("#now-cards li", has_text="100").wait_for()
    runs.rename(runs.with_name("elsewhere"))
    page.locator("#now").wait_for(state="hidden")
    runs.with_name("elsewhere").rename(runs)
    page.locator("#now").wait_for()
    opened.complaints[:] = [text for text in opened.complaints if "503" not in text]  # the browser's own note


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_everyone_can_read_it(show: Show, address: str, scheme: str, width: int) -> None:
    opened = show(None, at=address, scheme=scheme, width=width)
    opened.page.locator("#now").wait_for()
    assert opened.page.locator("#now-failures").is_visible() == (width > 390), "on a phone failures are folded"
    assert serious(opened) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.page.close()


@pytest.mark.parametrize("value", [{}, [], {"runs": 3, "claimed": [None, {}], "failures": [{}], "hosts": []}])
def test_a_strange_status_breaks_nothing(opened: Opened, value: Any) -> None:
    opened.page.route("**/status.json", lambda route: route.fulfill(json=value))
    with opened.page.expect_response("**/status.json"):
        pass
    opened.page.locator("#now-counts", has_text="runs").wait_for()


def test_a_page_in_a_file_has_no_status(show: Show) -> None:
    opened = show(boards.one_row())
    assert not opened.page.locator("#now").is_visible()
    opened.page.close()
