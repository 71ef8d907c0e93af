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
        what = "reading the folder" if dataset.is_local else "the hub"
        raise HubUnavailable(_failure(error, dataset.name, what)) from error


def cached_or_fetched(
    fetch: Callable[..., str],
    name: str,
    *,
    revision: str,
    lacks: Callable[[Path], str] = lambda path: "",
    **what: object,
) -> Path:
    """Return the path of a model's files in the hub's cache, and download what is not there.

    Args:
        fetch: `hf_hub_download` or `snapshot_download`, which gets the rest.
        lacks: names what is missing at a path in the cache, an empty string where nothing is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(fetch(name, revision=revision, local_files_only=True, **what))
        if not (missing := lacks(path)):
            return path
        known = f"the hub's cache holds a part of it, without {missing}"
    except HFValidationError as error:
        raise HubUnavailable(str(error)) from error
    except LocalEntryNotFoundError as error:
        part = hasattr(error, "snapshot_path")  # of huggingface_hub 2, which then says what is missing
        known = f"{str(error).partition('). ')[0]})" if part else "it is not in the hub's cache"
    if reason := unreachable():
        raise HubUnavailable(f"{known}; {reason}")
    try:
        path = Path(fetch(name, revision=revision, local_files_only=False, **what))
        if lacks(path):  # the libraries return what is in the cache if the hub fails
            HfApi().model_info(name, revision=revision)
    except Exception as error:  # the hub's libraries raise dozens of kinds
        raise HubUnavailable(f"{known}; {_failure(error, name, 'the hub')}") from error
    return path


def _failure(error: BaseException, name: str, what: str) -> str:
    """Say in one sentence why a call of the hub's libraries failed; `name` is that of the repository."""
    from huggingface_hub import errors

    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case errors.GatedRepoError():
                return f"the hub's '{name}' is gated: accept its terms on its page, then log in with `hf auth login`"
            case errors.RepositoryNotFoundError():
                return f"the hub has no '{name}', or it is private and needs `hf auth login`"
            case errors.RevisionNotFoundError():
                return f"the hub's '{name}' has no such revision"
            case errors.EntryNotFoundError() if isinstance(cause, errors.HfHubHTTPError):
                return f"the hub's '{name}' has no such file"
            case errors.HfHubHTTPError():
                status = cause.response.status_code
                return f"the hub answered with HTTP status {status}{' (too many requests)' if status == 429 else ''}"
            case errors.LocalEntryNotFoundError() if cause.__cause__:
                error = cause = cause.__cause__  # what the library says of its own cache is no reason
            case _:
                cause = cause.__cause__ or cause.__context__
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{what} failed: {type(error).__name__}: {first}"


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
