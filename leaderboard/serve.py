"""HTTP server of the page: shows new runs while a grid runs, by default to this machine only."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from bench.core.errors import OK, BenchError, EnvironmentProblem
from bench.core.text import without_secrets
from bench.records.record import FILE
from bench.records.status import Watcher
from leaderboard.render import page
from leaderboard.render.json_export import JsonObject

POLL_S = 3.0
"""Interval in seconds at which a page asks for new data."""
LOOK_S = 1.0
"""Seconds for which a status is kept."""
MOST_FAILURES = 10


def serve(build: Callable[[], JsonObject], folder: Path, host: str, port: int) -> int:
    """Serve the page at `/`, its data at `/leaderboard.json` and `/status.json`, until Ctrl-C; the exit code is then 0.

    Args:
        build: returns the data of `folder`; called when records there have changed.
        host: address to listen on; a loopback address keeps the page on this machine.
        port: 0 takes a free port.

    Raises:
        EnvironmentProblem: the address cannot be used.
    """
    with listen(build, folder, host, port) as server:
        name, number = server.server_address[:2]
        try:
            print(f"serving {folder} until Ctrl-C", file=sys.stderr)
            address = _address(host)
            if host != "localhost" and not (address and address.is_loopback):
                note = "is not a loopback address: anyone who can connect to this machine can read the page"
                print(f"note: {host} {note}", file=sys.stderr)
            print(f"http://{f'[{name}]' if ':' in str(name) else name}:{number}/", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
    return OK


def listen(build: Callable[[], JsonObject], folder: Path, host: str, port: int) -> LeaderboardServer:
    """Open the socket of `serve`; `serve_forever` of the returned server then answers requests."""
    try:
        return LeaderboardServer(LeaderboardCache(build, folder), StatusCache(folder), host, port)
    except (OSError, OverflowError) as error:
        raise EnvironmentProblem(
            f"cannot listen on {host}:{port}", str(error), "Use another port: --port 8001."
        ) from error


class Latest(NamedTuple):
    """The page, its data as JSON, and their entity tag."""

    html: bytes
    text: bytes
    tag: str


class LeaderboardCache:
    """The data of a folder and the page with them, built again only when its records have changed."""

    def __init__(self, build: Callable[[], JsonObject], folder: Path) -> None:
        self._build, self._folder, self._lock = build, folder, threading.Lock()
        self._stamp: dict[str, tuple[int, int]] = {}
        self._latest: Latest | None = None

    def latest(self) -> Latest:
        """What is served now."""
        with self._lock:  # one thread builds the data, the others wait
            stamp = _stamp(self._folder)
            if self._latest is None or stamp != self._stamp:
                data = self._build()
                text = page.dumps(data).encode()
                tag = f'"{sha256(text).hexdigest()[:32]}"'
                html = page.render(data, live=POLL_S, tag=tag).encode()
                self._latest, self._stamp = Latest(html, text, tag), stamp
            return self._latest


class StatusCache:
    """Where the runs of a folder stand, looked at once a second at most, however many pages ask."""

    def __init__(self, folder: Path) -> None:
        self._watcher, self._lock = Watcher(folder), threading.Lock()
        self._text, self._until = b"", 0.0

    def latest(self) -> bytes:
        """The status as JSON, with the latest failures alone."""
        with self._lock:
            if time.monotonic() >= self._until:
                status = self._watcher.look()
                shown = replace(status, failures=status.failures[:MOST_FAILURES])
                self._text = page.dumps(without_secrets(asdict(shown))).encode()
                self._until = time.monotonic() + LOOK_S
            return self._text


class LeaderboardServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # connections that wait to be accepted; the default of 5 turns a crowd away

    def __init__(self, cache: LeaderboardCache, status: StatusCache, host: str, port: int) -> None:
        self.cache, self.status, self.host, self.address_family = cache, status, host, address_family(host)
        super().__init__((host, port), _Handler)

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Ignore a browser that closes its connection; report other errors."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of three paths and refuses everything else."""

    server_version = "lowrank-bench"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        assert isinstance(self.server, LeaderboardServer)
        path = self.path.partition("?")[0]
        if not _is_allowed(self.headers.get("Host", ""), self.server.host):
            # otherwise a foreign site whose name resolves to this machine (DNS rebinding) could read the data
            return self._send(403, "text/plain", b"this host name is not served\n")
        if path not in ("/", "/leaderboard.json", "/status.json"):
            return self._send(404, "text/plain", b"only /, /leaderboard.json and /status.json are served\n")
        try:
            if path == "/status.json":
                return self._send(200, "application/json", self.server.status.latest())
            html, text, tag = self.server.cache.latest()
        except (BenchError, OSError) as error:
            return self._send(503, "text/plain", f"{error}\n".encode())
        if path == "/":
            return self._send(200, "text/html", html)
        if self.headers.get("If-None-Match") == tag:
            return self._send(304, "application/json", b"", ETag=tag)
        return self._send(200, "application/json", text, ETag=tag)

    def do_POST(self) -> None:
        """Refuse every method but GET."""
        self._send(405, "text/plain", b"only GET is allowed\n", Allow="GET")

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_POST  # noqa: N815

    def _send(self, status: int, kind: str, body: bytes, **more: str) -> None:
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
        for name, value in (headers | more).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: pages ask every few seconds."""


def address_family(host: str) -> socket.AddressFamily:
    """IPv6 for an address with colons, else IPv4."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _stamp(folder: Path) -> dict[str, tuple[int, int]]:
    """Time and size of every record in the folder."""
    stamps: dict[str, tuple[int, int]] = {}
    for path in folder.glob(f"*/{FILE}"):
        with contextlib.suppress(OSError):  # it was removed meanwhile
            status = path.stat()
            stamps[path.parent.name] = status.st_mtime_ns, status.st_size
    return stamps


def _is_allowed(host: str, name: str) -> bool:
    """Whether the Host of a request is `localhost`, the `name` of this server, or an IP address."""
    requested = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    bare = requested.strip("[]").lower()
    return bare in ("localhost", name.lower()) or _address(bare) is not None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text)
    return None
