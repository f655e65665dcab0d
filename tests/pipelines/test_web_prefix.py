"""Shards below the directory pages of a real web server: odd names, digests, pages that fail."""

from __future__ import annotations

import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from lola_data.errors import StageError
from pipelines import sources, url_source
from tests.pipelines.download_cases import fetch, read_tree, shard, stage_of, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ("a b.parquet", "100%.parquet", "ünï-日本.parquet", "q&a+'x'#1.parquet", "%20.parquet")


class Server:
    """Serves a folder; ``answers``: path -> status to give instead."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers: dict[str, int] = {}
        answers = self.answers

        class Handler(SimpleHTTPRequestHandler):
            def send_head(self) -> Any:
                status = answers.get(unquote(self.path))
                if status is None:
                    return super().send_head()
                self.send_error(status)
                return None

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(url_source, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(sources, "FIRST_WAIT_SECONDS", 0.01)
    (tmp_path / "source").mkdir()
    server = Server(tmp_path / "source")
    yield server
    server.stop()


def _stage(tmp_path: Path, server: Server, *more: str) -> Any:
    return stage_of(tmp_path / "w", "download.source=url", f"download.path={server.address}", *more)


def test_names_that_an_address_has_to_encode(tmp_path: Path, server: Server) -> None:
    files = {f"de/{name}": shard(name) for name in NAMES}
    write_tree(server.root, files)
    assert fetch(_stage(tmp_path, server)) == []
    assert read_tree(tmp_path / "w" / "raw") == files


@pytest.mark.parametrize("pages", [True, False])
def test_listed_digests_hold_for_them_too(tmp_path: Path, server: Server, pages: bool) -> None:
    files = {f"de/{name}": shard(name) for name in NAMES}
    listing = "".join(
        f"{hashlib.sha256(b'other' if path.endswith('a b.parquet') else content).hexdigest()}  {path[3:]}\n"
        for path, content in files.items()
    )
    write_tree(server.root, {**files, "de/checksum.sha256": listing.encode()})
    if not pages:
        server.answers.update({"/": 403, "/de/": 403})
    (fault,) = fetch(_stage(tmp_path, server, "languages=[de]"))
    assert "a%20b.parquet: came wrong twice" in fault
    assert "which checksum.sha256 lists" in fault
    assert len(read_tree(tmp_path / "w" / "raw")) == len(NAMES) - 1


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_page_that_fails_is_no_empty_folder(tmp_path: Path, server: Server, status: int) -> None:
    write_tree(server.root, {"de/a.parquet": shard("de"), "sw/b.parquet": shard("sw")})
    server.answers["/sw/"] = status
    with pytest.raises(StageError, match="cannot be listed"):
        _stage(tmp_path, server).phases[0].plan()


def test_a_link_to_nowhere_is_passed_over(tmp_path: Path, server: Server) -> None:
    write_tree(server.root, {"de/a.parquet": shard("de"), "sw/b.parquet": shard("sw")})
    server.answers["/sw/"] = 404
    assert fetch(_stage(tmp_path, server)) == []
    assert list(read_tree(tmp_path / "w" / "raw")) == ["de/a.parquet"]


def test_a_server_that_is_down(tmp_path: Path, server: Server) -> None:
    server.stop()
    with pytest.raises(StageError, match=r"cannot be listed \(ClientConnectorError"):
        _stage(tmp_path, server).phases[0].plan()
