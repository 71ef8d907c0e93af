"""Pictures from the Hugging Face hub: the local cache first, then the network if it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.core.hub import HubDataset, cached_snapshot, unreachable
from bench.core.hub import HubUnavailable as NoHub
from tasks.images.tables import Part, Tables, parquet, table
from tasks.io.readers import is_complete_set as full_set


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A data set on the hub.

    Attributes:
        name: `owner/name`, or the path of a folder laid out like one.
        revision: commit, or a branch where no commit is known to be right.
        config: the configuration's name.
        splits: name of a split on the hub → ours.
    """

    name: str
    revision: str = "main"
    config: str = "default"
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return len(self.revision) == 40


def read_repository(repository: Repository, classes: tuple[str, ...]) -> Tables:
    """Its tables.

    Raises:
        NoHub: not in the cache, and no network or no answer.
        DataProblem: a table is not what was expected.
    """
    parts = _cached(repository) if repository.pinned else []
    revision = repository.revision
    if not parts:
        parts, revision = _download(repository)
    place = f"{repository.name}@{revision[:7]}"
    return Tables(place, parts, f"{repository.name}\0{repository.config}\0{revision}", classes)


def _cached(repository: Repository) -> list[Part]:
    """The Parquet files that the hub's own library keeps of this very commit; empty if a split is not complete."""
    folder = cached_snapshot(HubDataset(name=repository.name, revision=repository.revision))
    return find_parquet(folder / repository.config, repository.splits) if folder else []


def find_parquet(folder: Path, splits: Mapping[str, str]) -> list[Part]:
    """Parquet files of all splits in a folder, shards in order; empty if one is missing.

    Raises:
        DataProblem: a file is no Parquet file.
    """
    found = {name: sorted([*folder.glob(f"{name}.parquet"), *folder.glob(f"{name}-*.parquet")]) for name in splits}
    if not all(files and full_set(files) for files in found.values()):
        return []
    return [parquet(file, splits[name]) for name, files in found.items() for file in files]


def _download(repository: Repository) -> tuple[list[Part], str]:
    """Tables through `datasets`, which keeps them memory-mapped in its cache, and the commit they are of."""
    local = Path(repository.name).is_dir()
    if not local:
        if _failures:
            raise NoHub(_failures[0])
        if reason := unreachable():
            raise NoHub(f"no network: {reason}")
    import datasets

    try:
        revision = None if local else _commit(repository)
        loaded = datasets.load_dataset(repository.name, repository.config, revision=revision)
        parts = [
            table(_undecoded(dict(loaded)[name]), split, f"{repository.name}, {name}")
            for name, split in repository.splits.items()
        ]
    except Exception as error:  # the hub's libraries raise dozens of kinds, none of them ours to mend
        first = (str(error).strip() or "no message").splitlines()[0]
        why = f"the hub failed: {type(error).__name__}: {first}"
        if not local:
            _failures.append(why)
        raise NoHub(why) from error
    return parts, revision or "local"


def _undecoded(data: object) -> object:
    """The Arrow table behind a split, images as the bytes of their files."""
    import datasets

    assert isinstance(data, datasets.Dataset)
    return data.with_format("arrow")[:]


def _commit(repository: Repository) -> str:
    if repository.pinned:
        return repository.revision
    import huggingface_hub

    return str(huggingface_hub.HfApi().dataset_info(repository.name, revision=repository.revision).sha)


_failures: list[str] = []
"""Why a download failed in this process: the libraries retry for long, so that eighteen more tasks do not ask again."""
