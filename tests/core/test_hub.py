"""Datasets of the hub: what the cache holds, and how failures are reported and remembered."""

from __future__ import annotations

import datasets
import pytest

from bench.core import hub
from bench.core.errors import UsageError
from bench.core.hub import HubDataset, HubUnavailable

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def reachable(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "unreachable", lambda: "")
    monkeypatch.setattr(hub, "_failed", {})


def test_only_a_commit_is_read_from_the_cache(tmp_path):
    folder = tmp_path / "datasets--owner--name" / "snapshots" / COMMIT
    assert hub.cached_snapshot(HubDataset(name="owner/name", revision=COMMIT)) is None
    folder.mkdir(parents=True)
    assert hub.cached_snapshot(HubDataset(name="owner/name", revision=COMMIT)) == folder
    assert hub.cached_snapshot(HubDataset(name="owner/name")) is None, "a branch may have moved"


def test_without_a_network_no_library_is_called(monkeypatch):
    monkeypatch.setattr(hub, "unreachable", lambda: "huggingface.co: no such host")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("called"))
    with pytest.raises(HubUnavailable, match=r"^no network: huggingface.co: no such host$"):
        hub.load_tables(HubDataset(name="owner/name", revision=COMMIT))


def test_a_failure_is_remembered_for_the_owner_alone(monkeypatch):
    calls = []

    def fail(name, *_, **__):
        calls.append(name)
        raise RuntimeError("no answer\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    for name in ("a/x", "a/y", "b/x"):
        with pytest.raises(HubUnavailable, match=r"^the hub failed: RuntimeError: no answer$"):
            hub.load_tables(HubDataset(name=name, revision=COMMIT))
    assert calls == ["a/x", "b/x"]


def test_errors_of_this_project_pass_unchanged():
    with pytest.raises(UsageError, match="mine"), hub.hub_access(HubDataset(name="owner/name")):
        raise UsageError("mine")
