"""A process under the Python of sparseml's own environment that prunes one weight after another (`_sparseml_worker.py`).

One worker serves a whole model, matrix by matrix. Tensors go to and fro as safetensors in a temporary folder, words as lines of
JSON.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from effivlm.weights.libraries import sparseml_python

WORKER = Path(__file__).with_name("_sparseml_worker.py")
_START_S = 600.0  # torch, transformers and sparseml, from a cold disk
_REQUEST_S = 3600.0
_TOLD = 600  # characters of what a worker that died said last


class Worker:
    """One worker process, from `start` to `close`; after an error that is not of one request alone it is closed.

    Args:
        python: of sparseml's environment; without it the one that `libraries.sparseml_python` finds.
        start_s, request_s: the longest that starting, and that one matrix, may take.
    """

    def __init__(self, python: Path | None = None, *, start_s: float = _START_S, request_s: float = _REQUEST_S) -> None:
        self.python = python or sparseml_python()
        self.start_s, self.request_s = start_s, request_s
        self.here: Mapping[str, Any] = {}
        """What the worker says of itself: the versions of sparseml and torch, and whether torch sees a GPU."""
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._number, self._unread = 0, b""

    @property
    def alive(self) -> bool:
        return self._process is not None

    def start(self) -> Self:
        """Start the process and wait until it has loaded sparseml.

        Raises:
            ChildProcessError: it died, e.g. because its environment lacks sparseml; says what it said last.
            TimeoutError: it took longer than `start_s`.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="effivlm-sparseml-", ignore_cleanup_errors=True)
        try:
            with self._file("said").open("wb") as said:
                self._process = subprocess.Popen(
                    [str(self.python), "-I", str(WORKER)],  # -I: our own PYTHONPATH would bring our own transformers
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env={**os.environ, "NM_DISABLE_ANALYTICS": "True", "HF_HUB_OFFLINE": "1"},
                )
            self.here = self._answer(self.start_s)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the process and drop its files; nothing where it is closed already."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def ask(self, method: str, tensors: Mapping[str, Tensor], **settings: float) -> Tensor:
        """The weight [out, in] of `tensors` as the worker's function `method` prunes it, of the same type, on the same device.

        Raises:
            ValueError: sparseml could not do it, e.g. because a Hessian is not positive definite.
            ChildProcessError: the worker died, or its answer is none.
            TimeoutError: it took longer than `request_s`.
            OSError: there is no room for the tensors.
        """
        weight = tensors["weight"]
        self._number += 1
        sent, result = self._file("sent.safetensors"), self._file("result.safetensors")
        request = {
            "number": self._number,
            "method": method,
            "tensors": str(sent),
            "result": str(result),
            "device": str(weight.device) if self.here.get("cuda") else "cpu",
            **settings,
        }
        try:
            _write(tensors, sent)
            self._send(request)
            told = self._answer(self.request_s)
            if told.get("number") != self._number:
                raise ChildProcessError(f"the sparseml worker answered something else: {told}")
            if "error" in told:
                raise ValueError(f"sparseml cannot prune a weight {list(weight.shape)}: {told['error']}")
            return _read(result, weight)
        except BaseException as error:
            if not isinstance(error, ValueError) or isinstance(error, SafetensorError):
                self.close()  # what it does now belongs to no request
            raise
        finally:
            sent.unlink(missing_ok=True)
            result.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        if self._folder is None:
            raise ChildProcessError("the sparseml worker is not running: start it, and anew after an error")
        return Path(self._folder.name) / name

    def _send(self, request: Mapping[str, Any]) -> None:
        pipe = self._pipes()[0]
        try:
            os.write(pipe, json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._died() from None

    def _answer(self, most_s: float) -> dict[str, Any]:
        """The next line, read as it comes, so that a worker that hangs is noticed."""
        pipe, until = self._pipes()[1], time.monotonic() + most_s
        with selectors.DefaultSelector() as waiting:
            waiting.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not waiting.select(max(0.0, until - time.monotonic())):
                    raise TimeoutError(f"the sparseml worker did not answer within {most_s:g} s")
                part = os.read(pipe, 1 << 16)
                if not part:
                    raise self._died()
                self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise ChildProcessError(f"the sparseml worker's answer is no JSON object: {line[:_TOLD]!r}")
        return told

    def _pipes(self) -> tuple[int, int]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ChildProcessError("the sparseml worker is not running: start it, and anew after an error")
        return process.stdin.fileno(), process.stdout.fileno()

    def _died(self) -> ChildProcessError:
        code = self._process.wait() if self._process is not None else None
        said = " ".join(self._file("said").read_text(encoding="utf-8", errors="replace").split())
        return ChildProcessError(f"the sparseml worker ({self.python}) ended with code {code}: {said[-_TOLD:]}")


_RUNNING: list[Worker] = []


def running() -> Worker:
    """The one worker of this process, started when it is first asked for, and anew after it was lost; it ends with the process.

    Raises:
        ValueError: sparseml's environment is not there.
        ChildProcessError, TimeoutError: as `Worker.start`.
    """
    if not (_RUNNING and _RUNNING[0].alive):
        _RUNNING[:] = [Worker().start()]
        atexit.register(_RUNNING[0].close)
    return _RUNNING[0]


def _write(tensors: Mapping[str, Tensor], file: Path) -> None:
    size, free = sum(tensor.nbytes for tensor in tensors.values()), shutil.disk_usage(file.parent).free
    if size >= free:
        raise OSError(errno.ENOSPC, f"the sparseml worker is given {size:,} bytes, and {free:,} are free", str(file))
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)


def _read(file: Path, weight: Tensor) -> Tensor:
    """The pruned weight. Raises ChildProcessError where there is none, or one that does not stand for `weight`."""
    try:
        pruned = load_file(file).get("weight")
    except (OSError, SafetensorError) as error:
        raise ChildProcessError(f"the sparseml worker left no result: {error}") from None
    if pruned is None or pruned.shape != weight.shape or pruned.dtype != weight.dtype:
        raise ChildProcessError(f"the sparseml worker's result is no {weight.dtype} {list(weight.shape)}")
    if not bool(pruned.isfinite().all()):
        raise ChildProcessError("the sparseml worker's result holds NaN or infinite values")
    return pruned.to(weight.device)
