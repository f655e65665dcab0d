"""Token shards on a store, read without a copy on this machine: the index in one request, a document in another.

In: the URL of a shard without ``.bin`` or ``.idx``. Out: what :class:`lola_data.tokens.TokenShard` gives of a local
one, but for ``tokens``. The trainer, which reads all of them over and over, keeps a cache: :mod:`train.shard_cache`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lola_data import storage
from lola_data.errors import ShardError
from lola_data.remote_objects import open_object
from lola_data.tokens import TokenShard, parse_index

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RemoteTokenShard(TokenShard):
    """A token shard at a URL.

    ``prefix`` has its path, for names; ``url`` its address. ``document`` reads one document by its range. Of the ids
    as a whole there is no array.

    Raises:
        ShardError: a file that is missing, truncated, of another format, or the two files do not belong together.
    """

    def __init__(self, url: str, *, index: bytes | None = None, size: int | None = None) -> None:
        """Open the shard.

        Args:
            url: without ``.bin`` or ``.idx``.
            index: content of the index, if it is known.
            size: bytes of the file of ids, if they are known.
        """
        self.url = url
        self.prefix = Path(url.partition("://")[2])
        idx, ids = f"{url}.idx", f"{url}.bin"
        try:
            content = storage.read_bytes(idx) if index is None else index
        except FileNotFoundError as error:
            raise ShardError(f"{idx}: is not there; a shard is the pair of files .bin and .idx") from error
        try:
            found = storage.size(ids) if size is None else size
        except FileNotFoundError as error:
            raise ShardError(f"{ids}: is not there; an index needs its .bin file beside it") from error
        self._take_index(parse_index(content, idx), idx, ids, found)

    def _ids(self, start: int, end: int) -> NDArray[np.integer]:
        size = self.dtype.itemsize
        with open_object(f"{self.url}.bin", ahead=0, tail=0) as handle:
            handle.seek(start * size)
            return np.frombuffer(handle.read((end - start) * size), self.dtype.newbyteorder("<"))


def open_token_shard(prefix: str) -> TokenShard:
    """A token shard, local or at a URL, for a look at single documents.

    Raises:
        ShardError: it cannot be read.
    """
    return RemoteTokenShard(prefix) if storage.is_remote(prefix) else TokenShard(storage.local_path(prefix))
