"""`python -m effivlm convert SRC DST`: an authors' checkpoint becomes a native one, shard by shard, and only if it fits exactly.

Names and shapes are compared with the native model before anything is written: none missing, none left over. One shard is held
at a time. All is written into a folder beside the target that gets its name at the end; what a killed conversion left there is
taken away by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from effivlm.models import _hub
from effivlm.models._sources import originals
from effivlm.models._torchvision import ensure_torchvision

LOCK = "converting.lock"
SHOWN = 3
Shapes = dict[str, tuple[int, ...]]


def folder_of(given: str) -> Path:
    """The folder of that name, or what a hub repository (`owner/name[@revision]`) holds, fetched as far as it is not here.

    Raises:
        ValueError: there is no such folder, or the repository cannot be had.
    """
    folder = Path(given).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or not _hub.ID.fullmatch(given):
        raise ValueError(f"folder {given} does not exist")
    return _hub.whole(given.partition("@")[0].rpartition("/")[2], given)


def convert(source: Path, target: Path, tokenizer: Path | None = None, say: Callable[[str], None] = print) -> None:
    """Write the native form of the checkpoint in `source` into the new folder `target`.

    `tokenizer` is a folder whose tokenizer is taken where `source` has none that loads without its authors' code.

    Raises:
        ValueError: no original checkpoint, a target that exists, tensors that do not fit (named), no room; nothing is left then.
    """
    original = _read(source, "config.json")
    kind = original.get("model_type")
    if kind not in originals():
        raise ValueError(f"{source} is of type {kind!r}; there is a conversion for: {', '.join(originals())}")
    if target.exists():
        raise ValueError(f"{target} exists already: name a new folder")
    shards = _shards(source)
    rules = importlib.import_module(originals()[str(kind)])
    ensure_torchvision()
    words = _tokenizer(source, tokenizer, rules)
    token = _ids(words)
    try:
        config = rules.configured(original, token)
        processor = rules.processor(original, config, words)
    except KeyError as error:
        raise ValueError(f"{source}: its configuration lacks {error}") from None
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    plan = {shard: _planned(shard, rules, config) for shard in shards}
    _check(source, plan, config)
    with _workplace(target, sum(shard.stat().st_size for shard in shards)) as place:
        _write(place, plan, rules, config, say)
        _describe(place, config, processor, rules.ends(original, token))
    say(f"{target}: {len(shards)} shards, nothing missing, nothing left over")


def _read(folder: Path, file: str) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads((folder / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {file}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / file} is not readable JSON ({error})") from None
    return data


def _shards(source: Path) -> list[Path]:
    gone = _hub.missing(source)
    if gone:
        raise ValueError(f"{source} lacks {len(gone)} of its weight files, {gone[0]} for one: download them all first")
    names = [_hub.WEIGHTS]
    if (source / _hub.INDEX).is_file():
        names = sorted(set(_read(source, _hub.INDEX)["weight_map"].values()))
    return [source / name for name in names]


def _tokenizer(source: Path, given: Path | None, rules: Any) -> Any:
    """The checkpoint's tokenizer with names for its special tokens; no code of the authors is run.

    Raises:
        ValueError: it exists in a form alone that only their code reads.
    """
    import transformers

    folder, tokens = given or source, dict(rules.TOKENS)
    if (folder / "tokenizer.json").is_file():
        return transformers.PreTrainedTokenizerFast.from_pretrained(str(folder), extra_special_tokens=tokens)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return transformers.Qwen2Tokenizer.from_pretrained(str(folder), extra_special_tokens=tokens)
    raise ValueError(
        f"{folder} holds neither tokenizer.json nor vocab.json with merges.txt, only what its authors' code reads: give the"
        f" tokenizer of a native sister with --tokenizer FOLDER_OR_HUB_ID ({rules.SISTER})"
    )


def _ids(tokenizer: Any) -> Callable[[str], int]:
    known = tokenizer.get_vocab()

    def token(text: str) -> int:
        if text not in known:
            raise ValueError(f"its tokenizer has no token {text!r}")
        return int(known[text])

    return token


def _planned(shard: Path, rules: Any, config: Mapping[str, Any]) -> dict[str, Shapes | None]:
    """Of each tensor of a shard, the native tensors that it becomes, with their shapes; read from the header alone."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Shapes | None] = {}
    try:
        with safe_open(str(shard), "pt") as file:
            for name in file.keys():  # noqa: SIM118  not a dictionary
                cuts = rules.made(name, config)
                whole = torch.empty(file.get_slice(name).get_shape(), device="meta")
                found[name] = None if cuts is None else {new: _shape(cut, whole) for new, cut in cuts.items()}
    except SafetensorError as error:
        raise ValueError(f"{shard} is damaged ({error})") from None
    return found


