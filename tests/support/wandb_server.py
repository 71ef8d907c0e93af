"""A W&B server in small: it keeps what W&B's own client sends to it, and answers W&B's own API from that."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(kw_only=True)
class Kept:
    """What was sent: runs as they were opened, and files by run and name."""

    url: str = ""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    files: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    bodies: list[bytes] = field(default_factory=list[bytes])
    lost: set[str] = field(default_factory=set[str])
    """Runs whose files cannot be downloaded."""
    refused: set[str] = field(default_factory=set[str])
    """Runs that the server does not take."""


@contextmanager
def serving() -> Iterator[Kept]:
    """The server at `url`, until the block ends."""
    kept = Kept()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Handler(kept, *args))  # type: ignore[arg-type]
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, kept: Kept, *args: Any) -> None:
        self.kept = kept
        super().__init__(*args)

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_PUT(self) -> None:
        _, _, run, name = self.path.split("/", 3)
        self.kept.files.setdefault(run, {})[name] = self._body()
        self._answer(b"")

    def do_GET(self) -> None:
        _, _, run, name = (*self.path.split("/", 3), "", "", "")[:4]
        found = self.kept.files.get(run, {}).get(name)
        if found is None or run in self.kept.lost:
            self._answer(b"gone", code=404)
        else:
            self._answer(found)

    def do_POST(self) -> None:
        body = self._body()
        self.kept.bodies.append(body)
        if not self.path.endswith("/graphql"):
            return self._answer(b'{"exitcode": null}')
        asked = json.loads(body)
        found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        answer = ANSWERS.get(found[1] if found else "", lambda kept, values: None)
        data = answer(self.kept, asked.get("variables") or {})
        problem = {"data": None, "errors": [{"message": "this server does not do that"}]}
        return self._answer(json.dumps(problem if data is None else {"data": data}).encode())

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, body: bytes, *, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _upsert(kept: Kept, values: dict[str, Any]) -> dict[str, Any] | None:
    name = values["name"]
    if name in kept.refused:
        return None
    given = {key: value for key, value in values.items() if value is not None}
    kept.runs[name] = {**kept.runs.get(name, {}), **given}
    project = {"id": "p", "name": values["project"], "entity": {"id": "e", "name": "us"}}
    bucket = {"id": name, "name": name, "project": project, "config": None, "sweepName": None}
    return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": None}, "inserted": True}}


def _upload(kept: Kept, values: dict[str, Any]) -> dict[str, Any]:
    files = [{"name": name, "uploadUrl": f"{kept.url}/files/{values['run']}/{name}"} for name in values["files"]]
    return {"createRunFiles": {"runID": values["run"], "uploadHeaders": [], "files": files}}


def _runs(kept: Kept, values: dict[str, Any]) -> dict[str, Any]:
    nodes = [{"id": name, "name": name, "state": "finished", "tags": [], **_GONE} for name in kept.runs]
    edges = [{"node": node, "cursor": node["name"]} for node in nodes]
    page = {"endCursor": None, "hasNextPage": False}
    found = {"edges": edges, "pageInfo": page}
    return {"project": {"internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": found}}


_GONE = dict.fromkeys(("sweepName", "displayName", "group", "jobType", "createdAt", "config", "summaryMetrics"))


def _files(kept: Kept, values: dict[str, Any]) -> dict[str, Any]:
    run = values["name"]
    there = {name: body for name, body in kept.files.get(run, {}).items() if name in values["fileNames"]}
    edges = [
        {"node": {"id": name, "name": name, "url": f"{kept.url}/files/{run}/{name}", "sizeBytes": len(body)}}
        for name, body in there.items()
    ]
    files = {
        "edges": [{**edge, "cursor": "c"} for edge in edges],
        "pageInfo": {"endCursor": None, "hasNextPage": False},
    }
    return {"project": {"internalId": "1", "run": {"fileCount": len(edges), "files": files}}}


ANSWERS: dict[str, Callable[[Kept, dict[str, Any]], dict[str, Any] | None]] = {
    "Viewer": lambda kept, values: {"viewer": {"id": "v", "entity": "us", "username": "us", "flags": "{}"}},
    "GetDefaultEntity": lambda kept, values: {"viewer": {"id": "v", "entity": "us"}},
    "ServerFeaturesQuery": lambda kept, values: {"serverInfo": {"features": []}},
    "RunResumeStatus": lambda kept, values: {"model": None},
    "UpsertBucket": _upsert,
    "CreateRunFiles": _upload,
    "Runs": _runs,
    "RunFiles": _files,
}
