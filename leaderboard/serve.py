"""HTTP server of the page: shows new runs while a grid runs, by default to this machine only."""

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
from leaderboard.render.json_export import JsonObject

POLL_S = 3.0
"""Interval in seconds at which a page asks for new data."""


def serve(build: Callable[[], JsonObject], folder: Path, host: str, port: int) -> int:
    """Serve the page at `/` and its data at `/leaderboard.json` until Ctrl-C; the exit code is then 0.

    Args:
        build: returns the data of `folder`; called when records there have changed.
        folder: folder of records.
        host: address to listen on; a loopback address keeps the page on this machine.
        port: 0 takes a free port.

    Raises:
        EnvironmentProblem: the address cannot be used.
    """
    with listen(build, folder, host, port) as server:
        name, number = server.server_address[:2]
        try:
            print(f"serving {folder} until Ctrl-C", file=sys.stderr)
            if not _loopback(host):
                note = "is not a loopback address: anyone who can connect to this machine can read the page"
                print(f"note: {host} {note}", file=sys.stderr)
            print(f"http://{f'[{name}]' if ':' in str(name) else name}:{number}/", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
    return OK


def listen(build: Callable[[], JsonObject], folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Open the socket of `serve`; `serve_forever` of the returned server then answers requests."""
    shared = LeaderboardCache(build, folder)

    class Handler(_Handler):
        cache = shared
        name = host

    try:
        return _server_class(host)((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise EnvironmentProblem(
            f"cannot listen on {host}:{port}", str(error), "Use another port: --port 8001."
        ) from error


class LeaderboardCache:
    """The data of a folder, built again only when its records have changed."""

    def __init__(self, build: Callable[[], JsonObject], folder: Path) -> None:
        self._build, self._folder, self._lock = build, folder, threading.Lock()
        self._stamp: object = None
        self._data: JsonObject = {}
        self._text, self._tag = b"", ""

    def latest(self) -> tuple[JsonObject, bytes, str]:
        """The data, as values and as JSON, and the entity tag of the JSON."""
        with self._lock:  # one thread builds the data, the others wait
            stamp = _stamp(self._folder)
            if stamp != self._stamp or not self._text:
                self._data = self._build()
                self._text = page.dumps(self._data).encode()
                self._tag = f'"{sha256(self._text).hexdigest()[:32]}"'
                self._stamp = stamp
            return self._data, self._text, self._tag


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of two paths and refuses everything else."""

    cache: LeaderboardCache
    name: str
    server_version = "lowrank-bench"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Send the page or its data."""
        path = self.path.partition("?")[0]
        if not _is_allowed(self.headers.get("Host", ""), self.name):
            # otherwise a foreign site whose name resolves to this machine (DNS rebinding) could read the data
            return self._send(403, "text/plain", b"this host name is not served\n")
        if path not in ("/", "/leaderboard.json"):
            return self._send(404, "text/plain", b"only / and /leaderboard.json are served\n")
        try:
            data, text, tag = self.cache.latest()
        except (BenchError, OSError) as error:
            return self._send(503, "text/plain", f"{error}\n".encode())
        if path == "/":
            return self._send(200, "text/html", page.render(data, live=POLL_S, tag=tag).encode())
        if self.headers.get("If-None-Match") == tag:
            return self._send(304, "application/json", b"", tag)
        return self._send(200, "application/json", text, tag)

    def do_POST(self) -> None:
        """Refuse every method but GET."""
        self._send(405, "text/plain", b"only GET is allowed\n")

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

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: pages ask every few seconds."""


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore a browser that closes its connection; report other errors."""
            if not isinstance(sys.exception(), ConnectionError | TimeoutError):
                super().handle_error(request, client_address)

    return Server


def _stamp(folder: Path) -> object:
    """A value that changes when a record in the folder is added, removed or written."""
    found: list[tuple[str, int, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = Path(entry.path, FILE).stat()
                except OSError:
                    continue
                found.append((entry.name, status.st_mtime_ns, status.st_size))
    except OSError:
        return None
    return sorted(found)


def _is_allowed(host: str, name: str) -> bool:
    """Whether the Host of a request is `localhost`, the `name` of this server, or an IP address."""
    requested = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    bare = requested.strip("[]").lower()
    return bare in ("localhost", name.lower()) or _address(bare) is not None


def _loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
