"""A real HTTP server on this machine that speaks the part of the Hugging Face hub's API that a download needs.

Revision, tree listing in pages, and ``resolve`` (HEAD and GET) with ETag, LFS and commit headers, a redirect to a store
on another host name, and byte ranges. Faults are told to it beforehand; every request is written down.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

REPO = "people/corpus"
COMMIT = "c0ffee" + 34 * "0"
TOKEN = "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"


@dataclass
class Fault:
    """What goes wrong with a GET of a file.

    Args:
        kind: ``status``, ``cut`` (connection dropped after ``after`` bytes), ``stall`` (``after`` bytes, then nothing),
            ``flip`` (a byte changed), ``short`` (``after`` bytes served as if they were all), ``no-range`` (a Range is
            not honoured).
        path: of the file, or None for any.
        skip: that many GETs pass first.
        times: how often it happens.
    """

    kind: str
    path: str | None = None
    skip: int = 0
    times: int = 1
    after: int = 0
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A request as it was seen."""

    method: str
    path: str
    range: str | None
    token: str | None
    host: str


class FakeHub:
    """The server: ``with FakeHub({"de/a.parquet": b"..."}) as hub: hub.url``.

    Args:
        files: path in the repository -> content.
        gate: None: open to all; ``"login"``: a token is needed; ``"terms"``: no token has accepted the terms;
            ``"scope"``: no token has the scope; ``"token"``: no token is valid.
        page: entries a page of the tree listing.
        plain: paths kept by git itself, without LFS.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        gate: str | None = None,
        page: int = 1000,
        plain: frozenset[str] = frozenset(),
    ) -> None:
        self.files = files
        self.gate = gate
        self.page = page
        self.plain = plain
        self.commit = COMMIT
        self.faults: list[Fault] = []
        self.pause = 0.0
        """Seconds between two pieces of 4,096 bytes of a file."""
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.released = threading.Event()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def gets(self, path: str | None = None) -> list[Request]:
        """GETs of file content that were seen, in order."""
        return [
            request
            for request in self.requests
            if request.method == "GET"
            and request.path.startswith("/store/")
            and (path is None or request.path == f"/store/{path}")
        ]

    def next_fault(self, path: str) -> Fault | None:
        """The fault due for a GET of ``path``."""
        with self.lock:
            for fault in self.faults:
                if fault.path in (None, path) and fault.times:
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    server_hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server_hub
        parts = urlsplit(self.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        path = unquote(parts.path)
        seen = Request(self.command, path, self.headers.get("Range"), token, self.headers["Host"])
        with hub.lock:
            hub.requests.append(seen)
        api, page, store = f"/api/datasets/{REPO}/", f"/datasets/{REPO}/resolve/", "/store/"
        if path.startswith(api + "revision/"):
            revision = path.removeprefix(api + "revision/")
            if revision in ("main", hub.commit):
                self._json({"id": REPO, "sha": hub.commit, "siblings": [], "tags": [], "private": False})
            else:
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif path.startswith(api + "tree/"):
            self._tree(path.removeprefix(api + "tree/"), parse_qs(parts.query))
        elif path.startswith(page):
            self._resolve(path.removeprefix(page), token)
        elif path.startswith(store):
            self._content(path.removeprefix(store), seen)
        elif path.startswith("/portal/"):
            self._whole(200, b"<html>Please log in to the network</html>", {"Content-Type": "text/html"})
        else:
            self._refuse(404, "RepoNotFound", "Repository not found")

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._whole(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._whole(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def _whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _entry(self, path: str) -> dict[str, Any]:
        hub = self.server_hub
        content = hub.files[path]
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        entry: dict[str, Any] = {"type": "file", "oid": blob, "size": len(content), "path": path}
        if path not in hub.plain:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry

    def _tree(self, place: str, query: dict[str, list[str]]) -> None:
        hub = self.server_hub
        revision, _, folder = place.partition("/")
        if revision != hub.commit:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        prefix = f"{folder}/" if folder else ""
        below = sorted(path for path in hub.files if path.startswith(prefix))
        if folder and not below:
            self._refuse(404, "EntryNotFound", f"{folder} does not exist")
            return
        entries: dict[str, dict[str, Any]] = {}
        for path in below:
            inner = path.removeprefix(prefix).split("/")
            recursive = query.get("recursive", ["false"])[0].lower() == "true"
            for depth in range(1, len(inner) if recursive else min(2, len(inner))):
                name = prefix + "/".join(inner[:depth])
                entries[name] = {"type": "directory", "oid": 40 * "0", "size": 0, "path": name}
            if recursive or len(inner) == 1:
                entries[path] = self._entry(path)
        listed = [entries[name] for name in sorted(entries)]
        begin = int(query.get("cursor", ["0"])[0])
        headers: dict[str, str] = {}
        if begin + hub.page < len(listed):
            mode = query.get("recursive", ["false"])[0]
            link = f"{hub.url}{quote(urlsplit(self.path).path)}?recursive={mode}&cursor={begin + hub.page}"
            headers["Link"] = f'<{link}>; rel="next"'
        self._json(listed[begin : begin + hub.page], headers)

    def _resolve(self, place: str, token: str | None) -> None:
        hub = self.server_hub
        _, _, path = place.partition("/")
        if hub.gate and token is None:
            self._refuse(401, "GatedRepo", f"Access to dataset {REPO} is restricted. You must have access to it.")
        elif hub.gate == "token":
            # A careless server that repeats what it was given.
            self._refuse(401, "", f"Invalid credentials in Authorization header: {token}")
        elif hub.gate == "terms":
            self._refuse(403, "GatedRepo", f"Access to dataset {REPO} is restricted: ask for access ({token}).")
        elif hub.gate == "scope":
            self._refuse(403, "", f"Please enable access to gated repos in your fine-grained token settings ({token}).")
        elif path not in hub.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            entry = self._entry(path)
            etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            headers = {
                "X-Repo-Commit": hub.commit,
                "X-Linked-Size": str(entry["size"]),
                "X-Linked-ETag": f'"{etag}"',
                "ETag": f'"{etag}"',
                # Another host name, as the hub's store of large files is.
                "Location": f"http://localhost:{hub.port}/store/{quote(path)}",
            }
            self._whole(302, b"", headers)

    def _content(self, path: str, seen: Request) -> None:
        hub = self.server_hub
        content = hub.files.get(path)
        if content is None:
            self._whole(404, b"", {})
            return
        fault = hub.next_fault(path)
        kind = fault.kind if fault else ""
        if fault and kind == "status":
            self._whole(fault.status, b"", fault.headers)
            return
        if fault and kind == "flip":
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if fault and kind == "short":
            content = content[: fault.after]
        first, _, last = (seen.range or "").removeprefix("bytes=").partition("-")
        ranged = bool(first) and kind != "no-range"
        begin = int(first) if ranged else 0
        if begin and begin >= len(content):
            self._whole(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        end = min(int(last) + 1, len(content)) if ranged and last else len(content)
        body = content[begin:end]
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()[:16]}"')
        self.send_header("Accept-Ranges", "bytes")
        if ranged:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and kind in ("cut", "stall"):
            self.wfile.write(body[: fault.after])
            self.wfile.flush()
            if kind == "stall":
                hub.released.wait(30)
            time.sleep(0.05)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if not hub.pause:
            self.wfile.write(body)
            return
        with suppress(OSError):
            for at in range(0, len(body), 4096):
                self.wfile.write(body[at : at + 4096])
                self.wfile.flush()
                time.sleep(hub.pause)
