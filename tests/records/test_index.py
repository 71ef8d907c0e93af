"""The index of a large folder: what it says is what the files say, whatever happens to either of them."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from records import altered

from bench.core.errors import BenchError
from bench.records import index, record
from bench.records.record import FILE, Record
from bench.records.views import NOT_IN_TABLES, line

MakeRecord = Callable[..., Record]
REAL = Path(__file__).resolve().parents[2] / "leaderboard" / "results" / "runs"
FAILED = {"what": "went wrong", "known": "this", "todo": "that"}


class Folder:
    """A folder of runs, and what is read from its files while the index is used."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.reads = path, list[str]()
        real = index.read

        def read(file: Path) -> Record:
            self.reads.append(file.parent.name)
            return real(file)

        monkeypatch.setattr(index, "read", read)

    def check(self) -> list[str]:
        """Hold both views against the files, and return the names of the folders that were read for the lines."""
        records, problems = record.load_all(self.path)
        self.reads.clear()
        assert texts(index.load_lines(self.path)) == ([line(one) for one in records], [*map(str, problems)])
        read = [*self.reads]
        slim, found = index.load_slim(self.path)
        assert [*map(kept, slim)] == [*map(kept, records)] and [*map(str, found)] == [*map(str, problems)]
        return read

    def run(self, number: int = 0) -> Path:
        return sorted(self.path.iterdir())[number]


def texts(loaded: tuple[list[Any], list[BenchError]]) -> tuple[list[Any], list[str]]:
    return loaded[0], [*map(str, loaded[1])]


def kept(run: Record) -> dict[str, Any]:
    """The fields that a slim record has, as JSON."""
    fields = {name: value for name, value in run.to_json().items() if name not in NOT_IN_TABLES}
    return {**fields, "created": run.provenance.created}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record: MakeRecord) -> Folder:
    """20 runs, some without a score, whose files count as old; the index takes folders of any size."""
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "LEAST", 1)
    monkeypatch.setattr(index, "SETTLED_NS", -(10**9))
    out = tmp_path / "runs"
    for seed in range(20):
        failed: dict[str, Any] = {"state": "failed", "error": FAILED, "metrics": None} if seed % 5 == 0 else {}
        made = make_record(spec={"seed": seed}, report={"seed": seed}, **failed)
        record.write(made, record.folder(out, made.run_id))
    return Folder(out, monkeypatch)


def times(folder: Path) -> dict[Path, int]:
    """When each file and folder was changed."""
    return {path: path.stat().st_ctime_ns for path in (folder, *folder.rglob("*"))}


def files(tmp_path: Path) -> list[Path]:
    return sorted(file for file in (tmp_path / "cache").rglob("*") if file.is_file())


def test_files_are_read_once(runs: Folder, tmp_path: Path) -> None:
    before = times(runs.path)
    assert len(runs.check()) == 20
    assert runs.check() == [] == runs.reads, "neither for the lines nor for the tables"
    assert times(runs.path) == before, "nothing is written beside the records"
    assert {stat.S_IMODE(file.stat().st_mode) for file in files(tmp_path)} == {0o600}


