"""Registered models: the embedded file is the published one; downloads are whole and proven, or not there."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from lola_data.errors import LolaError, RecipeError
from lola_data.lid.models import REGISTRY, RegisteredModel, cache_dir, fetch, model_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(BODY).hexdigest()


class ModelServer(ThreadingHTTPServer):
    """Serves BODY with ranges; ``cut_after`` drops the connection after so many bytes of the file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut_after: int | None = None
        self.ranges = True
        self.body = BODY
        self.asked: list[str | None] = []

    def url(self, path: str = "/model.bin") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: ModelServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path != "/model.bin":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(server.body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        end = len(server.body) if server.cut_after is None else server.cut_after
        self.wfile.write(server.body[start:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def model_at(url: str, sha256: str = SHA256) -> RegisteredModel:
    return RegisteredModel(name="test.bin", url=url, sha256=sha256, licence="CC0-1.0")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_the_embedded_model_is_the_published_one() -> None:
    model = REGISTRY["lid.176.ftz"]
    content = model_path("lid.176.ftz").read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (model.sha256, model.size)


def test_every_download_is_pinned_to_a_digest_and_an_unmoving_address() -> None:
    for model in REGISTRY.values():
        assert len(model.sha256) == 64
        assert int(model.sha256, 16)
        if model.resource is None:
            assert model.url.startswith("https://")
            assert "/main/" not in model.url


def test_a_good_download_is_kept_and_not_fetched_again(server: ModelServer, tmp_path: Path) -> None:
    path = fetch(model_at(server.url()), tmp_path)
    assert path.read_bytes() == BODY
    assert names(tmp_path) == [path.name]
    assert fetch(model_at(server.url()), tmp_path) == path
    assert len(server.asked) == 1


def test_a_file_with_another_digest_is_kept_out(server: ModelServer, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(LolaError, match=f"{SHA256}, not the pinned {wrong}"):
        fetch(model_at(server.url(), wrong), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_leaves_no_model_and_the_next_call_goes_on(
    server: ModelServer, tmp_path: Path, ranges: bool
) -> None:
    model = model_at(server.url())
    server.cut_after = 1_000_000
    server.ranges = ranges
    with pytest.raises(LolaError, match=r"test\.bin.*run again"):
        fetch(model, tmp_path)
    (part,) = names(tmp_path)
    assert part.endswith(".part")
    have = (tmp_path / part).stat().st_size
    assert 0 < have <= 1_000_000
    server.cut_after = None
    path = fetch(model, tmp_path)
    assert path.read_bytes() == BODY
    assert names(tmp_path) == [path.name]
    assert server.asked == [None, f"bytes={have}-"]


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_as_long_as_the_file_is_judged_by_its_digest(server: ModelServer, tmp_path: Path, extra: bytes) -> None:
    model = model_at(server.url())
    path = tmp_path / f"{SHA256[:16]}-test.bin"
    path.with_name(path.name + ".part").write_bytes(BODY + extra)
    if extra:
        with pytest.raises(LolaError, match="SHA-256"):
            fetch(model, tmp_path)
        assert names(tmp_path) == []
    assert fetch(model, tmp_path).read_bytes() == BODY


def test_offline_or_refused_says_what_to_do(server: ModelServer, tmp_path: Path) -> None:
    with pytest.raises(LolaError, match=r"404.*give its path as identify\.model"):
        fetch(model_at(server.url("/gone.bin")), tmp_path)
    with pytest.raises(LolaError, match="Connection refused"):
        fetch(model_at("http://127.0.0.1:1/model.bin"), tmp_path)
    assert names(tmp_path) == []


def test_many_callers_at_once_download_once(server: ModelServer, tmp_path: Path) -> None:
    model = model_at(server.url())
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(model, tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert len(paths) == 8
    assert len(server.asked) == 1


def test_a_hub_mirror_is_honoured(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    assert fetch(model_at("https://huggingface.co/model.bin"), tmp_path).read_bytes() == BODY


def test_paths_and_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.ftz"
    own.write_bytes(b"x")
    assert model_path(str(own)) == own
    with pytest.raises(RecipeError, match=r"'lid\.176'.*lid\.176\.ftz, lid\.176\.bin, glotlid-v3, openlid-v2"):
        model_path("lid.176")
    monkeypatch.setenv("LOLA_DATA_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path / "models"
