"""A Hugging Face hub on this machine: the few addresses that its client asks for one repository."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

CUT = 0
"""A failure: the connection is cut before the body."""


class Handler(http.server.BaseHTTPRequestHandler):
    """`files` by path; what was asked is kept in `asked`; `failures` are status codes by a part of the address."""

    repository: str
    commit: str
    kind: Literal["models", "datasets"]
    files: dict[str, bytes]
    failures: Mapping[str, int | tuple[int, str]]
    asked: list[str]

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        for part, failure in self.failures.items():
            if part in path:
                self._fail(failure)
                return
        here = f"/api/{self.kind}/{self.repository}"
        place = f"{'' if self.kind == 'models' else '/datasets'}/{self.repository}/resolve/"
        revision, _, name = path.removeprefix(place).partition("/")
        if path.startswith(place) and revision in ("main", self.commit):
            self._file(name)
        elif path in (here, *(f"{here}/revision/{name}" for name in ("main", self.commit))):
            siblings = [{"rfilename": name} for name in self.files]
            self._json({"id": self.repository, "sha": self.commit, "tags": [], "siblings": siblings})
        elif path.startswith(f"{here}/tree/{self.commit}"):
            below = path.removeprefix(f"{here}/tree/{self.commit}").strip("/")
            inside = [name for name in self.files if below in ("", *map(str, Path(name).parents))]
            recursive = "recursive=True" in self.path or "recursive=true" in self.path
            folders = {str(Path(name).parent) for name in inside} - {".", below}
            found = [name for name in inside if recursive or str(Path(name).parent) == (below or ".")]
            entries = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
            self._json([*entries, *map(self._entry, found)])
        else:
            code = "RevisionNotFound" if path.startswith(here + "/") else "RepoNotFound"
            self._send(b"", 404, {"X-Error-Code": code})

    def do_POST(self) -> None:
        self.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            paths = json.loads(body)["paths"]
        except ValueError:
            paths = parse_qs(body)["paths"]
        folders = {str(parent) for name in self.files for parent in Path(name).parents} - {"."}
        entries = [self._entry(name) for name in paths if name in self.files]
        entries += [{"type": "directory", "path": n, "size": 0, "oid": "0" * 40} for n in paths if n in folders]
        self._json(entries)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *args: object) -> None:
        pass

    def _fail(self, failure: int | tuple[int, str]) -> None:
        if failure == CUT and self.command == "HEAD":
            self._file(self.path.rpartition("/")[2])
        elif failure == CUT:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.close_connection = True
        else:
            status, code = failure if isinstance(failure, tuple) else (failure, "")
            self._send(b"", status, {"X-Error-Code": code} if code else {})

    def _entry(self, name: str) -> dict[str, object]:
        content = self.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _file(self, name: str) -> None:
        if name not in self.files:
            self._send(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit})
            return
        body = self.files[name]
        headers = {"ETag": f'"{self._entry(name)["oid"]}"', "X-Repo-Commit": self.commit, "Accept-Ranges": "bytes"}
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last or len(body) - 1), len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{end}/{len(body)}"
            self._send(body[int(first) : end + 1], 206, headers)
        else:
            self._send(body, 200, headers)

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), 200, {"Content-Type": "application/json"})

    def _send(self, body: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def served(
    files: dict[str, bytes],
    *,
    repository: str,
    commit: str = "0123456789abcdef0123456789abcdef01234567",
    kind: Literal["models", "datasets"] = "models",
    failures: Mapping[str, int | tuple[int, str]] | None = None,
) -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it is asked."""
    fixed = {"repository": repository, "commit": commit, "kind": kind, "files": files, "asked": []}
    handler: Any = type("One", (Handler,), {**fixed, "failures": failures or {}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler.asked
        finally:
            server.shutdown()
