"""What the hub says about a set: its files, their sizes and hashes, under the first of its homes that answers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from effivlm.data.source import Source

TIMEOUT_S = 10.0
_SPLITS = re.compile(r"(train|val|validation|test|testmini|testdev|dev)\b")
"""A table at the top without any of these words is the only one of its set."""


@dataclass(frozen=True, slots=True)
class File:
    """One published file: bytes, and its sha256 where the hub stores it as a large file ("" otherwise)."""

    size: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a set at one commit."""

    home: str
    commit: str
    files: Mapping[str, File]

    def wanted(self, source: Source) -> dict[str, File]:
        """The files that a source needs: its tables, and what its rows point to."""
        names = [name for config in source.configs for name in tables(source, config, list(self.files))]
        names += [name for name in self.files if any(fnmatchcase(name, pattern) for pattern in source.files)]
        return {name: self.files[name] for name in dict.fromkeys(names)}


def endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")


def listing(name: str, source: Source) -> Listing:
    """Ask the hub for the files of a set; homes are tried in order, so that a set that moved is found.

    Raises:
        ValueError: no home exists, it must be applied for, the pinned revision is gone, or there is no network; one sentence.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    api = HfApi(endpoint=endpoint())
    for home in source.homes:
        try:
            info = api.dataset_info(home, revision=source.revision, files_metadata=True, timeout=TIMEOUT_S)
        except Exception as error:
            if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
                continue
            if not (why := _refused(error, name, home, source.revision)):
                raise
            raise ValueError(f"task {name!r}: {why}") from None
        files = {one.rfilename: _file(one) for one in info.siblings or ()}
        return Listing(home, str(info.sha), files)
    tried = " nor ".join(source.homes)
    raise ValueError(f"task {name!r}: the hub knows neither {tried}: the set was moved or taken back, or needs a login")


def of_transport(error: Exception) -> bool:
    """Whether an error is one of the hub client's own transport library, which has changed twice; none of them is an OSError."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpcore", "requests")


def _refused(error: Exception, name: str, home: str, revision: str) -> str:
    """What an error of the hub means, and what helps; "" for one that is none of the hub's."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return f"{home} is given to accepted accounts only: accept its terms on the hub, then `hf auth login` (or set HF_TOKEN)"
    if isinstance(error, RevisionNotFoundError):
        return f"{home} has no revision {revision!r} any more: the set was changed by its owners"
    if isinstance(error, OfflineModeIsEnabled):
        return _unreachable(name, home, "HF_HUB_OFFLINE is set")
    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", "no status")
        return f"the hub answered {status} for {home}; try again later"
    builtin = type(error).__module__ == "builtins"
    if isinstance(error, ValueError | TypeError | KeyError) or not (builtin or of_transport(error)):
        return ""
    return _unreachable(name, home, "the hub cannot be reached")


def _file(one: object) -> File:
    large = getattr(one, "lfs", None)
    return File(int(getattr(one, "size", 0) or 0), str(getattr(large, "sha256", "") or "") if large else "")


def _unreachable(name: str, home: str, why: str) -> str:
    return (
        f"{home} is not on this machine and {why}; bring it with `python -m effivlm fetch {name}` where there is"
        " a network, or name a folder with --vlm-data DIR"
    )


def tables(source: Source, config: str, names: list[str]) -> list[str]:
    """Which of a set's files hold the rows of one config: of the first layout that any fits; [] where none does."""
    for pattern in _patterns(source.split, config):
        found = sorted(name for name in names if fnmatchcase(name, pattern) and not name.startswith("."))
        if found:
            return found
    alone = [name for name in names if name.endswith(".parquet") and "/" not in name and not _SPLITS.match(name)]
    return sorted(alone) if config == "default" else []


def _patterns(split: str, config: str) -> list[str]:
    """The layouts in which sets are published, the strictest first."""
    if config == "default":
        starts = ["data/", "default/", ""]
        last = [f"*/{split}-*.parquet"]
    else:
        starts = [f"{config}/", f"data/{config}/", f"{config}-"]
        last = [f"json/{config}.json", f"{config}.json", f"{config}.jsonl", f"{config}/*.parquet", f"{config}*.parquet"]
    ends = [f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet", f"{split}.jsonl", f"{split}.json"]
    return [start + end for start in starts for end in ends] + last
