"""The language identification models known by name: where they lie, how they are fetched and what proves them right.

In: a registered name or the path of a fastText model. Out: a local path. ``lid.176.ftz`` comes with the package; the
others are downloaded once into ``$LOLA_DATA_CACHE/models`` (default ``~/.cache/lola-data/models``), under a lock, into
a ``.part`` file that a later call goes on with, and take their final name only when their SHA-256 is the pinned one.

The pinned digests are those that the publishers' files are known by: the LFS digests of the named hub revisions, and
for lid.176, which is published without one, the digest that independent public projects pin.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from lola_data.errors import LolaError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 20
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A published model.

    Attributes:
        name: what recipes call it.
        url: where it is published; empty where it is embedded.
        sha256: digest of the file, in hex.
        licence: SPDX identifier of the model's licence; the user of a downloaded model is bound by it.
        size: bytes, or None where not known beforehand.
        resource: file name under ``lola_data/resources``, or None.
    """

    name: str
    url: str
    sha256: str
    licence: str
    size: int | None = None
    resource: str | None = None


_HUB = "https://huggingface.co"

REGISTRY: dict[str, RegisteredModel] = {
    model.name: model
    for model in (
        RegisteredModel(
            name="lid.176.ftz",
            url="",
            sha256="8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
            licence="CC-BY-SA-3.0",
            size=938_013,
            resource="lid.176.ftz",
        ),
        RegisteredModel(
            name="lid.176.bin",
            url="https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.bin",
            sha256="7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e",
            licence="CC-BY-SA-3.0",
            size=131_266_198,
        ),
        RegisteredModel(
            name="glotlid-v3",
            url=f"{_HUB}/cis-lmu/glotlid/resolve/85cd6716494360367b75f642b5bc78667605d0b4/model_v3.bin",
            sha256="a818b6bd42a628ab47d3dfc1578c7ea615c45381f3494c42535e31e8c4cafc9e",
            licence="Apache-2.0",
            size=1_687_094_687,
        ),
        RegisteredModel(
            name="openlid-v2",
            url=f"{_HUB}/laurievb/OpenLID-v2/resolve/10b538ebcc452255917c8bdfc38faa49af134cd2/model.bin",
            sha256="f01b47c6182909291a3394f77f682031aaeade346e443c4e496e94bd2a9fa703",
            licence="GPL-3.0-only",
        ),
    )
}
"""Models by name. Those without ``resource`` are downloaded when first asked for."""


def model_path(model: str, *, said: str = "identify.model") -> Path:
    """Local path of a registered model, downloaded if need be, or ``model`` itself where it is the path of a file.
    ``said`` is where it was named, for a message.

    Raises:
        RecipeError: neither a registered name nor a file.
        LolaError: the download failed or brought another file than the pinned one.
    """
    registered = REGISTRY.get(model)
    if registered is not None:
        return fetch(registered, cache_dir())
    path = Path(model).expanduser()
    if not path.is_file():
        raise RecipeError(
            f"{said}: {model!r} is neither a file nor one of the registered models ({', '.join(REGISTRY)})"
        )
    return path


def cache_dir() -> Path:
    """Folder of downloaded models: ``$LOLA_DATA_CACHE/models``, by default ``~/.cache/lola-data/models``."""
    root = os.environ.get("LOLA_DATA_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "lola-data") / "models"


def fetch(model: RegisteredModel, folder: Path) -> Path:
    """Path of ``model`` in the package or in ``folder``, where it is put first if it is not there yet.

    A file under its final name has been checked and is not checked again. Processes that ask at the same time wait for
    the one that downloads.

    Raises:
        LolaError: offline, refused, cut off, no space, or a file that is not the pinned one (it is deleted).
    """
    if model.resource is not None:
        return Path(str(files("lola_data") / "resources" / model.resource))
    path = folder / f"{model.sha256[:16]}-{model.name}"
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(path.name + ".lock")):
            if not path.is_file():
                _download(model, path)
    except OSError as error:
        reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        raise LolaError(
            f"model {model.name!r}: cannot fetch {_mirrored(model.url)} into {folder}: {reason}; run again to go on "
            f"where it stopped, or download the file by other means and give its path as identify.model"
        ) from error
    return path


def _download(model: RegisteredModel, path: Path) -> None:
    """Fetch into ``<path>.part``, going on with what is there, check it and give it its name."""
    part = path.with_name(path.name + ".part")
    digest = hashlib.sha256()
    have = 0
    if part.exists():
        with part.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                have += len(block)
    request = urllib.request.Request(_mirrored(model.url), headers={"User-Agent": "lola-data"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # The part is as long as the file or longer: it cannot be gone on with, only judged.
            _accept(model, part, path, digest.hexdigest())
            return
        raise
    with response:
        if have and response.status != 206:
            digest, have = hashlib.sha256(), 0
        announced = response.headers.get("Content-Length")
        expected = have + int(announced) if announced else None
        with part.open("ab" if have else "wb") as stream:
            while block := response.read(_BLOCK):
                stream.write(block)
                digest.update(block)
                have += len(block)
            stream.flush()
            os.fsync(stream.fileno())
    if expected is not None and have < expected:
        raise OSError(f"the connection was cut after {have} of {expected} bytes")
    _accept(model, part, path, digest.hexdigest())


def _accept(model: RegisteredModel, part: Path, path: Path, digest: str) -> None:
    if digest != model.sha256:
        part.unlink()
        raise LolaError(
            f"model {model.name!r}: the file from {_mirrored(model.url)} has SHA-256 {digest}, not the pinned "
            f"{model.sha256}; it was deleted. Run again if the connection may be to blame; else the publisher has "
            "changed the file: download the one you trust and give its path as identify.model"
        )
    part.replace(path)


def _mirrored(url: str) -> str:
    """``url``, with the hub's address replaced by ``$HF_ENDPOINT`` as the hub's own client does."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return url.replace(_HUB, endpoint, 1) if endpoint and url.startswith(_HUB + "/") else url


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
