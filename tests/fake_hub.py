"""A model hub on the loopback: repositories with commits, gates, and connections that break, as the real one's clients see it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote

Files = Mapping[str, bytes]


def commit_of(word: str) -> str:
    return hashlib.sha1(word.encode()).hexdigest()


@dataclass
class FakeHub:
    """`repositories` name -> revision -> files; a file in `cut` breaks off after so many bytes, whenever it is asked for."""

    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    down: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""

    def put(self, name: str, folder: Path | Files, revision: str = "main") -> str:
        """Add a commit that `revision` points to from now on."""
        files = (
            {file.name: file.read_bytes() for file in folder.iterdir()} if isinstance(folder, Path) else dict(folder)
        )
        content = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in files.items())
        commit = commit_of(f"{name} {revision} {content}")
        self.repositories.setdefault(name, {})[revision] = files
        self.repositories[name][commit] = files
        return commit

    def commit(self, name: str, revision: str) -> str | None:
        """The commit behind a branch or a commit; None where there is none."""
        found = self.repositories[name].get(revision)
        commits = [key for key, files in self.repositories[name].items() if files is found and len(key) == 40]
        return commits[-1] if found is not None else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, unquote(self.path.partition("?")[0])
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if hub.down:
            return self._send(503, b"")
        api = re.fullmatch(
            r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?", path
        )
        file = re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or file
        if not found or found[1] not in hub.repositories:
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        revision = (found[3] or "main") if api else found[2]
        commit = hub.commit(found[1], revision)
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        files = hub.repositories[found[1]][revision]
        if api:
            return self._api(found[1], commit, files, api[2], api[4] or "")
        return self._file(found[1], commit, files, found[3])

    def _api(self, name: str, commit: str, files: Files, kind: str | None, under: str) -> None:
        if kind == "tree":
            inside = {path: data for path, data in files.items() if path.startswith(f"{under}/" if under else "")}
            return self._json([_entry(path, data) for path, data in inside.items()])
        if kind == "paths-info":
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked = parse_qs(body).get("paths", [])
            folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
            found = [_entry(path, files[path]) for path in asked if path in files]
            return self._json(
                found + [{"type": "directory", "path": path, "oid": "0"} for path in asked if path in folders]
            )
        if name in self.hub.gated and "/datasets/" in self.path:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        siblings = [{"rfilename": path, **self._large(data)} for path, data in files.items()]
        return self._json(
            {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}
        )

    def _large(self, data: bytes) -> dict[str, Any]:
        """Size and hash of a large file, where the client asks for them."""
        if "blobs=" not in self.path:
            return {}
        digest = hashlib.sha256(data).hexdigest()
        return {
            "size": len(data),
            "blobId": digest[:40],
            "lfs": {"sha256": digest, "size": len(data), "pointerSize": 1},
        }

    def _file(self, name: str, commit: str, files: Files, path: str) -> None:
        headers = {"X-Repo-Commit": commit}
        if name in self.hub.gated:
            return self._send(
                403, b"", {**headers, "X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
            )
        if path not in files:
            return self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        data = files[path]
        headers |= {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        rest = data[int(start[1]) :] if start else data
        if start:
            headers["Content-Range"] = f"bytes {start[1]}-{len(data) - 1}/{len(data)}"
        return self._send(206 if start else 200, rest, headers, self.hub.cut.get(path))

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None and cut < len(body):
            self.close_connection = True


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def served() -> Iterator[FakeHub]:
    """A hub that answers until the end of the context, under `url`."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
