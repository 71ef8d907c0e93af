"""Temporary files: whose they are, and which of them are swept."""

from __future__ import annotations

import errno
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.core.files import cache_folder, replacing, sweep

HEX = "0123456789abcdef" * 2
HOST = re.sub(r"[^\w-]", "-", platform.node())


@pytest.fixture(scope="module")
def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_killed_process_leaves_what_the_next_one_sweeps(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from bench.core.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file: file.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.b")], check=False)
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".a.b.") and left.name.endswith(".tmp")
    sweep(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_only_what_is_nobody_s_is_swept(tmp_path: Path, dead: int) -> None:
    old, names = time.time() - 90_000, {}
    for host, pid in ((HOST, dead), (HOST, os.getpid()), ("else-where", dead)):
        names[f".x.json.{host}.{pid}.{HEX}.tmp"] = host == HOST and pid == dead
        names[f".y.json.{host}.{pid}.{HEX}.tmp"] = True  # is old
    names |= {f".z.json.{HEX}.tmp": False, f".w.{HEX}.tmp": True, ".mine.tmp": False, f"v.{HEX}.tmp": False}
    for name in names:
        (tmp_path / name).touch()
        if name[:2] in (".y", ".w", ".m"):
            os.utime(tmp_path / name, (old, old))
    with replacing(tmp_path / "q") as temporary:
        temporary.touch()
        sweep(tmp_path)
        assert temporary.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"q", *(name for name, goes in names.items() if not goes)}
    sweep(tmp_path / "not there")


def test_a_write_that_fails_leaves_nothing_new(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "old").write_bytes(b"whole")
    for name in ("old", "new/file"):
        with pytest.raises(OSError, match="No space left"):
            fail(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]
    assert (tmp_path / "old").read_bytes() == b"whole"


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("LOWRANK_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "lowrank-bench"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in (lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""), lambda: monkeypatch.delenv("XDG_CACHE_HOME")):
        unset()
        assert cache_folder() == tmp_path / "home" / ".cache" / "lowrank-bench"


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o640)])
def test_a_private_file_is_its_owners_alone(private: bool, mode: int, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "file", private=private) as temporary:
            temporary.write_bytes(b"1")
            assert temporary.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
