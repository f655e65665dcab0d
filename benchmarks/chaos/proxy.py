"""A proxy in front of a store: by seed it drops requests before or after they are done, delays them, cuts answers
short, and answers 500 and 503 by itself."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KINDS = ("drop", "lose", "cut", "delay", "500", "503")
"""``drop``: the request does not arrive; ``lose``: it is done, and the answer does not arrive; ``cut``: half of the
answer arrives."""
LONGEST_DELAY = 0.5
_ERRORS = {
    "500": b"<Error><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message>"
    b"</Error>",
    "503": b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
}


class Trouble:
    """What happens to requests. The n-th of a method for a path always meets with the same.

    Args:
        seed: of the draws.
        share: of the requests that something happens to.
        kinds: what may happen.
    """

    def __init__(self, seed: int, share: float, kinds: tuple[str, ...] = KINDS) -> None:
        self.seed, self.share, self.kinds = seed, share, kinds
        self.met: Counter[str] = Counter()
        """How often each kind has happened."""
        self._seen: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def meets(self, method: str, path: str) -> tuple[str, float]:
        """What happens to this request, if anything, and seconds of delay."""
        with self._lock:
            self._seen[method, path] += 1
            drawn = random.Random(f"{self.seed} {method} {path} {self._seen[method, path]}")
            if drawn.random() >= self.share:
                return "", 0.0
            kind = drawn.choice(self.kinds)
            self.met[kind] += 1
            return kind, drawn.uniform(0.01, LONGEST_DELAY) if kind == "delay" else 0.0


class Proxy:
    """Passes requests on to ``address``; ``trouble`` may be set and unset at any time."""

    def __init__(self, address: str) -> None:
        self.trouble: Trouble | None = None
        target = urlsplit(address)
        proxy, local = self, threading.local()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

            def handle(self) -> None:
                with suppress(OSError):
                    super().handle()

            def any_method(self) -> None:
                body = self.body()
                kind, seconds = proxy.trouble.meets(self.command, self.path) if proxy.trouble else ("", 0.0)
                time.sleep(seconds)
                if kind == "drop":
                    self.hang_up()
                elif kind in _ERRORS:
                    self.give(int(kind), [("Content-Type", "application/xml")], _ERRORS[kind])
                else:
                    status, headers, answer = self.passed_on(body)
                    if kind == "lose":
                        self.hang_up()
                    else:
                        self.give(status, headers, answer, cut=kind == "cut")

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = any_method

            def body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts: list[bytes] = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return b"".join(parts)

            def passed_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                connection: Any = getattr(local, "connection", None)
                if connection is None:
                    connection = local.connection = http.client.HTTPConnection(target.hostname or "", target.port)
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("connection", "transfer-encoding", "expect", "content-length")
                }
                if body or self.command in ("PUT", "POST"):
                    headers["Content-Length"] = str(len(body))
                try:
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    content = answer.read()
                except Exception:
                    local.connection = None
                    raise
                return answer.status, answer.getheaders(), content

            def give(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False) -> None:
                self.send_response_only(status)
                length = next((value for name, value in headers if name.lower() == "content-length"), "")
                for name, value in headers:
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                # An answer to HEAD tells the length of what it does not carry.
                self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if cut else body)
                if cut:
                    self.hang_up()

            def hang_up(self) -> None:
                self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that was killed is no matter."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
