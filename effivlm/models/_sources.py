"""From what a user asked for to a checkpoint and its family, before anything heavy is imported."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from effivlm.models._content import folder_digest, unread_bytes
from effivlm.records import fingerprint
from effivlm.registry import declared, names, unknown

PACKAGE = "package:"
RANDOM = "random:"
SUMS = "SHA256SUMS"
SHAPES = Path(__file__).parent / "shapes"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A checkpoint: the name in case ids, a folder or hub id, and the family file that loads it."""

    name: str
    source: str
    family: str

    @property
    def identity(self) -> str:
        """A fingerprint of the checkpoint: all bytes of its files; of a folder of the hub its commit, which names them."""
        if self.source.startswith(RANDOM):
            return fingerprint({"random": shape(self.source.removeprefix(RANDOM))})
        folder = Path(self.source)
        if not folder.is_dir():
            return fingerprint({"hub": self.source})
        return fingerprint({"content": folder_digest(folder)})


def unread(source: ModelSource) -> int:
    """Bytes of a folder that its identity has to read first, because nobody did yet; 0 for anything else."""
    folder = Path(source.source)
    return unread_bytes(folder) if folder.is_dir() and not getattr(source, "commit", "") else 0


def verify(source: ModelSource) -> None:
    """Compare the files of a folder with its SHA256SUMS (as `sha256sum` writes it), where it has one.

    Raises:
        ValueError: a listed file is missing or differs; names it.
    """
    folder = Path(source.source)
    sums = folder / SUMS
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        file = folder / name
        if not file.is_file():
            raise ValueError(f"model {source.name!r}: {file} is missing, but {SUMS} lists it")
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != expected:
            raise ValueError(f"model {source.name!r}: {file} is damaged or was changed: it does not match {SUMS}")


def shapes() -> list[str]:
    """Names of the real shapes that ship as configurations."""
    return sorted(path.stem for path in SHAPES.glob("*.json"))


@cache
def shape(name: str) -> dict[str, Any]:
    """One shape's facts: family, parameters, bytes of cache a token in bfloat16, configuration, processor.

    Raises:
        ValueError: there is no such shape; names all.
    """
    if name not in shapes():
        raise ValueError(f"{unknown('shape', name, shapes())} (for {RANDOM}SHAPE)")
    found: dict[str, Any] = json.loads((SHAPES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def checkpoints() -> dict[str, tuple[str, str]]:
    """All named checkpoints: name -> (source, family)."""
    found: dict[str, tuple[str, str]] = {}
    for family in names("models"):
        for name, source in declared("models", family).get("checkpoints", {}).items():
            if name in found:
                raise ValueError(f"model {name!r} is declared by {found[name][1]} and by {family}")
            found[name] = (source, family)
    return found


def resolve(value: str) -> ModelSource:
    """Turn a `--vlm-models` value into a checkpoint.

    A named checkpoint; `name=FOLDER_OR_HUB_ID`; a folder or hub id (its last part becomes the name); or `random:SHAPE`, real
    sizes with random weights.

    Raises:
        ValueError: unknown name, missing folder, a folder without a usable config.json or safetensors file, an architecture
            that no family file loads, a hub id that is neither cached nor reachable.
    """
    known = checkpoints()
    if value.startswith(RANDOM):
        name = value.removeprefix(RANDOM)
        return ModelSource(f"random_{name}", value, str(shape(name)["family"]))
    name, equals, source = value.partition("=")
    if not equals and value in known:
        return _found(value, *known[value])
    if not equals:
        if "/" not in value and not Path(value).is_dir():
            near = unknown("model", value, sorted(known))
            raise ValueError(f"{near}; or give a folder, a hub id (owner/name), or NAME=FOLDER_OR_HUB_ID")
        name, source = Path(value).name, value
    name = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")
    if not name or not source:
        raise ValueError(f"model {value!r} names nothing; give NAME=FOLDER_OR_HUB_ID")
    if equals and name in known and source != known[name][0]:
        raise ValueError(
            f"model name {name!r} is taken by the checkpoint {known[name][0]}; choose another name for {source}"
        )
    return _found(name, source, "")


def _found(name: str, source: str, family: str) -> ModelSource:
    """Locate the checkpoint and make sure that a family loads it."""
    if source.startswith(PACKAGE):
        source = str(_packaged(name, source.removeprefix(PACKAGE)))
    folder = Path(source).expanduser()
    looks_local = folder.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1 or folder.exists()
    if not looks_local:
        config = _hub_config(name, source)
        return ModelSource(
            name, source, family or _family(name, source, json.loads(config.read_text(encoding="utf-8")))
        )
    if not folder.is_dir():
        raise ValueError(f"model {name!r}: folder {folder} does not exist")
    try:
        config_text = (folder / "config.json").read_text(encoding="utf-8")
        data = json.loads(config_text)
    except FileNotFoundError:
        raise ValueError(
            f"model {name!r}: {folder} holds no config.json, so it is no transformers checkpoint"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"model {name!r}: {folder / 'config.json'} is not readable JSON ({error})") from None
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"model {name!r}: {folder} holds no *.safetensors file (pickled weights are not loaded)")
    return ModelSource(name, str(folder), _family(name, str(folder), data, family))


def _family(name: str, source: str, config: dict[str, object], expected: str = "") -> str:
    kinds = {str(declared("models", family)["model_type"]): family for family in names("models")}
    kind = str(config.get("model_type"))
    if kind not in kinds:
        raise ValueError(f"model {name!r}: {source} is of type {kind!r}; supported: {', '.join(sorted(kinds))}")
    if expected and kinds[kind] != expected:
        raise ValueError(f"model {name!r}: {source} is of type {kind!r}, but {expected} was declared")
    return kinds[kind]


def _packaged(name: str, place: str) -> Path:
    package, _, inner = place.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"model {name!r} ships with the package {package}, which is not installed: pip install -e .")
    return Path(next(iter(spec.submodule_search_locations))) / inner


def _hub_config(name: str, source: str) -> Path:
    """config.json of a hub id, from the cache or the network; one clear error when neither has it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(source, "config.json"))
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"model {name!r}: {source} is no folder and no hub repository you can read ({error})"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        mode = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") == "1" else "the hub cannot be reached"
        raise ValueError(
            f"model {name!r}: {source} is no folder here, not in the hub cache, and {mode}; download it first or give a folder"
            f" ({type(error).__name__})"
        ) from None