def test_a_large_folder_has_the_rows_and_tables_of_its_records(runs: Folder) -> None:
    from leaderboard.render import formats

    boards = [formats.build_leaderboard(*load(REAL), best=True) for load in (record.load_all, index.load_slim)]
    boards.append(formats.build_leaderboard(*index.load_slim(REAL), best=True))
    for name in ("md", "csv", "tex"):
        texts = {formats.FORMATS[name](board) for board in boards}
        assert len(texts) == 1
    runs.path = REAL
    runs.check()


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_file_of_the_same_size_and_time_is_read_again(runs: Folder, how: str) -> None:
    runs.check()
    file = runs.run(3) / FILE
    whole, status = file.read_bytes(), file.stat()
    old = record.read(file)
    changed = altered(old, lambda draft: setattr(draft.provenance, "created", "2026-01-01T00:00:00+00:00"))
    record.write(changed, file.parent)
    content = file.read_bytes()
    assert len(content) == len(whole) and content != whole
    file.write_bytes(whole)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert runs.check() == [file.parent.name]
    if how == "in place":
        file.write_bytes(content)
    else:
        (other := file.with_name("other")).write_bytes(content)
        other.replace(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert runs.check() == [file.parent.name]
    assert index.load_slim(runs.path)[0][3].provenance.created == "2026-01-01T00:00:00+00:00"


def test_every_part_of_a_stamp_counts(runs: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.check()
    real = record.stamps(runs.path)
    for part in range(4):
        other = {name: (*stamp[:part], stamp[part] + 1, *stamp[part + 1 :]) for name, stamp in real.items()}
        monkeypatch.setattr(index, "stamps", lambda out, other=other: other)
        runs.reads.clear()
        index.load_lines(runs.path)
        assert len(runs.reads) == 20


def test_a_folder_that_is_removed_renamed_or_new(runs: Folder, make_record: MakeRecord) -> None:
    runs.check()
    gone, first, second = runs.run(0), runs.run(1), runs.run(2)
    (gone / FILE).unlink()
    assert runs.check() == []
    first.rename(runs.path / "0123456789abcdef")
    assert runs.check() == ["0123456789abcdef"], "its record is of another folder"
    first.mkdir()
    (second / FILE).rename(first / FILE)
    assert first.name in runs.check()
    made = make_record(spec={"seed": 99})
    record.write(made, record.folder(runs.path, made.run_id))
    assert made.run_id in runs.check()


def test_what_is_no_record_is_a_problem_every_time(runs: Folder) -> None:
    runs.check()
    (runs.run(5) / FILE).write_text("{")
    for name in ("0zz", "ZZ", "zz", "0" * 16):
        (runs.path / name).mkdir()
        (runs.path / name / FILE).write_text("{}")
    (runs.path / "0zz" / FILE).unlink()
    (runs.path / "0zz" / FILE).mkdir()
    assert len(runs.check()) == len(runs.check()) == 5
    assert len(index.load_lines(runs.path)[1]) == 5


def test_a_record_that_only_json_can_hold(runs: Folder) -> None:
    old = record.read(runs.run(2) / FILE)
    record.write(altered(old, lambda draft: setattr(draft, "warnings", ["half a pair: \ud800"])), runs.run(2))
    runs.check()
    assert runs.check() == [runs.run(2).name]
    assert index.load_slim(runs.path)[0][2].warnings == ("half a pair: \ud800",)


def test_a_file_that_changed_just_now_is_not_trusted(
    runs: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(index, "SETTLED_NS", 3600 * 10**9)
    assert len(runs.check()) == len(runs.check()) == 20 and files(tmp_path) == []


def test_a_few_changed_records_do_not_rewrite_the_index(
    runs: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs.check()
    monkeypatch.setattr(index, "SHARE", 1)
    before = [file.stat().st_mtime_ns for file in files(tmp_path)]
    runs.run().joinpath(FILE).touch()
    assert runs.check() == runs.check() == [runs.run().name]
    assert [file.stat().st_mtime_ns for file in files(tmp_path)] == before
    monkeypatch.setattr(index, "SHARE", 100)
    assert runs.check() == [runs.run().name] and runs.check() == []


@pytest.mark.parametrize(("name", "load"), [("lines", index.load_lines), ("tables", index.load_slim)])
def test_no_damage_gives_a_wrong_row(runs: Folder, name: str, load: Callable[[Path], Any], tmp_path: Path) -> None:
    runs.check()
    file = max((file for file in files(tmp_path) if file.suffix == f".{name}"), key=lambda file: file.stat().st_size)
    whole, expected = file.read_bytes(), texts(load(runs.path))

    def check() -> None:
        runs.reads.clear()
        assert texts(load(runs.path)) == expected
        assert {name[0] for name in runs.reads} == {file.stem}

    for i in range(50):
        place = (2 * i + 1) * len(whole) // 100
        for content in (whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], whole[:place]):
            file.write_bytes(content)
            check()
            assert file.read_bytes() == whole, "written again"
    file.write_bytes(whole * 2)
    check()
    for make in (file.mkdir, lambda: os.mkfifo(file)):
        file.unlink(missing_ok=True)
        make()
        check()
        if file.is_dir():
            file.rmdir()


def test_another_version_reads_the_files(runs: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.check()
    monkeypatch.setattr(index, "_key", lambda: b"k" * 32)
    assert len(runs.check()) == 20
    assert runs.check() == []


def test_the_version_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(index, "__file__", str(tmp_path / "index.py"))
    keys = set[bytes]()
    for change in (
        lambda: None,
        lambda: (tmp_path / "b.py").write_text("2"),
        lambda: monkeypatch.setattr(index, "__version__", "9"),
        lambda: monkeypatch.setattr(index, "SCHEMA", 9),
    ):
        change()
        index._key.cache_clear()
        keys.add(index._key())
    index._key.cache_clear()
    assert len(keys) == 4


def _full(*args: Any, **options: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def _homeless(*args: Any) -> Any:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("what", ["a file", "a full disk", "no home", "read-only"])
def test_a_cache_that_cannot_be_used_is_not_missed(
    runs: Folder, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if what == "a file":
        (tmp_path / "cache").write_text("")
    elif what == "a full disk":
        monkeypatch.setattr(Path, "write_bytes", _full)
    elif what == "no home":
        monkeypatch.delenv("LOWRANK_BENCH_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "expanduser", _homeless)
    else:
        monkeypatch.setattr(index, "replacing", _full)
    assert len(runs.check()) == len(runs.check()) == 20
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


def test_the_users_cache_folder(runs: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LOWRANK_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    runs.check()
    assert {file.parents[2] for file in (tmp_path / "xdg").rglob("*.lines")} == {tmp_path / "xdg" / "lowrank-bench"}
    monkeypatch.chdir(runs.path)
    runs.path = Path()
    assert runs.check() == [], "the same folder by another path"
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    runs.path = tmp_path / "link"
    assert runs.check() == []


def test_a_small_folder_has_no_index(runs: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(index, "LEAST", 21)
    assert len(runs.check()) == len(runs.check()) == 20 and files(tmp_path) == []


def test_a_folder_that_is_not_there(runs: Folder, tmp_path: Path) -> None:
    for path in (tmp_path / "none", runs.run() / FILE):
        assert index.load_lines(path) == index.load_slim(path) == ([], [])


def test_the_user_is_told_once_why_it_takes_long(runs: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MANY", 1)
    told: list[int] = []
    index.load_lines(runs.path, lambda: told.append(1))
    assert told
    told.clear()
    index.load_lines(runs.path, lambda: told.append(1))
    assert not told


BUILD = """
import sys
from pathlib import Path
from bench.records import index
index.LEAST, index.SETTLED_NS = 1, -10**9
sys.stdin.readline()
for _ in range(5):
    index._key.cache_clear()
    print([run.run_id for run in index.load_lines(Path(sys.argv[1]))[0]])
"""


def test_two_commands_build_it_at_once(runs: Folder, tmp_path: Path) -> None:
    names = sorted(path.name for path in runs.path.iterdir())
    command = [sys.executable, "-c", BUILD, str(runs.path)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        assert process.communicate()[0].splitlines() == [str(names)] * 5 and process.returncode == 0
    assert runs.check() == []
    assert not [file for file in files(tmp_path) if file.suffix == ".tmp"]
