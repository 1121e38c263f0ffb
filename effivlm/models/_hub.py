"""Repositories of the model hub: `owner/name@revision` becomes one folder of one commit.

What is small (configuration, processor, tokenizer, templates) is brought when a run is planned, weights when the model is opened,
both into the hub's own cache: a download that broke goes on with the files that are missing, and what is there needs no network.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from effivlm.records import fingerprint

ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
FACTS = ["*.json", "*.jinja", "*.txt", "*.model"]
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
REACH_S = 2.5
"""A hub that takes no connection within this time counts as out of reach."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit of a repository, in a folder of the hub's cache."""

    repository: str
    commit: str
    folder: Path


def snapshot(name: str, wanted: str, known: Sequence[str] = ()) -> Snapshot:
    """What is small of `owner/name[@revision]`, from the hub or, where it cannot be reached, from its cache.

    Without a revision that is the main branch. `known` are repositories that a misspelt one may have meant.

    Raises:
        ValueError: no such repository or revision, a repository behind a licence, a hub that is out of reach or says something
            else, a full disk; one sentence with what to do.
    """
    repository, _, revision = wanted.partition("@")
    folder = _bring(name, repository, revision or "main", FACTS, known)
    return Snapshot(repository, folder.name, folder)


def identity(repository: str, commit: str, folder: Path) -> str:
    """A fingerprint of a snapshot: its commit, and what says how the model is asked and answers (its template, its processor, its
    generation configuration, its tokenizer), since files in a cache can be edited."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".jinja"))
    return _identity(repository, commit, tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))


@cache
def _identity(repository: str, commit: str, files: tuple[tuple[Path, int, int], ...]) -> str:
    """Read once per state of the folder: every cell asks for it."""
    facts = {path.name: path.read_text(encoding="utf-8", errors="replace") for path, *_ in files}
    return fingerprint({"repository": repository, "commit": commit, **facts})


def whole(name: str, wanted: str) -> Path:
    """The folder of `owner/name[@revision]` with all of its weights.

    Raises:
        ValueError: as `snapshot` and `bring_weights`.
    """
    shot = snapshot(name, wanted)
    bring_weights(name, shot.repository, shot.commit, shot.folder)
    return shot.folder


def bring_weights(name: str, repository: str, commit: str, folder: Path) -> None:
    """Download what is still missing of a snapshot's safetensors files.

    Raises:
        ValueError: as `snapshot`; or the repository holds no safetensors file (pickled weights are not loaded).
    """
    if missing(folder):
        _bring(name, repository, commit, [*FACTS, *files(folder)], ())
    if gone := missing(folder):
        raise ValueError(
            f"model {name!r}: {repository} holds no {gone[0]} at {commit[:12]} (pickled weights are not loaded)"
        )


def missing(folder: Path) -> list[str]:
    """Safetensors files of a checkpoint's folder that are not there."""
    return [file for file in files(folder) if not (folder / file).is_file()]


def files(folder: Path) -> list[str]:
    """The safetensors files that a checkpoint is made of: those of its index, or the one file."""
    index = folder / INDEX
    if not index.is_file():
        return [WEIGHTS]
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def _bring(name: str, repository: str, revision: str, patterns: list[str], known: Sequence[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    offline = bool(constants.HF_HUB_OFFLINE)
    reached = not offline and _reachable(constants.ENDPOINT)
    try:
        found = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=["*/*"],
            local_files_only=not reached,
        )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        failing = "answers with errors" if reached else "cannot be reached"
        mode = "HF_HUB_OFFLINE is set" if offline else f"the hub ({constants.ENDPOINT}) {failing}"
        raise ValueError(
            f"model {name!r}: {_shown(repository, revision)} is no folder here, not whole in the hub cache, and {mode};"
            f" download it first or give a folder"
        ) from None
    except HfHubHTTPError as error:
        raise ValueError(f"model {name!r}: {_refused(error, repository, revision, known)}") from None
    except OSError as error:
        raise ValueError(f"model {name!r}: {_broken(error, repository, Path(constants.HF_HUB_CACHE))}") from None
    except Exception as error:  # transport errors of the client's own library, none of which are OSErrors
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpcore", "requests"):
            raise
        raise ValueError(
            f"model {name!r}: the connection to the hub broke while {repository} was fetched ({type(error).__name__}); start"
            f" again, files that have arrived are kept"
        ) from None
    return Path(found)


def _shown(repository: str, revision: str) -> str:
    return repository if revision == "main" else f"{repository}@{revision}"


def _refused(error: Exception, repository: str, revision: str, known: Sequence[str]) -> str:
    """What the hub's refusal means, and what helps."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return (
            f"{repository} is gated: accept its terms on its page, then log in with `hf auth login` (or set HF_TOKEN)"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} has no revision {revision!r}: give a branch, a tag or a commit"
    if isinstance(error, RepositoryNotFoundError):
        near = get_close_matches(repository, known, n=1, cutoff=0.8)
        hint = f" Did you mean {near[0]}?" if near and near[0] != repository else ""
        return f"{repository} is no folder here and no hub repository you can read.{hint} A private one needs `hf auth login`"
    status = getattr(getattr(error, "response", None), "status_code", "an error")
    return f"the hub answered {status} when asked for {_shown(repository, revision)}; try again later"


def _broken(error: OSError, repository: str, cache: Path) -> str:
    if error.errno in NO_ROOM:
        return (
            f"no room for {repository} in {cache} ({error.strerror}, {free_bytes(cache) / 1e9:.1f} GB free): make room or set"
            f" HF_HOME to another disk, then start again; files that have arrived are kept"
        )
    return f"{repository} could not be fetched ({type(error).__name__}: {_line(error)})"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def free_bytes(place: Path) -> int:
    """Free bytes of the disk that `place` lies on or will."""
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _reachable(endpoint: str) -> bool:
    """Whether the hub, or the proxy in front of it, takes a connection soon.

    Asked beforehand, in a thread that is not waited for: resolving a name has no time limit of its own.
    """
    where = urlsplit(endpoint)
    proxies = {} if proxy_bypass(where.hostname or "") else getproxies()
    if proxy := proxies.get(where.scheme) or proxies.get("all"):
        where = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = where.port or {"http": 80, "https": 443}.get(where.scheme, 80)
    taken: list[bool] = []

    def knock() -> None:
        try:
            socket.create_connection((where.hostname, port), timeout=REACH_S).close()
        except OSError:
            return
        taken.append(True)

    thread = Thread(target=knock, daemon=True)
    thread.start()
    thread.join(REACH_S)
    return bool(taken)
