"""Backbones of the hub: a real client against a hub on this machine, whole, in part, and failing."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file
from small_hub import CUT, served

from bench.backbones import open_backbone
from bench.backbones.image_networks import Timm, TimmConfig
from bench.backbones.text_encoders import from_folder
from bench.core import hub
from bench.core.errors import EnvironmentProblem, UsageError

NAME, COMMIT = "owner/tiny", "0123456789abcdef0123456789abcdef01234567"
Failures = dict[str, Any]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache of the hub, and a client that does not wait before it tries again."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(hub, "_failed", {})
    hub.connection_error.cache_clear()
    yield tmp_path / "hub"
    hub.connection_error.cache_clear()


@pytest.fixture
def files(tiny_bert: Path) -> dict[str, bytes]:
    """A repository: two shards, a tokenizer, and pickled weights that nobody wants."""
    kept = {file.name: file.read_bytes() for file in tiny_bert.iterdir() if file.suffix == ".json"}
    weights = load_file(tiny_bert / "model.safetensors")
    names = dict.fromkeys(sorted(weights), "model-1.safetensors") | dict.fromkeys(
        sorted(weights)[::2], "model-2.safetensors"
    )
    kept["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": names}).encode()
    from safetensors.torch import save

    for shard in set(names.values()):
        kept[shard] = save({key: weights[key] for key in weights if names[key] == shard}, metadata={"format": "pt"})
    return {**kept, "pytorch_model.bin": b"pickle"}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Start a hub with these files; what it is asked is returned. The client's constants stand for its environment."""
    with contextlib.ExitStack() as stack:

        def start(files: dict[str, bytes], repository: str = NAME, **failures: Any) -> list[str]:
            address, asked = stack.enter_context(served(files, repository=repository, commit=COMMIT, **failures))
            monkeypatch.setenv("HF_ENDPOINT", address)
            monkeypatch.setattr(constants, "ENDPOINT", address)
            monkeypatch.setattr(
                constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
            )
            hub.connection_error.cache_clear()
            return asked

        yield start


