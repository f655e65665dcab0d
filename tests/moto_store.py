"""An S3 server on this machine, for tests: moto, with a record of every request that came."""

from __future__ import annotations

import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "aVerySecretKeyThatMustNotBeShown"


@dataclass(frozen=True)
class Request:
    """``bytes``: of the body of the answer."""

    method: str
    path: str
    query: str
    status: int
    bytes: int

    @property
    def is_read(self) -> bool:
        """Whether the content of an object, or of a part of it, was given."""
        return self.method == "GET" and not self.query and self.status in (200, 206)


@dataclass
class Store:
    """The server: its file system of fsspec, with the bucket ``bucket``, and its requests."""

    filesystem: Any
    requests: list[Request] = field(default_factory=list)

    def reads(self, part: str = "") -> list[Request]:
        """Requests that read an object with ``part`` in its path."""
        return [one for one in self.requests if one.is_read and part in one.path]

    def tree(self, root: str) -> dict[str, bytes]:
        """All objects below a prefix of the bucket."""
        base = f"bucket/{root}".rstrip("/") + "/"
        # A prefix that comes into being meanwhile is found as if it were an object.
        found = [path for path in self.filesystem.find(base) if path.startswith(base)]
        return {path[len(base) :]: self.filesystem.cat_file(path) for path in found}


@contextmanager
def moto_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with an empty bucket ``bucket``; the environment is that of a user with credentials for it."""
    pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    import fsspec
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    requests: list[Request] = []
    inner: Any = DomainDispatcherApplication(create_backend_app)

    def application(environ: Any, start: Any) -> Any:
        def noted(status: str, headers: Any, *more: Any) -> Any:
            sizes = [int(value) for name, value in headers if name.lower() == "content-length"]
            place = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", "")
            requests.append(Request(*place, int(status.split()[0]), sum(sizes)))
            return start(status, headers, *more)

        return inner(environ, noted)

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            """Say nothing."""

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    # What moto holds is kept for the whole process.
    urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST")).close()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": address,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    filesystem = fsspec.filesystem("s3", use_listings_cache=False)
    filesystem.mkdir("bucket")
    requests.clear()
    try:
        yield Store(filesystem, requests)
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
        server.shutdown()
        thread.join()
        server.server_close()
