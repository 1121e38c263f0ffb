"""Where data lies on this machine: the folder that `fetch` fills, and the record of what sets looked like before."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "fetched.json"
STREAM = "stream"


def data_home() -> Path:
    """The folder of fetched sets: $EFFIVLM_DATA, else `effivlm` in the user's cache."""
    given = os.environ.get("EFFIVLM_DATA")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "effivlm"


def manifest(folder: Path) -> dict[str, Any]:
    """What `fetch` wrote about a complete set; {} where there is none. ValueError where the file is damaged."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / MANIFEST} is damaged ({error}): fetch the set again") from None
    return dict(found)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
