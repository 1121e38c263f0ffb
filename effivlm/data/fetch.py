"""Bringing a published set to this machine once: size said beforehand, resumed where it broke, checked when it is whole."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effivlm.data import hub
from effivlm.data.places import MANIFEST, manifest, write_json
from effivlm.data.rows import UNFINISHED
from effivlm.data.source import Source

Say = Callable[[str], None]
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Bill:
    """What bringing a set means: its files at one commit, and how many bytes of them are not here yet."""

    home: str
    commit: str
    files: Mapping[str, hub.File]
    folder: Path
    missing: int

    @property
    def total(self) -> int:
        return sum(file.size for file in self.files.values())


def bill(name: str, sources: Sequence[Source], root: Path) -> Bill:
    """Ask the hub what the set of task `name` is made of. ValueError as `hub.listing`, or where it lacks a table."""
    listing = hub.listing(name, sources[0])
    for source in sources:
        for config in source.configs:
            if not hub.tables(source, config, list(listing.files)):
                raise ValueError(
                    f"task {name!r}: {listing.home} has no table of config {config!r} and split {source.split!r} at"
                    f" {listing.commit}: the set was changed by its owners"
                )
    files = {one: file for source in sources for one, file in listing.wanted(source).items()}
    folder = root / name
    done = _done(folder, listing.commit)
    missing = sum(file.size for one, file in files.items() if one not in done)
    return Bill(listing.home, listing.commit, files, folder, missing)


def fetch(name: str, sources: Sequence[Source], root: Path, say: Say) -> Path:
    """Bring the set of task `name` into `root/<name>`; returns that folder.

    What an earlier call brought of the same commit is not brought again. Until everything is there and checked, the folder is
    marked as half fetched and no run reads it.

    Raises:
        ValueError: as `bill`; no room, a connection that broke, a file that does not match its checksum; says what to do.
    """
    found = bill(name, sources, root)
    folder = found.folder
    if manifest(folder).get("commit") == found.commit and not found.missing:
        say(f"{name}: {found.home}@{found.commit[:12]} is here already: {folder}")
        return folder
    for line in _moved(name, manifest(folder), found):
        say(line)
    rest = f", {size_of(found.missing)} of them still to come" if found.missing != found.total else ""
    say(f"{name}: {found.home}@{found.commit[:12]}, {len(found.files)} files, {size_of(found.total)}{rest}")
    try:
        _bring_all(name, found, say)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        raise ValueError(
            f"task {name!r}: no room in {root} ({error.strerror}, {size_of(free)} free): make room, or name another folder;"
            " what has arrived is kept"
        ) from None
    say(f"{name}: complete and checked: {folder}")
    return folder


def _bring_all(name: str, found: Bill, say: Say) -> None:
    """What is missing, file by file; then the folder counts as whole."""
    folder = found.folder
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(name, found)
    done = sorted(_done(folder, found.commit))
    _mark(folder, found, done)
    for number, (one, file) in enumerate(found.files.items(), 1):
        if one not in done:
            say(f"  {number}/{len(found.files)} {one} ({size_of(file.size)})")
            _bring(name, found, one, file)
            done.append(one)
            _mark(folder, found, done)
    for gone in set(manifest(folder).get("files", ())) - set(found.files):
        (folder / gone).unlink(missing_ok=True)  # of an earlier commit; a run would read it as a part of the table
    files = {one: {"size": file.size, "sha256": file.sha256} for one, file in found.files.items()}
    write_json(folder / MANIFEST, {"home": found.home, "commit": found.commit, "files": files})
    (folder / UNFINISHED).unlink()
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _moved(name: str, before: Mapping[str, Any], found: Bill) -> Iterator[str]:
    """In words, what became of a set since it was fetched."""
    if before and before["home"] != found.home:
        yield f"{name}: it moved from {before['home']} to {found.home}"
    if before and before["commit"] != found.commit:
        yield (
            f"{name}: its owners changed it since it was fetched: {before['commit'][:12]} is {found.commit[:12]} now; name"
            f" {name}@{before['commit']} to stay with the former"
        )


def size_of(count: int) -> str:
    """Bytes as people say them: "95.0 GB"."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _mark(folder: Path, found: Bill, done: Sequence[str]) -> None:
    write_json(folder / UNFINISHED, {"home": found.home, "commit": found.commit, "done": sorted(done)})


def _done(folder: Path, commit: str) -> set[str]:
    """Files of this commit that are here, and were checked when they came."""
    whole = manifest(folder)
    if whole.get("commit") == commit:
        return {one for one in whole["files"] if (folder / one).is_file()}
    try:
        begun: dict[str, Any] = json.loads((folder / UNFINISHED).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return set()
    return {one for one in begun["done"] if (folder / one).is_file()} if begun["commit"] == commit else set()


def _check_room(name: str, found: Bill) -> None:
    free = shutil.disk_usage(found.folder).free
    if found.missing > free:
        raise ValueError(
            f"task {name!r}: {size_of(found.missing)} do not fit into {found.folder.parent}, where {size_of(free)} are free: make"
            " room, or name another folder"
        )


def _bring(name: str, found: Bill, one: str, file: hub.File) -> None:
    """One file, whole and checked; a torn one stays in the hub client's own folder and is gone on with."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    where: dict[str, Any] = {"repo_type": "dataset", "revision": found.commit, "local_dir": found.folder}
    try:
        path = Path(hf_hub_download(found.home, one, endpoint=hub.endpoint(), **where))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(f"task {name!r}: {one} was not given by the hub ({_line(error)}); {_AGAIN}") from None
    except OSError as error:
        if error.errno in NO_ROOM or type(error).__module__ == "builtins":
            raise
        raise ValueError(f"task {name!r}: the connection broke at {one} ({_line(error)}); {_AGAIN}") from None
    except Exception as error:
        if not hub.of_transport(error):
            raise
        raise ValueError(f"task {name!r}: the connection broke at {one} ({_line(error)}); {_AGAIN}") from None
    if path.stat().st_size != file.size or (file.sha256 and _sha256(path) != file.sha256):
        path.unlink()
        raise ValueError(f"task {name!r}: {one} arrived damaged and does not match its checksum; {_AGAIN}")


_AGAIN = "start the same command again, what has arrived is kept"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
