"""Shards of a dataset repository on the Hugging Face hub.

In: a repository and a revision. Out: its Parquet files at the one commit that revision stands for, each fetched into a
local file, gone on with where it broke off (HTTP Range, also in a later run), and checked against the size and the
digest that the hub lists. ``huggingface_hub`` does the protocol: HF_ENDPOINT, HF_TOKEN and the cached login hold. Its
own downloader is not used for the bytes, as it starts a file afresh in every process.

The access token is never put into a message: what the server says is shown with the token blotted out.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import IO, TYPE_CHECKING, Any

from datatrove.utils.logging import logger
from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, parse_ratelimit_headers

from lola_data.errors import ShardError, StageError
from lola_data.languages import LANGUAGES
from pipelines.sources import CHUNK_BYTES, FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, RawShard, Source, raw_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    Result = TypeVar("Result")

ATTEMPTS = 7
"""Attempts in a row that brought nothing before a file is given up: about a minute."""
LISTING_ATTEMPTS = 4
"""Attempts before the listing is given up: someone is waiting for the run to begin."""
MOST_WAIT_SECONDS = 3600.0
"""A server that asks for a longer pause than this is not waited for."""
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP status codes that may go away by themselves."""

# httpx's root error, under whatever name the hub library of the day has it.
_HttpError: type[Exception] = HfHubHTTPError.__mro__[1]


