"""Token files that other tools wrote, as shards: a folder without a manifest in, :class:`ForeignShard` records out.

Read are Megatron-Core's pairs ``<name>_text_document.{bin,idx}`` (its ``tools/preprocess_data.py``) and datatrove's
``<name>.ds`` with ``<name>.ds.index`` (``DocumentTokenizer``, ``DocumentTokenizerMerger``). Neither says which language
a file is of, so its name or its folder does: see :func:`language_of`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lola_data.errors import ShardError
from lola_data.tokens import MAX_DOCUMENT_TOKENS, TokenShard, bin_path, idx_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLITS = ("train", "valid")
"""Folders that are no language; what lies in none of them is training text."""
_LEVEL = re.compile(r"_[^_]+_(document|sentence)$")
"""What Megatron-Core's tool adds to the prefix: the key of the text in the JSON, and the level it was cut at."""
_NUMBERS = re.compile(r"^\d+(?:_|$)|(?:_|^)(?:\d+|shuffled|unshuffled|tokenized)$")


class ForeignShard(NamedTuple):
    """A shard by what its place in the folder says.

    Attributes:
        path: below the folder, without the suffix of Megatron-Core's pair, with that of datatrove's file.
        split: ``train`` or ``valid``.
        lang: name of the language.
        files: what it consists of; the last holds the token ids.
    """

    path: str
    split: str
    lang: str
    files: tuple[Path, ...]

    def open(self, root: Path) -> TokenShard:
        """The shard, checked for its own sense.

        Raises:
            ShardError: see :class:`lola_data.tokens.TokenShard` and :class:`DatatroveShard`.
        """
        return DatatroveShard(root / self.path) if self.path.endswith(".ds") else TokenShard(root / self.path)


class DatatroveShard(TokenShard):
    """A token file of datatrove, opened for reading with the attributes of a :class:`~lola_data.tokens.TokenShard`.

    ``<name>.ds`` is nothing but ids, uint16 or uint32, little-endian; ``<name>.ds.index`` holds uint64[D], where each
    document ends, in tokens; ``<name>.ds.metadata``, if it is there, ends its first line with ``|`` and the bytes of a
    token. Loss masks (``.ds.loss``) are not read: every token is a target.

    Args:
        path: of the ``.ds`` file.

    Raises:
        ShardError: a file that is missing or truncated, or files that do not belong together.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.prefix = Path(path)
        index = index_path(path)
        try:
            size = self.prefix.stat().st_size
        except OSError as error:
            raise ShardError(f"{self.prefix}: {error.strerror or error}; {index.name} needs it beside it") from error
        try:
            raw = index.read_bytes()
        except OSError as error:
            raise ShardError(
                f"{index}: {error.strerror or error}; without it the documents of {self.prefix.name} have no ends: "
                "write the tokens with save_index=True"
            ) from error
        if len(raw) % 8:
            raise ShardError(f"{index}: is truncated: {len(raw):,} bytes are no whole number of uint64; {_AGAIN}")
        ends = np.frombuffer(raw, "<u8").astype(np.int64)
        lengths = np.diff(ends, prepend=0)
        if lengths.size and lengths.min() < 0:
            raise ShardError(f"{index}: document {int(lengths.argmin())} ends before it begins; {_AGAIN}")
        if lengths.size and lengths.max() > MAX_DOCUMENT_TOKENS:
            raise ShardError(f"{index}: document {int(lengths.argmax())} has 2^31 tokens or more; split it")
        tokens = int(ends[-1]) if ends.size else 0
        told = _token_size(self.prefix)
        itemsize = told or next((width for width in (2, 4) if tokens * width == size), 0)
        if tokens * itemsize != size:
            widths = (itemsize,) if itemsize else (2, 4)
            needed = " or ".join(f"{tokens * width:,}" for width in widths)
            raise ShardError(f"{self.prefix}: {size:,} bytes where {index.name} names {needed}; {_AGAIN}")
        self.dtype = np.dtype(np.uint32 if itemsize == 4 else np.uint16)
        self.lengths: NDArray[np.int32] = lengths.astype(np.int32)
        self.pointers: NDArray[np.int64] = (ends - lengths) * self.dtype.itemsize
        self.num_documents, self.num_tokens = int(lengths.size), tokens
        self.tokens: NDArray[np.integer] = (
            np.memmap(self.prefix, self.dtype.newbyteorder("<"), "r") if size else np.zeros(0, self.dtype)
        )
        self.tokens.flags.writeable = False


def index_path(path: str | os.PathLike[str]) -> Path:
    """The file of document ends of the ``.ds`` file ``path``."""
    return Path(f"{os.fspath(path)}.index")


def find_foreign_shards(root: Path) -> list[ForeignShard]:
    """The token files of ``root`` and its folders, in order of their paths; hidden ones are left out.

    Raises:
        ShardError: two kinds of files in one folder tree, or a file without its other half.
    """
    paths = sorted(path for path in root.rglob("*") if not any(part[0] == "." for part in path.relative_to(root).parts))
    pairs = {path.with_suffix("") for path in paths if path.suffix in (".bin", ".idx") and path.is_file()}
    trove = {path.with_suffix("") if path.suffix == ".index" else path for path in paths if _is_trove(path)}
    if pairs and trove:
        raise ShardError(
            f"{root}: holds both .bin/.idx pairs ({min(pairs).name}) and .ds files ({min(trove).name}); "
            "name a folder with one of them"
        )
    found = [_placed(root, prefix, (idx_path(prefix), bin_path(prefix))) for prefix in sorted(pairs)]
    found += [_placed(root, path, (index_path(path), path)) for path in sorted(trove)]
    for shard in found:
        for file in shard.files:
            if not file.is_file():
                other = next(one for one in shard.files if one != file)
                raise ShardError(f"{file}: is not there; {other.name} needs it beside it")
    return found


def language_of(path: Path, root: Path) -> str:
    """The language of a token file: the folder it lies in, or its name without numbers and what the tools add.

    Folders ``train`` and ``valid`` are no languages. A file whose name is nothing but numbers is of the language that
    ``root`` is called by.

    >>> [language_of(Path("t") / name, Path("t")) for name in ("de/00000_shuffled.ds", "train/sw_text_document.idx")]
    ['de', 'sw']
    >>> [language_of(Path("t/yo") / name, Path("t/yo")) for name in ("000_yo-merged.ds", "00000_00001_shuffled.ds")]
    ['yo-merged', 'yo']
    """
    folders = [part for part in path.relative_to(root).parts[:-1] if part not in SPLITS]
    if folders:
        return folders[-1]
    stem = path.name.removesuffix(".index").removesuffix(".ds").removesuffix(".bin").removesuffix(".idx")
    stem = _LEVEL.sub("", stem)
    while (shorter := _NUMBERS.sub("", stem)) != stem:
        stem = shorter
    return stem or root.resolve().name


def _placed(root: Path, path: Path, files: tuple[Path, ...]) -> ForeignShard:
    relative = path.relative_to(root)
    split = "valid" if "valid" in relative.parts[:-1] else "train"
    return ForeignShard(relative.as_posix(), split, language_of(path, root), files)


def _is_trove(path: Path) -> bool:
    return path.name.endswith((".ds", ".ds.index")) and path.is_file()


def _token_size(path: Path) -> int:
    """Bytes of a token by the metadata file; 0 if that does not say."""
    try:
        first = Path(f"{path}.metadata").read_text("utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return 0
    size = first.rpartition("|")[2]
    return int(size) if size in ("2", "4") else 0


_AGAIN = "write the tokens again"
