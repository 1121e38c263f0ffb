"""What is done of a compression, stage by stage, so that one that was stopped goes on where it was."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from effivlm.data.places import write_json

PLAN = "plan.json"
FULL = (errno.ENOSPC, errno.EDQUOT)


class Journal:
    """A folder with one file a finished stage; it belongs to one plan, which `facts` say.

    Raises:
        ValueError: the folder is that of another plan, or holds files and no plan.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        with room(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / PLAN).exists():
                if others := sorted(path.name for path in folder.iterdir() if not path.name.startswith(PLAN)):
                    raise ValueError(f"{folder} is needed, but holds {others[0]} and no {PLAN}: move that away first")
                write_json(folder / PLAN, facts)
        try:
            known = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{folder / PLAN} is damaged ({error}): remove the folder to start anew") from None
        if known != json.loads(json.dumps(facts)):
            differing = sorted(name for name in {*known, *facts} if known.get(name) != facts.get(name))
            raise ValueError(
                f"{folder} holds a compression that was begun otherwise ({', '.join(differing)}): remove it to start anew"
            )
        for rest in folder.glob("*.part"):
            rest.unlink()

    def stored(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of a stage; None where it is not done.

        Raises:
            ValueError: its file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        path = self._path(stage)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts: dict[str, Any] = json.loads(file.metadata()["facts"])
                return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): remove it, and run again") from error

    def store(self, stage: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        write_tensors(self._path(stage), tensors, {"facts": json.dumps(facts)})

    def remove(self) -> None:
        """Take the folder away, the plan last: what a kill leaves of it is still known as its own."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != PLAN:
                path.unlink()
        shutil.rmtree(self.folder)

    def leave(self) -> None:
        """Take the folder away if nothing in it is done: there is nothing to go on with, and another plan may want its place."""
        if all(path.name.startswith(PLAN) for path in self.folder.iterdir()):
            self.remove()

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file of tensors completely or not at all.

    Raises:
        OSError: the disk is full, or the file cannot be written; names the folder or the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = path.with_name(path.name + ".part")
    with room(path.parent):
        try:
            save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, part, dict(metadata))
            part.chmod(0o644)  # safetensors lets the owner alone read
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written ({error}): what is done stays there; run again") from error
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """A disk that is full inside is said in one sentence."""
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) in FULL or any(os.strerror(number) in str(error) for number in FULL):
            raise OSError(
                errno.ENOSPC, f"the disk of {folder} is full: what is done stays there; make room and run again"
            ) from error
        raise


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other process works on this folder; one that comes later waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
