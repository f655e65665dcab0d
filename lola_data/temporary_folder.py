"""A folder of the user's own among the temporary files, for what must be found again by the next run."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from lola_data.errors import StageError


def own_temporary_folder() -> Path:
    """A folder in which nobody else can lay a file or a link, made if it is not there; the same each time.

    Raises:
        StageError: another user has taken the name, or may write there.
    """
    folder = Path(tempfile.gettempdir()) / f"lola-data-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise StageError(f"{folder}: is not yours alone; delete it, or set TMPDIR to a folder of your own")
    return folder
