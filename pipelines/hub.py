"""Shards of a dataset repository on the Hugging Face hub.

In: a repository and a revision. Out: its shards at the one commit that revision stands for, each fetched into a local
file, gone on with where it broke off (HTTP Range, also in a later run), and checked against the size and the digest
that the hub lists. ``huggingface_hub`` does the protocol: HF_ENDPOINT, HF_TOKEN and the cached login hold. Its own
downloader is not used for the bytes, as it starts a file afresh in every process.
"""

from __future__ import annotations

import io
import os
from typing import IO, TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from lola_data.errors import ShardError, StageError
from lola_data.languages import LANGUAGES
from pipelines.hub_errors import HttpError, endpoint, explain, header_of, patiently
from pipelines.shard_pattern import DEFAULT_FILES, PARQUET, ShardPattern
from pipelines.sources import RawShard, RemoteSource, with_listed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    Result = TypeVar("Result")

LISTING_ATTEMPTS = 4
"""Attempts before the listing is given up: someone is waiting for the run to begin."""


class HubSource(RemoteSource):
    """A dataset repository.

    Args:
        repo: ``<namespace>/<name>``.
        revision: branch, tag or commit.
        scratch: local folder for files that are not complete yet, and for those that came wrong.
        pattern: as for every source.
        checksums: as for every source.
    """

    def __init__(
        self,
        repo: str,
        revision: str,
        scratch: Path,
        pattern: ShardPattern | None = None,
        *,
        checksums: bool = True,
    ) -> None:
        super().__init__(pattern or ShardPattern(), scratch, checksums=checksums)
        self._repo = repo
        self._revision = revision
        self._commit: str | None = None

    @property
    def place(self) -> str:
        """The page of the repository."""
        return f"{endpoint()}/datasets/{self._repo}"

    def locate(self, shard: RawShard) -> str:
        """Where a shard lies: its ``hf://`` address."""
        return shard.origin

    def commit(self) -> str:
        """The commit that the revision stands for, asked for once."""
        if self._commit is None:
            api = HfApi(endpoint=endpoint())
            try:
                info = self._ask(lambda: api.dataset_info(self._repo, revision=self._revision, timeout=30.0))
            except HFValidationError as error:
                raise StageError(f"`repo: {self._repo}` is no repository name; write <namespace>/<name>") from error
            except (ValueError, TypeError, KeyError) as error:
                raise StageError(
                    f"{self.place}: what answers there is not a Hugging Face hub; check HF_ENDPOINT and the proxy"
                ) from error
            if not info.sha:
                raise StageError(f"{self.place}: the hub names no commit for revision `{self._revision}`")
            self._commit = info.sha
        return self._commit

    def _ask(self, request: Callable[[], Result]) -> Result:
        try:
            return patiently(request, attempts=LISTING_ATTEMPTS)
        except (HttpError, OfflineModeIsEnabled) as error:
            raise StageError(explain(self._repo, self._revision, error)) from error

    def _tree(self, path: str | None, *, recursive: bool) -> list[RepoFile | RepoFolder]:
        api = HfApi(endpoint=endpoint())
        try:
            return list(
                api.list_repo_tree(self._repo, path, recursive=recursive, revision=self.commit(), repo_type="dataset")
            )
        except (HttpError, OfflineModeIsEnabled) as error:
            if path and header_of(error, "X-Error-Code") == "EntryNotFound":
                return []
            raise StageError(explain(self._repo, self._revision, error)) from error

    def folders(self) -> list[str]:
        """Folders in which the repository's languages lie, for messages."""
        above = "" if self.pattern.files == DEFAULT_FILES else self.pattern.files.partition("{lang}")[0]
        inner = above.rpartition("/")[0]
        found = self._tree(inner or None, recursive=False)
        names = (entry.path.rpartition("/")[2] for entry in found if isinstance(entry, RepoFolder))
        return sorted(name for name in names if not name.startswith("."))

    def shards(self, languages: list[str] | None) -> list[RawShard]:
        """Shards of the languages. Only their folders are listed, and access to the first file is tried."""
        folders = {""} if languages is None else {self.pattern.folder(lang) for lang in languages}
        files: dict[str, RepoFile] = {}
        for folder in sorted(folders):
            found = self._tree(folder or None, recursive=True)
            files |= {entry.path: entry for entry in found if isinstance(entry, RepoFile)}
        matches = self.pattern.matches(files, languages)
        self.beside = self.pattern.beside(files, languages)
        if languages is None:
            self._refuse_strays(sorted(files), {one.path for one in matches if one.lang in LANGUAGES})
        shards = [self._shard(one.lang, one.raw, files[one.path]) for one in matches]
        if shards:
            self._ask(lambda: self._try_access(shards[0]))
        return with_listed(self, shards, files.keys(), self._read)

    def _refuse_strays(self, paths: list[str], known: set[str]) -> None:
        strays = [path for path in paths if path not in known and (path.endswith(PARQUET) or self.pattern.match(path))]
        if self.pattern.files != DEFAULT_FILES:
            strays = [path for path in strays if self.pattern.match(path)]
        if strays:
            raise StageError(
                f"{self.place}: {strays[0]} does not lie in a folder named by a CulturaX code, <lang>/<shard>.parquet. "
                f"Name the folders to take in `languages`, say in `files` and `names` how this repository calls them, "
                f"or fetch the files into such folders and set `source: local`"
            )

    def _read(self, path: str) -> str:
        """Text of a small file."""
        url = hf_hub_url(self._repo, path, repo_type="dataset", revision=self.commit(), endpoint=endpoint())

        def get() -> str:
            response = get_session().get(
                url, headers=build_hf_headers(), timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
            )
            hf_raise_for_status(response)
            return response.content.decode("utf-8", errors="replace")

        return self._ask(get)

    def _shard(self, lang: str, raw: str, file: RepoFile) -> RawShard:
        digest = f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
        return RawShard(lang, raw, f"hf://datasets/{self._repo}@{self.commit()}/{file.path}", file.size, digest)

    def _url(self, shard: RawShard) -> str:
        commit, _, path = shard.origin.removeprefix(f"hf://datasets/{self._repo}@").partition("/")
        return hf_hub_url(self._repo, path, repo_type="dataset", revision=commit, endpoint=endpoint())

    def _try_access(self, shard: RawShard) -> None:
        # A gated repository shows its listing to everyone: better to hear of it before work is handed out.
        response = get_session().head(
            self._url(shard), headers=build_hf_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT, follow_redirects=False
        )
        hf_raise_for_status(response)

    def open(self, shard: RawShard) -> IO[bytes]:
        """The file through ranges."""
        return io.BufferedReader(_Ranges(self._url(shard), shard.bytes), 2**16)

    def _complete(self, shard: RawShard, partial: Path) -> None:
        """Add to ``partial`` until it has the listed size, or the server has no more to give."""

        def go_on() -> None:
            have = partial.stat().st_size if partial.exists() else -1
            if have < shard.bytes:
                self._stream(shard, partial, max(0, have))

        def progress() -> int:
            return partial.stat().st_size if partial.exists() else 0

        reached = -1
        try:
            # An answer that ends early without an error is gone on with too, as long as there is more to come.
            while reached < progress() <= shard.bytes:
                reached = progress()
                patiently(go_on, progress=progress)
        except (HttpError, OfflineModeIsEnabled) as error:
            commit = shard.origin.partition("@")[2].partition("/")[0]
            raise ShardError(f"{shard.origin}: {explain(self._repo, commit, error)}") from error

    def _stream(self, shard: RawShard, partial: Path, have: int) -> None:
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        # httpx drops the token when a redirect leaves the hub for a store of signed addresses.
        with get_session().stream(
            "GET",
            self._url(shard),
            headers=headers,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            follow_redirects=True,
        ) as response:
            if response.status_code == 416:
                # The server's file is shorter than the hub lists: the check of the size tells.
                return
            hf_raise_for_status(response)
            with partial.open("r+b" if have else "wb") as handle:
                start = _range_start(response.headers.get("Content-Range")) if response.status_code == 206 else 0
                handle.seek(min(start, have))
                handle.truncate()
                _write_stream(response, handle, shard.bytes)


def _write_stream(response: Any, handle: IO[bytes], expected: int) -> None:
    try:
        # Pieces as they come: a chunk size of our own would keep bytes back, and lose them with the connection.
        for chunk in response.iter_bytes():
            handle.write(chunk)
            handle.flush()
            if handle.tell() > expected:
                break
    finally:
        os.fsync(handle.fileno())


def _range_start(content_range: str | None) -> int:
    # "bytes 100-199/200"
    first = (content_range or "").removeprefix("bytes ").partition("-")[0].strip()
    return int(first) if first.isdigit() else 0


class _Ranges(io.RawIOBase):
    """A file of the hub, a piece at a time."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        last = min(self._at + len(view), self._size) - 1
        if last < self._at:
            return 0
        first = self._at

        def get() -> bytes:
            headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={first}-{last}"}
            response = get_session().get(
                self._url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
            )
            hf_raise_for_status(response)
            content = response.content
            return content if response.status_code == 206 else content[first : last + 1]

        piece = patiently(get)
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
