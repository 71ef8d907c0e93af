"""Access to the Hugging Face hub: is it reachable, what of a dataset is in the local cache, and downloads.

Callers look into the cache first (`cached_snapshot`), then ask the network (`load_tables`, or their own calls inside
`hub_access`). All failures raise `HubUnavailable`.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench.core.errors import BenchError, EnvironmentProblem

if TYPE_CHECKING:
    import pyarrow as pa

TIMEOUT_S = 4.0  # in which a server must answer, name look-up included
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


class HubUnavailable(EnvironmentProblem):
    """The hub cannot be reached, or a download failed; `what` is the reason in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """A dataset on the hub.

    Attributes:
        name: `owner/name`, or a local folder laid out like a repository.
        config: None is the default one.
        revision: commit, tag or branch.
    """

    name: str
    config: str | None = None
    revision: str = "main"

    @property
    def is_local(self) -> bool:
        """Whether `name` is a folder on this machine."""
        return Path(self.name).expanduser().is_dir()

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, whose content never changes."""
        return re.fullmatch(r"[0-9a-f]{40}", self.revision) is not None


def cached_snapshot(dataset: HubDataset) -> Path | None:
    """Return the folder of the hub's cache with this commit's files, those asked for so far; None if there is none."""
    if not dataset.is_pinned or dataset.is_local:
        return None
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repository = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=dataset.name, repo_type="dataset")
    folder = repository / "snapshots" / dataset.revision
    return folder if folder.is_dir() else None


def commit_of(dataset: HubDataset) -> str:
    """Return the commit that the revision stands for now; asks the hub unless it is a commit itself."""
    if dataset.is_pinned:
        return dataset.revision
    with hub_access(dataset):
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(dataset.name, revision=dataset.revision, timeout=10).sha)


def load_tables(dataset: HubDataset) -> tuple[dict[str, pa.Table], str]:
    """Return the Arrow table of every split, memory-mapped, and the commit ("local" for a local folder).

    Images stay encoded. `datasets` keeps what it downloads in its own cache. A download that failed is not repeated.
    """
    owner = dataset.name.partition("/")[0]
    if owner in _failed:
        raise HubUnavailable(_failed[owner])
    try:
        with hub_access(dataset):
            import datasets

            revision = None if dataset.is_local else commit_of(dataset)
            loaded = datasets.load_dataset(dataset.name, dataset.config, revision=revision)
            tables = {str(name): split.with_format("arrow")[:] for name, split in dict(loaded).items()}
    except HubUnavailable as error:
        if not dataset.is_local and not unreachable():
            _failed[owner] = error.what
        raise
    return tables, revision or "local"


_failed: dict[str, str] = {}
"""Owner → reason of the first failure: the libraries retry for long, so the owner's other datasets do not ask again."""


@contextlib.contextmanager
def hub_access(dataset: HubDataset) -> Generator[None]:
    """Run a block that calls the hub's libraries, and turn whatever they raise into `HubUnavailable`.

    The block does not run if the network is needed and cannot be reached. Errors of this project pass unchanged.
    """
    if not dataset.is_local and (reason := unreachable()):
        raise HubUnavailable(f"no network: {reason}")
    try:
        yield
    except BenchError:
        raise
    except Exception as error:  # the hub's libraries raise dozens of kinds
        first = (str(error).strip() or "no message").splitlines()[0]
        what = "reading the folder" if dataset.is_local else "the hub"
        raise HubUnavailable(f"{what} failed: {type(error).__name__}: {first}") from error


def cached_or_fetched(fetch: Callable[..., str], complete: Callable[[Path], bool] = lambda path: True) -> Path:
    """Return the path of files in the hub's cache, and download them where they are not there.

    `fetch` is `hf_hub_download` or `snapshot_download` with its arguments; `complete` tells whether the files in the
    cache are enough.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(fetch(local_files_only=True))
        if complete(path):
            return path
    except HFValidationError as error:
        raise HubUnavailable(str(error)) from error
    except LocalEntryNotFoundError:
        pass
    if reason := unreachable():
        raise HubUnavailable(f"it is not in the hub's cache; {reason}")
    try:
        return Path(fetch(local_files_only=False))
    except (HfHubHTTPError, OSError) as error:
        raise HubUnavailable(str(error).splitlines()[0]) from error


def unreachable() -> str:
    """Return why the Hugging Face hub (`HF_ENDPOINT`) cannot be reached, or an empty string."""
    for name in OFFLINE:
        if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{name} is set"
    return connection_error((os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"))


@cache
def connection_error(endpoint: str) -> str:
    """Return why a server cannot be reached, or an empty string; asked once per process."""
    host = urlsplit(endpoint).hostname or endpoint
    answer: list[str] = []
    # a name look-up has no time limit, so it runs in a thread that is abandoned if need be
    thread = threading.Thread(target=lambda: answer.append(_request(endpoint)), daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    reason = answer[0] if answer else f"no answer within {TIMEOUT_S:g} s"
    return f"{host}: {reason}" if reason else ""


def _request(endpoint: str) -> str:
    """Return an empty string if the host answers with any status but a failure of its own, else the reason."""
    try:
        with urllib.request.urlopen(endpoint, timeout=TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 else f"HTTP status {error.code}"
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__
