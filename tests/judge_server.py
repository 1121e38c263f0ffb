"""A fake of an OpenAI-compatible server on the loopback, which answers by a script and remembers what it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET, SPEC = "sk-nobody-keeps-this-one", "openai:some-judge"
Step = Callable[["Handler"], None]
"""What the server does with one request."""


@dataclass
class Server:
    """The address, the steps to come (the last one stays), and the bodies and headers that came."""

    steps: list[Step]
    url: str = ""
    bodies: list[Any] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    script: Server

    def do_POST(self) -> None:
        self.script.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.script.keys.append(self.headers.get("Authorization", ""))
        steps = self.script.steps
        (steps.pop(0) if len(steps) > 1 else steps[0])(self)

    def send(self, body: str, status: int = 200, **headers: str) -> None:
        raw = body.encode("utf-8", "surrogatepass")
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the tests' output is not the server's log."""


def says(text: Any, model: Any = "judge-2026-01-01") -> Step:
    """A reply with this content."""
    message = {"role": "assistant", "content": text}
    reply = {"id": "x", "object": "chat.completion", "created": 0, "model": model}
    return lambda handler: handler.send(json.dumps({**reply, "choices": [{"index": 0, "message": message}]}))


def sends(body: str, status: int = 200, **headers: str) -> Step:
    """This body as it is."""
    return lambda handler: handler.send(body, status, **headers)


def fails(status: int, text: str = "no", **headers: str) -> Step:
    """An error of the protocol."""
    return sends(json.dumps({"error": {"message": text}}), status, **headers)


def sleeps(seconds: float) -> Step:
    """Nothing, until the client has long gone."""
    return lambda handler: time.sleep(seconds)


def echoes(status: int) -> Step:
    """What no server should do: the key that it was sent, in its reply."""
    return lambda handler: (
        says(f"0.5 {handler.headers['Authorization']}")(handler)
        if status == 200
        else handler.send(json.dumps({"error": {"message": handler.headers["Authorization"]}}), status)
    )


@contextmanager
def serving(*steps: Step) -> Iterator[Server]:
    """A server that takes these steps, one a request, and ends with the block."""
    script = Server(list(steps))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Scripted", (Handler,), {"script": script}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
