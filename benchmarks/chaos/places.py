"""Where runs work: a disk that fills up, and a store that fails, on a server of its own on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.chaos.proxy import Proxy
from lola_data.layout import TREES

BUCKET = "chaos"
PAGE = 4096
KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}
"""Environment variables of a user of the store, but for its address."""


def kept(path: str) -> bool:
    """Whether a file of a work folder must be the same after every run: all but logs, locks, and what machines that
    share a run tell each other."""
    parts = path.split("/")
    return parts[0] in (*TREES.values(), "removed", "state") and parts[:2] not in (
        ["state", "lock"],
        ["state", "shared"],
    )


def tree(root: Path) -> dict[str, bytes]:
    """The files of a local work folder that must be the same, by path."""
    paths = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(paths.items()) if kept(name)}


def room(root: Path) -> int:
    """Bytes that a folder takes on a disk with pages of 4 kB."""
    return sum(PAGE if path.is_dir() else -(-path.stat().st_size // PAGE) * PAGE for path in root.rglob("*"))


class SmallDisk:
    """A file system in memory of so many bytes, and so many files and folders (0: as many as there is room for).

    Raises:
        OSError: file systems may not be mounted here.
    """

    def __init__(self, folder: Path, size: int, files: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._mount("-t", "tmpfs", "-o", f"size={size},nr_inodes={files}", "tmpfs")

    def _mount(self, *options: str) -> None:
        done = subprocess.run(["mount", *options, str(self.folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())

    def grow(self, size: int, files: int) -> None:
        """Make it as large as this."""
        self._mount("-o", f"remount,size={size},nr_inodes={files}")

    def close(self) -> None:
        """Let it go, with all that is on it."""
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)
        with suppress(OSError):
            self.folder.rmdir()


class Store:
    """A server of S3 in a process of its own, with an empty bucket, and a proxy before it that fails."""

    def __init__(self, log: Path) -> None:
        with log.open("wb") as handle:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from benchmarks.chaos.places import serve_store; serve_store()"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=handle, cwd=Path(__file__).resolve().parents[2],
                env={**os.environ, **KEYS},
            )  # fmt: skip
        assert self._process.stdout is not None
        if not (port := self._process.stdout.readline()):
            raise RuntimeError(f"the store has not started: {log.read_text(errors='replace').strip()[-300:]}")
        self.address = f"http://127.0.0.1:{int(port)}"
        self.proxy = Proxy(self.address)
        import boto3

        self._client: Any = boto3.client(
            "s3", endpoint_url=self.address, region_name="us-east-1", aws_access_key_id="key",
            aws_secret_access_key="secret",
        )  # fmt: skip
        self._client.create_bucket(Bucket=BUCKET)

    @property
    def environment(self) -> dict[str, str]:
        """Of a user whose store this is."""
        return {**KEYS, "AWS_ENDPOINT_URL_S3": self.proxy.address}

    def objects(self, prefix: str) -> list[str]:
        """The keys below a prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def tree(self, prefix: str) -> dict[str, bytes]:
        """As :func:`tree`, of the objects below a prefix."""
        names = [key.removeprefix(f"{prefix}/") for key in self.objects(prefix)]
        return {
            name: self._client.get_object(Bucket=BUCKET, Key=f"{prefix}/{name}")["Body"].read()
            for name in sorted(names)
            if kept(name)
        }

    def empty(self, prefix: str) -> None:
        """Delete all below a prefix."""
        for key in self.objects(prefix):
            self._client.delete_object(Bucket=BUCKET, Key=key)

    def close(self) -> None:
        """End the server."""
        self.proxy.close()
        self._process.kill()
        self._process.wait()


def serve_store() -> None:
    """Serve until stdin is closed; the port is told on stdout."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        # As stores do it, connections serve one request after the other.
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *arguments: Any) -> None:
            """Say nothing."""

    application: Any = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)
