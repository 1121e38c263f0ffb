"""From what a user asked for to a checkpoint and its family, before anything heavy is imported."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from effivlm.models import _hub
from effivlm.models._content import folder_digest, unread_bytes
from effivlm.records import fingerprint
from effivlm.registry import declared, names, unknown

PACKAGE = "package:"
RANDOM = "random:"
CONVERT = "convert:"
SUMS = "SHA256SUMS"
SHAPES = Path(__file__).parent / "shapes"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A checkpoint: the name in case ids, a folder (or `random:SHAPE`), and the family file that loads it.

    A repository of the hub is the folder of one of its commits; both stand beside it then.
    """

    name: str
    source: str
    family: str
    repository: str = ""
    commit: str = ""

    def to_json(self) -> dict[str, str]:
        """What a run's record says of it: the repository and its commit, or the folder or shape."""
        if self.commit:
            return {"repository": self.repository, "commit": self.commit, "family": self.family}
        return {"source": self.source, "family": self.family}

    @property
    def identity(self) -> str:
        """A fingerprint of the checkpoint: all bytes of its files; of a folder of the hub its commit, which names them."""
        if self.source.startswith(RANDOM):
            return fingerprint({"random": shape(self.source.removeprefix(RANDOM))})
        folder = Path(self.source)
        if self.commit:
            return _hub.identity(self.repository, self.commit, folder)
        return fingerprint({"content": folder_digest(folder)})


def unread(source: ModelSource) -> int:
    """Bytes of a folder that its identity has to read first, because nobody did yet; 0 for anything else."""
    folder = Path(source.source)
    return unread_bytes(folder) if folder.is_dir() and not getattr(source, "commit", "") else 0


def bring(source: ModelSource) -> None:
    """Download the weights of a repository that are not here yet; nothing to do for a folder.

    Raises:
        ValueError: they cannot be had, with what to do.
    """
    if source.commit:
        _hub.bring_weights(source.name, source.repository, source.commit, Path(source.source))


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

    A named checkpoint, with `@REVISION` behind it if it is a repository; `NAME=FOLDER_OR_HUB_ID`; a folder or a hub id
    (`owner/name` or `owner/name@revision`; its last part becomes the name); or `random:SHAPE`, real sizes with random weights.

    Raises:
        ValueError: unknown name, missing folder, a folder without a usable config.json or safetensors file, an architecture
            that no family file loads, a hub id that is neither cached nor reachable.
    """
    known = checkpoints()
    if value.startswith(RANDOM):
        name = value.removeprefix(RANDOM)
        return ModelSource(f"random_{name}", value, str(shape(name)["family"]))
    name, equals, source = value.partition("=")
    plain, at, revision = value.partition("@")
    if not equals and plain in known and not Path(value).exists():
        return _named(plain, *known[plain], at + revision)
    if not equals:
        if "/" not in value and not Path(value).is_dir():
            near = unknown("model", plain, sorted(known))
            raise ValueError(f"{near}; or give a folder, a hub id (owner/name), or NAME=FOLDER_OR_HUB_ID")
        name, source = Path(value if Path(value).is_dir() else plain).name, value
    name = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")
    if not name or not source:
        raise ValueError(f"model {value!r} names nothing; give NAME=FOLDER_OR_HUB_ID")
    if equals and name in known and not _may_be_called(known[name][0], source):
        raise ValueError(
            f"model name {name!r} is taken by the checkpoint {known[name][0]}; choose another name for {source}"
        )
    return _found(name, source, known[name][1] if equals and name in known else "")


def _named(name: str, source: str, family: str, revision: str) -> ModelSource:
    """A named checkpoint, of a repository at "@REVISION" where one is given."""
    if source.startswith(CONVERT):
        original = source.removeprefix(CONVERT)
        raise ValueError(
            f"model {name!r}: {original} is published in its authors' format alone; make a native checkpoint of it:"
            f" python -m effivlm convert {original} NEW_FOLDER, then --vlm-models {name}=NEW_FOLDER"
        )
    if revision and (source.startswith(PACKAGE) or not revision[1:]):
        raise ValueError(f"model {name + revision!r}: {name} has no revision {revision[1:]!r}; give {name} alone")
    return _found(name, source + revision, family)


def _may_be_called(known: str, source: str) -> bool:
    """Whether a name that stands for `known` may be given to `source`: to the same repository, or to what was converted."""
    return known.startswith(CONVERT) or source.partition("@")[0] == known


def _found(name: str, source: str, family: str) -> ModelSource:
    """Locate the checkpoint and make sure that a family loads it."""
    if source.startswith(PACKAGE):
        source = str(_packaged(name, source.removeprefix(PACKAGE)))
    folder = Path(source).expanduser()
    if not (folder.is_absolute() or source.startswith((".", "~")) or folder.exists()) and _hub.ID.fullmatch(source):
        shot = _hub.snapshot(name, source, [known for known, _ in checkpoints().values() if "/" in known])
        data = _config(name, shot.folder, source)
        return ModelSource(name, str(shot.folder), _family(name, source, data, family), shot.repository, shot.commit)
    if not folder.is_dir():
        raise ValueError(f"model {name!r}: folder {folder} does not exist")
    kind = _family(name, str(folder), _config(name, folder, str(folder)), family)
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"model {name!r}: {folder} holds no *.safetensors file (pickled weights are not loaded)")
    return ModelSource(name, str(folder), kind)


def _config(name: str, folder: Path, shown: str) -> dict[str, Any]:
    """config.json of a checkpoint's folder."""
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"model {name!r}: {shown} holds no config.json, so it is no transformers checkpoint") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"model {name!r}: config.json in {shown} is not readable JSON ({error})") from None
    if not isinstance(data, dict):
        raise ValueError(f"model {name!r}: config.json in {shown} holds no object but {type(data).__name__}")
    return data


def _family(name: str, source: str, config: dict[str, Any], expected: str = "") -> str:
    kinds = {str(declared("models", family)["model_type"]): family for family in names("models")}
    kind = str(config.get("model_type"))
    if kind in originals():
        raise ValueError(
            f"model {name!r}: {source} is in the format {kind!r} of its authors, which runs only with their code; make a native"
            f" checkpoint of it: python -m effivlm convert {source} NEW_FOLDER"
        )
    if kind not in kinds:
        raise ValueError(f"model {name!r}: {source} is of type {kind!r}; supported: {', '.join(sorted(kinds))}")
    if expected and kinds[kind] != expected:
        raise ValueError(f"model {name!r}: {source} is of type {kind!r}, but {expected} was declared")
    return kinds[kind]


def originals() -> dict[str, str]:
    """Formats of authors that can be converted: model type -> module that knows how."""
    found: dict[str, str] = {}
    for family in names("models"):
        found |= declared("models", family).get("originals", {})
    return found


def _packaged(name: str, place: str) -> Path:
    package, _, inner = place.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"model {name!r} ships with the package {package}, which is not installed: pip install -e .")
    return Path(next(iter(spec.submodule_search_locations))) / inner