def _shape(cut: Callable[[torch.Tensor], torch.Tensor], whole: torch.Tensor) -> tuple[int, ...]:
    """The shape of a part; () where the tensor cannot be cut so."""
    try:
        return tuple(cut(whole).shape)
    except (RuntimeError, IndexError):
        return ()


def _check(source: Path, plan: Mapping[Path, Mapping[str, Shapes | None]], config: Mapping[str, Any]) -> None:
    """Raises ValueError unless the tensors are exactly those of the native model."""
    given = [(name, new) for shard in plan.values() for name, new in shard.items()]
    foreign = [name for name, new in given if new is None]
    shapes: Shapes = {}
    twice = []
    for _, news in given:
        for new, shape in (news or {}).items():
            twice += [new] if new in shapes else []
            shapes[new] = shape
    expected = native_shapes(config)
    wrong = {
        "unknown": foreign,
        "missing": sorted(expected.keys() - shapes.keys()),
        "left over": sorted(shapes.keys() - expected.keys()),
        "there twice": twice,
        "of another shape": [
            name for name in sorted(shapes.keys() & expected.keys()) if shapes[name] != expected[name]
        ],
    }
    said = [f"{len(names)} {word} ({_few(names)})" for word, names in wrong.items() if names]
    if said:
        raise ValueError(f"{source} does not become the model its configuration describes: tensors {'; '.join(said)}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def native_shapes(config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the native model's tensors."""
    import transformers

    values = dict(config)
    made = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(made)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@contextmanager
def _workplace(target: Path, needed: int) -> Iterator[Path]:
    """A folder beside the target that takes its name at the end, and goes away where something fails."""
    place = target.with_name(f".{target.name}.converting")
    place.mkdir(parents=True, exist_ok=True)
    with (place / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another conversion to {target} is at work") from None
        try:
            for left in place.iterdir():
                if left.name != LOCK:
                    left.unlink()
            if (free := _hub.free_bytes(place)) < needed:
                raise ValueError(
                    f"no room for {target}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free"
                )
            yield place
            (place / LOCK).unlink()
            place.rename(target)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            if error.errno not in _hub.NO_ROOM:
                raise
            raise ValueError(f"no room for {target} ({error.strerror}): nothing was left there") from None
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise


def _write(
    place: Path,
    plan: Mapping[Path, Mapping[str, Shapes | None]],
    rules: Any,
    config: Mapping[str, Any],
    say: Callable[[str], None],
) -> None:
    """The native shards and their index."""
    from safetensors import safe_open

    where: dict[str, str] = {}
    total = 0
    for number, (shard, tensors) in enumerate(plan.items(), start=1):
        name = f"model-{number:05d}-of-{len(plan):05d}.safetensors"
        parts: dict[str, torch.Tensor] = {}
        with safe_open(str(shard), "pt") as file:
            for old in tensors:
                whole = file.get_tensor(old)
                # a copy of its own: safetensors stores no two views of one tensor
                parts |= {new: cut(whole).clone() for new, cut in (rules.made(old, config) or {}).items()}
        _save(parts, place / name)
        where |= dict.fromkeys(parts, name)
        total += sum(part.nbytes for part in parts.values())
        say(f"{number} of {len(plan)}: {name}")
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (place / _hub.INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _save(parts: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(parts, path, metadata={"format": "pt"})
    except SafetensorError as error:  # the library wraps what the system said
        if any(word in str(error) for word in ("No space", "quota", "too large", "StorageFull")):
            raise OSError(errno.ENOSPC, str(error)) from None
        raise


def _describe(place: Path, config: Mapping[str, Any], processor: Any, ends: Sequence[int]) -> None:
    """Configuration, generation configuration, processor and tokenizer."""
    import transformers

    values = dict(config)
    made = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    made.save_pretrained(place)
    transformers.GenerationConfig(eos_token_id=list(ends), do_sample=False).save_pretrained(place)
    processor.save_pretrained(place)
