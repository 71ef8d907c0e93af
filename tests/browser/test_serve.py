"""The live server: three paths, GET only, known host names; data are built again only when records change."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boards
import pytest
from looking import Show

from bench.core.errors import EnvironmentProblem
from leaderboard import serve
from leaderboard.render import page


class Served:
    """A server in a thread, on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0
        self.board: dict[str, Any] = boards.small()
        self.server = serve.listen(self.make, folder, "127.0.0.1", 0)
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def make(self) -> dict[str, Any]:
        self.made += 1
        return self.board

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, dict(answer.headers), body

    def record(self, name: str, text: str = "{}") -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "record.json").write_text(text)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_page_and_data(served: Served) -> None:
    status, headers, page = served.ask("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "connect-src 'self'" in page
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    status, headers, text = served.ask("/leaderboard.json")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(text) == served.board
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_status_is_looked_at_once_however_many_ask(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    original = serve.Watcher.look
    monkeypatch.setattr(serve.Watcher, "look", lambda watcher: looks.append("look") or original(watcher))
    monkeypatch.setattr(serve, "LOOK_S", 1e9)
    with ThreadPoolExecutor(50) as pool:
        answers = [*pool.map(lambda path: served.ask(path), ["/status.json"] * 50)]
    assert {status for status, _, _ in answers} == {200} and looks == ["look"]
    _, headers, text = answers[0]
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(text)["runs"]["done"] == 0


def test_without_a_folder_there_is_no_status(served: Served) -> None:
    served.folder.rmdir()
    status, _, text = served.ask("/status.json")
    assert status == 503 and "no folder" in text


def test_the_data_are_built_again_only_when_records_change(served: Served) -> None:
    tag = served.ask("/leaderboard.json")[1]["ETag"]
    for _ in range(3):
        status, _, text = served.ask("/leaderboard.json", **{"If-None-Match": tag})
        assert (status, text) == (304, "")
    assert served.made == 1
    served.record("a")
    assert served.ask("/leaderboard.json", **{"If-None-Match": tag})[0] == 304, "a new record that changes no board"
    assert served.made == 2
    served.board = boards.one_row()
    served.record("a", '{"more": 1}')
    status, headers, text = served.ask("/leaderboard.json", **{"If-None-Match": tag})
    assert (status, json.loads(text)) == (200, served.board)
    assert headers["ETag"] != tag
    assert served.made == 3


@pytest.mark.parametrize("path", ["/a", "/record.json", "/../pyproject.toml", "//etc/passwd", "/leaderboard.json/"])
def test_nothing_else_is_served(served: Served, path: str) -> None:
    assert served.ask(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_only_get(served: Served, method: str) -> None:
    status, headers, _ = served.ask("/", method)
    assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:{port}", 200),
        ("127.0.0.1:{port}", 200),
        ("[::1]:{port}", 200),
        ("localhost", 200),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example:{port}", 403),
        ("localhost.evil.example", 403),
        ("[evil]", 403),
        ("", 403),
    ],
)
def test_other_host_names_are_refused(served: Served, host: str, status: int) -> None:
    for path in ("/", "/leaderboard.json", "/status.json"):
        assert served.ask(path, Host=host.format(port=served.port))[0] == status


def test_an_error_of_the_leaderboard_is_sent(served: Served) -> None:
    def broken() -> dict[str, Any]:
        raise EnvironmentProblem("no records in x", "there is no such folder", "Run something first.")

    served.make = broken  # type: ignore[method-assign]
    served.server.cache = serve.LeaderboardCache(broken, served.folder)
    status, _, text = served.ask("/leaderboard.json")
    assert status == 503
    assert "no records in x" in text


def test_a_port_in_use_is_an_environment_problem(served: Served) -> None:
    with pytest.raises(EnvironmentProblem, match=f"cannot listen on 127.0.0.1:{served.port}"):
        serve.listen(served.make, served.folder, "127.0.0.1", served.port)


def test_the_address_family_is_the_system_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """AF_INET6 is 10 on Linux and 30 on macOS."""
    monkeypatch.setattr(socket, "AF_INET6", 30)
    assert serve.address_family("::1") == 30
    assert serve.address_family("127.0.0.1") == socket.AF_INET


CODE = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in its background ignores it
from leaderboard.serve import serve
sys.exit(serve(lambda: {}, pathlib.Path("."), sys.argv[1], 0))
"""


@pytest.mark.parametrize(("host", "noted"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_ctrl_c_ends_it_with_0(host: str, noted: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, host]
    path = os.pathsep.join([str(Path(serve.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stdout=-1, stderr=-1, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=20)[1]
    assert line.startswith(f"http://{host}:")
    assert process.returncode == 0, errors
    assert ("not a loopback address" in errors) is noted


def test_a_served_page_shows_new_runs_and_keeps_the_view(served: Served, show: Show, monkeypatch: Any) -> None:
    monkeypatch.setattr(serve, "POLL_S", 0.1)
    opened = show(None, at=f"http://127.0.0.1:{served.port}/")
    page = opened.page
    page.get_by_role("group", name="Methods").get_by_label("full").uncheck()
    before = opened.rows()
    served.board["tables"][0]["rows"].append({"label": "new one", "method": "new"})
    served.board["runs"]["f" * 16] = {"table": 0, "row": len(served.board["tables"][0]["rows"]) - 1, "task": "glue/rte"}
    served.record("a")
    page.locator("#live", has_text="1 new run").wait_for()
    assert opened.rows() == [*before, "new one"]
    assert not page.get_by_role("group", name="Methods").get_by_label("full").is_checked()
    served.server.shutdown()
    served.server.server_close()
    page.locator("#live", has_text="Not live any more").wait_for()
    assert {url.partition("?")[0] for url in opened.requests} <= {
        f"http://127.0.0.1:{served.port}/",
        f"http://127.0.0.1:{served.port}/leaderboard.json",
        f"http://127.0.0.1:{served.port}/status.json",
    }
    page.close()


def test_plotly_is_packed_once_for_many_requests(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []
    original = page.render
    monkeypatch.setattr(page, "render", lambda *data, **more: rendered.append("page") or original(*data, **more))
    first = served.ask("/")[2]
    for _ in range(3):
        assert served.ask("/")[2] == first
    assert rendered == ["page"]
    packed: list[int] = []
    monkeypatch.setattr(page.gzip, "compress", lambda content, **more: packed.append(len(content)) or b"")
    served.board = boards.small() | {"title": "another"}
    served.record("b" * 16)
    assert "<title>another</title>" in served.ask("/")[2] and len(rendered) == 2
    assert packed == [], "new records do not pack it again"


def test_five_hundred_requests_at_once_are_all_answered(served: Served) -> None:
    with ThreadPoolExecutor(500) as pool:
        states = [*pool.map(lambda path: served.ask(path)[0], (["/leaderboard.json"] * 9 + ["/"]) * 50)]
    assert states == [200] * 500 and served.made == 1