def endpoint() -> str:
    """Address of the hub: HF_ENDPOINT, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


class HubSource(Source):
    """A dataset repository laid out as ``<lang>/*.parquet``.

    Args:
        repo: ``<namespace>/<name>``.
        revision: branch, tag or commit.
        scratch: local folder for files that are not complete yet, and for those that came wrong.
    """

    pinned = True

    def __init__(self, repo: str, revision: str, scratch: Path) -> None:
        self._repo = repo
        self._revision = revision
        self._scratch = scratch
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
        except (_HttpError, OfflineModeIsEnabled) as error:
            raise StageError(explain(self._repo, self._revision, error)) from error

    def _tree(self, path: str | None, *, recursive: bool) -> list[RepoFile | RepoFolder]:
        api = HfApi(endpoint=endpoint())
        try:
            return list(
                api.list_repo_tree(self._repo, path, recursive=recursive, revision=self.commit(), repo_type="dataset")
            )
        except (_HttpError, OfflineModeIsEnabled) as error:
            if path and _header(error, "X-Error-Code") == "EntryNotFound":
                return []
            raise StageError(explain(self._repo, self._revision, error)) from error

    def folders(self) -> list[str]:
        """Folders at the top of the repository."""
        top = self._tree(None, recursive=False)
        return sorted(entry.path for entry in top if isinstance(entry, RepoFolder) and not entry.path.startswith("."))

    def shards(self, languages: list[str] | None) -> list[RawShard]:
        """Parquet files of the languages. Only their folders are listed, and access to the first file is tried."""
        entries: list[RepoFile | RepoFolder] = []
        for lang in [None] if languages is None else languages:
            entries += self._tree(lang, recursive=True)
        files = [entry for entry in entries if isinstance(entry, RepoFile) and entry.path.endswith(".parquet")]
        strays = [file.path for file in files if file.path.split("/")[0] not in LANGUAGES or "/" not in file.path]
        if strays:
            raise StageError(
                f"{self.place}: {strays[0]} does not lie in a folder named by a CulturaX code, <lang>/<shard>.parquet. "
                f"Name the folders to take in `languages`, or fetch the files into such folders and set `source: local`"
            )
        shards = [self._shard(file) for file in sorted(files, key=lambda file: file.path)]
        if shards:
            self._ask(lambda: self._try_access(shards[0]))
        return shards

    def _shard(self, file: RepoFile) -> RawShard:
        digest = f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
        origin = f"hf://datasets/{self._repo}@{self.commit()}/{file.path}"
        return RawShard(file.path.split("/")[0], raw_path(file.path), origin, file.size, digest)

    def _url(self, shard: RawShard) -> str:
        commit, _, path = shard.origin.removeprefix(f"hf://datasets/{self._repo}@").partition("/")
        return hf_hub_url(self._repo, path, repo_type="dataset", revision=commit, endpoint=endpoint())

    def _try_access(self, shard: RawShard) -> None:
        # A gated repository shows its listing to everyone: better to hear of it before work is handed out.
        response = get_session().head(
            self._url(shard), headers=build_hf_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT, follow_redirects=False
        )
        hf_raise_for_status(response)

    def fetch(self, shard: RawShard, target: Path) -> str | None:
        """Bring a file to ``target``, complete and with the listed digest, and return its SHA-256.

        A file that came wrong is kept aside below ``<scratch>/rejected`` and fetched once more.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        # The digest in the name keeps bytes of another version from being added to.
        label = (shard.digest or "unknown").partition(":")[2][:16]
        partial = self._scratch / "partial" / f"{shard.path}.{label}"
        partial.parent.mkdir(parents=True, exist_ok=True)
        faults: list[str] = []
        for number in (1, 2):
            self._complete(shard, partial)
            fault = mismatch(partial, shard)
            if fault is None:
                partial.replace(target)
                kind, _, digest = (shard.digest or "").partition(":")
                return digest if kind == "sha256" else sha256_of(target)
            rejected = self._scratch / "rejected" / f"{shard.path}.{number}"
            rejected.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(rejected)
            faults.append(f"{rejected}: {fault}")
            logger.warning(f"{shard.origin}: came wrong and is set aside as {faults[-1]}")
        raise ShardError(
            f"{shard.origin}: came wrong twice and is not taken in; what came is kept: {'; '.join(faults)}. "
            f"Try again later, or pin another `revision`"
        )

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
        except (_HttpError, OfflineModeIsEnabled) as error:
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


def patiently(
    request: Callable[[], Result], *, progress: Callable[[], int] | None = None, attempts: int = ATTEMPTS
) -> Result:
    """Call ``request`` until it returns; wait between attempts, as long as the server asks or twice as long each time.

    Args:
        request: may raise HTTP errors; those that may pass (429, 5xx, dropped connections) are waited out.
        progress: a number that grows when an attempt that failed has brought something; it then does not count.
        attempts: how many in a row may bring nothing.

    Raises:
        The last error, after ``attempts`` in a row that brought nothing; at once if it cannot pass.
    """
    failures = 0
    reached = progress() if progress else 0
    while True:
        try:
            return request()
        except _HttpError as error:
            status = _status(error)
            if status is not None and status not in RETRIED:
                raise
            if progress and progress() > reached:
                failures, reached = 0, progress()
            failures += 1
            asked = _asked_to_wait(error)
            if failures >= attempts or (asked or 0.0) > MOST_WAIT_SECONDS:
                raise
            backoff = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (failures - 1))
            wait = asked if asked is not None else backoff * random.uniform(0.5, 1.0)
            logger.info(f"{_short(error)}: waiting {wait:.1f} s, then attempt {failures + 1} of {attempts}")
            time.sleep(wait)


def _asked_to_wait(error: Exception) -> float | None:
    """Seconds that the server asks to be left alone, if it does."""
    asked = _header(error, "Retry-After").strip()
    if asked.isdigit():
        return float(asked)
    if asked:
        try:
            return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return None
    if _status(error) == 429:
        limit = parse_ratelimit_headers(error.response.headers)  # pyright: ignore[reportAttributeAccessIssue]
        if limit is not None and limit.remaining == 0:
            return float(limit.reset_in_seconds)
    return None


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _header(error: Exception, name: str) -> str:
    response = getattr(error, "response", None)
    return str(response.headers.get(name, "")) if response is not None else ""


def _short(error: Exception) -> str:
    status = _status(error)
    return f"HTTP {status}" if status is not None else without_token(f"{type(error).__name__}: {error}".strip(": "))


def without_token(text: str) -> str:
    """``text`` on one line, with the access token blotted out."""
    token = get_token()
    line = " ".join(text.split())
    return line.replace(token, "***") if token else line


def explain(repo: str, revision: str, error: Exception) -> str:
    """What an error of the hub means for the user, and what to do; one line without the token."""
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo}: HF_HUB_OFFLINE is set, so nothing can be fetched; unset it and run again"
    page = f"{endpoint()}/datasets/{repo}"
    status, code = _status(error), _header(error, "X-Error-Code")
    said = without_token(_header(error, "X-Error-Message"))
    if status == 401 and get_token():
        return (
            f"{page}: the hub refuses your access token (expired, revoked or mistyped; 401): log in again with "
            f"`hf auth login`, or set HF_TOKEN to a valid one"
        )
    if status == 401:
        return (
            f"{page}: you are not logged in, and the repository is gated, private or not there (401): accept its terms "
            f"on that page, then log in with `hf auth login` (`huggingface-cli login`) or set HF_TOKEN"
        )
    if status == 403 and ("fine-grained" in said or "scope" in said or "token settings" in said):
        return (
            f"{page}: your access token lacks the scope (403): allow it to read gated repositories on "
            f"{endpoint()}/settings/tokens, or set HF_TOKEN to another one"
        )
    if status == 403 and (code == "GatedRepo" or "gated" in said.lower()):
        return f"{page}: its terms are not accepted yet by this account (403): visit that page, accept them, run again"
    if status == 403:
        return f"{page}: access refused (403{': ' + said if said else ''}): see that page, and what your token may read"
    if code == "RevisionNotFound":
        return f"{page}: no revision `{revision}`; give a branch, tag or commit that the page lists"
    if status == 404:
        return f"{page}: not found (404{': ' + said if said else ''}); check `repo`, and that your token may see it"
    if status is not None:
        return f"{page}: the hub answers {status}{': ' + said if said else ''}; run the same command again later"
    return (
        f"{page}: cannot be reached ({_short(error)}): check the network, the proxy and HF_ENDPOINT, then run the same "
        f"command again"
    )


def mismatch(path: Path, shard: RawShard) -> str | None:
    """How a local file differs from what the hub lists, or None."""
    size = path.stat().st_size
    if size != shard.bytes:
        return f"{size:,} bytes instead of {shard.bytes:,}"
    kind, _, expected = (shard.digest or "").partition(":")
    if kind == "sha256" and (found := sha256_of(path)) != expected:
        return f"sha256 {found} instead of {expected}"
    if kind == "git" and (found := git_blob_id(path)) != expected:
        return f"git blob {found} instead of {expected}"
    return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def git_blob_id(path: Path) -> str:
    """The name git gives to a file's content: SHA-1 of ``blob <size>``, a NUL and the bytes."""
    with path.open("rb") as handle:
        state = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := handle.read(CHUNK_BYTES):
            state.update(chunk)
        return state.hexdigest()