def in_cache(cache: Path, files: dict[str, bytes], repository: str = NAME) -> Path:
    """The layout of the hub's cache, as a client leaves it that was asked for these files alone."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    return snapshot


def test_a_sharded_model_is_fetched_whole_and_found_again(files, serve, tmp_path, monkeypatch):
    asked = serve(files)
    backbone = open_backbone(NAME)
    assert any(path.endswith("index.json") for path in asked)
    assert not any(path.endswith(".bin") for path in asked)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert backbone.weights_hash == from_folder("b", tmp_path).weights_hash
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    count = len(asked)
    assert open_backbone(NAME).weights_hash == backbone.weights_hash and len(asked) == count


def test_the_client_s_own_environment_is_enough(files, tmp_path):
    script = f"from bench.backbones import open_backbone; print(open_backbone({NAME!r}).weights_hash)"
    with served(files, repository=NAME) as (address, _):
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert done.stdout.split() == [from_folder("b", tmp_path).weights_hash], done.stderr


PARTS = {
    "config.json": lambda name: name.startswith("tokenizer"),
    "all of its weights": lambda name: name != "model-2.safetensors",
    "a tokenizer": lambda name: not name.startswith("tokenizer"),
}


@pytest.mark.parametrize("missing", PARTS)
def test_a_part_in_the_cache_does_not_hide_the_hub(missing, files, serve, cache, monkeypatch):
    part = {name: content for name, content in files.items() if PARTS[missing](name)}
    in_cache(cache, part)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EnvironmentProblem, match=f"holds a part of it, without {missing}; HF_HUB_OFFLINE is set"):
        open_backbone(NAME)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    serve(files, failures={"/api/": 503})
    with pytest.raises(EnvironmentProblem, match=f"holds a part of it, without {missing}; the hub answered .* 503"):
        open_backbone(NAME)
    serve(files)
    assert open_backbone(NAME).parameters


def test_a_listed_file_that_is_not_in_the_cache_is_named(files, serve, cache, monkeypatch):
    serve(files)
    open_backbone(NAME)
    (cache / "models--owner--tiny" / "snapshots" / COMMIT / "model-2.safetensors").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EnvironmentProblem, match=r"HF_HUB_OFFLINE is set") as caught:
        open_backbone(NAME)
    assert "model-2.safetensors" in caught.value.known or "all of its weights" in caught.value.known


@pytest.mark.parametrize(
    ("failures", "reason"),
    [
        ({"/resolve/": (403, "GatedRepo")}, "'owner/tiny' is gated: accept its terms"),
        ({"/api/": (401, "RepoNotFound")}, "the hub has no 'owner/tiny', or it is private"),
        ({"/api/": (404, "RevisionNotFound")}, "the hub's 'owner/tiny' has no such revision"),
        ({"/api/": 429}, "the hub answered with HTTP status 429 (too many requests)"),
        ({"/tree/": 429}, "the hub answered with HTTP status 429 (too many requests)"),
        ({"/api/": 503}, "the hub answered with HTTP status 503"),
        ({"model-1.safetensors": 500}, "the hub answered with HTTP status 500"),
        ({"model-1.safetensors": CUT}, "the hub failed: "),
    ],
)
@pytest.mark.parametrize("kind", ["text", "timm"])
def test_what_the_hub_refuses_is_one_sentence(failures, reason, kind, files, serve):
    if kind == "text":
        serve(files, failures=failures)
        with pytest.raises(EnvironmentProblem) as caught:
            open_backbone(NAME)
    else:
        name = "timm/test_vit.r160_in1k"
        failures = {"/resolve/": next(iter(failures.values()))}
        serve({"model.safetensors": b"0" * 100}, name, failures=failures)
        with pytest.raises(EnvironmentProblem) as caught:
            Timm().open("timm:test_vit", TimmConfig(pretrained=True))
    assert reason.replace("owner/tiny", "timm/test_vit.r160_in1k" if kind == "timm" else NAME) in caught.value.known
    assert len(caught.value.known.splitlines()) == 1 and caught.value.todo


@pytest.mark.parametrize("name", [NAME, "timm:test_vit"])
def test_a_hub_that_is_gone_is_said_and_not_the_state_of_the_cache(name, serve, monkeypatch):
    serve({})
    monkeypatch.setattr(hub, "unreachable", lambda: "")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/{{revision}}/{{filename}}"
        )
        with pytest.raises(EnvironmentProblem, match=r"the hub failed: ConnectError: .*refused"):
            open_backbone(name, None if name == NAME else TimmConfig(pretrained=True))


def test_a_gated_data_set_is_one_sentence_too(serve):
    serve({}, kind="datasets", failures={"/api/": (403, "GatedRepo")})
    with pytest.raises(hub.HubUnavailable, match=r"^the hub's 'owner/tiny' is gated: accept its terms"):
        hub.load_tables(hub.HubDataset(name=NAME))


def test_a_name_like_a_registered_one_is_looked_up_first(files, serve, cache, monkeypatch):
    """`roberta-base` resembles `bert`."""
    in_cache(cache, files, "roberta-base")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert open_backbone("roberta-base").parameters
    with pytest.raises(
        UsageError, match=r"not there(?s:.*)known backbones: .*HF_HUB_OFFLINE(?s:.*)Did you mean 'bert'"
    ):
        open_backbone("roberta-bas")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    serve(files, "minlm")
    assert open_backbone("minlm").parameters


def test_a_repository_without_safetensors_says_what_to_do(files, serve):
    serve({name: content for name, content in files.items() if "safetensors" not in name})
    with pytest.raises(EnvironmentProblem, match=r"no safetensors weights(?s:.*)Convert it"):
        open_backbone(NAME)
