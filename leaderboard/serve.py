"""The page served while a grid runs: new runs appear by themselves; for this machine alone unless asked otherwise."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.core.errors import OK, BenchError, EnvironmentProblem
from bench.records.record import FILE
from leaderboard.render import page

EVERY_S = 3.0
"""Seconds between two questions of a page for a newer board."""


def serve(make: Callable[[], dict[str, Any]], folder: Path, host: str, port: int) -> int:
    """Serve the page at `/` and its board at `/board.json` until Ctrl-C, which is how this ends: exit code 0.

    Args:
        make: the board of `folder`; called when records there have changed.
        folder: folder of records.
        host: address to listen on; a loopback address keeps the page on this machine.
        port: 0 takes one that is free.

    Raises:
        EnvironmentProblem: the address cannot be listened on.
    """
    with listen(make, folder, host, port) as server:
        name, number = server.server_address[:2]
        try:
            print(f"serving {folder} until Ctrl-C", file=sys.stderr)
            if not _loopback(host):
                told = "is no loopback address: whoever reaches this machine can read the page"
                print(f"note: {host} {told}", file=sys.stderr)
            print(f"http://{f'[{name}]' if ':' in str(name) else name}:{number}/", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
    return OK


def listen(make: Callable[[], dict[str, Any]], folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """The server of `serve`, listening but not yet answering."""
    kept = Kept(make, folder)

    class Answer(_Answer):
        boards = kept
        name = host

    try:
        return _server(host)((host, port), Answer)
    except (OSError, OverflowError) as error:
        known = f"{error}"
        raise EnvironmentProblem(f"cannot listen on {host}:{port}", known, "Another port: --port 8001.") from error


class Kept:
    """The board of a folder, made anew only when its records have changed."""

    def __init__(self, make: Callable[[], dict[str, Any]], folder: Path) -> None:
        self._make, self._folder, self._lock = make, folder, threading.Lock()
        self._stamp: object = None
        self._board: dict[str, Any] = {}
        self._text, self._tag = b"", ""

    def latest(self) -> tuple[dict[str, Any], bytes, str]:
        """The board, its JSON, and an entity tag of that JSON."""
        with self._lock:  # one thread makes it, the others wait for it
            stamp = _stamp(self._folder)
            if stamp != self._stamp or not self._text:
                self._board = self._make()
                self._text = page.dumps(self._board).encode()
                self._tag = f'"{sha256(self._text).hexdigest()[:32]}"'
                self._stamp = stamp
            return self._board, self._text, self._tag


class _Answer(BaseHTTPRequestHandler):
    """GET of two paths; everything else is refused."""

    boards: Kept
    name: str
    server_version = "lowrank-bench"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """The page or the board."""
        path = self.path.partition("?")[0]
        if not _may_ask(self.headers.get("Host", ""), self.name):
            # a page elsewhere whose name was made to point here (DNS rebinding) could otherwise read the board
            return self._send(403, "text/plain", b"this name is not served\n")
        if path not in ("/", "/board.json"):
            return self._send(404, "text/plain", b"there are / and /board.json\n")
        try:
            board, text, tag = self.boards.latest()
        except (BenchError, OSError) as error:
            return self._send(503, "text/plain", f"{error}\n".encode())
        if path == "/":
            return self._send(200, "text/html", page.render(board, live=EVERY_S, tag=tag).encode())
        if self.headers.get("If-None-Match") == tag:
            return self._send(304, "application/json", b"", tag)
        return self._send(200, "application/json", text, tag)

    def do_POST(self) -> None:
        """Refused, as is every method but GET."""
        self._send(405, "text/plain", b"only GET\n")

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_POST  # noqa: N815

    def _send(self, status: int, kind: str, body: bytes, tag: str = "") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": "frame-ancestors 'none'",
        }
        headers |= {"ETag": tag} if tag else {}
        headers |= {"Allow": "GET"} if status == 405 else {}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page asks every few seconds."""


def _server(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A browser that goes away is no error of ours; all else is told as always."""
            if not isinstance(sys.exception(), ConnectionError | TimeoutError):
                super().handle_error(request, client_address)

    return Server


def _stamp(folder: Path) -> object:
    """What changes when a record of the folder comes, goes or is written."""
    found: list[tuple[str, int, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    seen = Path(entry.path, FILE).stat()
                except OSError:
                    continue
                found.append((entry.name, seen.st_mtime_ns, seen.st_size))
    except OSError:
        return None
    return sorted(found)


def _may_ask(host: str, name: str) -> bool:
    """Whether a request's Host is an address, which no other site can have, `localhost`, or the name asked for."""
    asked = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    bare = asked.strip("[]").lower()
    return bare in ("localhost", name.lower()) or _address(bare) is not None


def _loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
