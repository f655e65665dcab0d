"""Where compiled functions are kept when neither the package nor the home folder can be written to.

numba keeps them beside the source file, else in the user's cache folder, and where it can do neither it refuses to be
imported with. Then a folder of the user's own among the temporary files is named to it. Standard library only: this
runs whenever the package is imported.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path


def ensure_cache() -> None:
    """See to it that numba finds a folder to keep compiled functions in."""
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (it never raises)
    if os.environ.get("NUMBA_CACHE_DIR") or any(map(_writable, (Path(__file__).parent / "__pycache__", Path(user)))):
        return
    try:
        folder = _own_folder()
    except OSError:
        return  # No temporary file can be written either; what is done next will tell.
    # For the processes started from here on, and for numba where it has been imported before.
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)


def is_compiled(source: str, function: str) -> bool:
    """Whether a compiled function is kept already. ``source``: path of its file below the folder of the packages.

    An answer for forecasts: what was compiled for another processor or from another source counts as well.
    """
    path = Path(__file__).parents[1] / source
    name = f"{path.stem}.{function}-*.nbi"
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return any(Path(chosen).rglob(name))
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return any((path.parent / "__pycache__").glob(name)) or any(Path(user, "numba").rglob(name))


def _writable(folder: Path) -> bool:
    """Whether files can be put into a folder, which is made if it is not there."""
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _own_folder() -> Path:
    """A folder that nobody else can put code into: the same each time, unless another user has taken the name."""
    # Imported where it is needed, for it takes longer than all the rest.
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"lola-data-numba-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            return Path(tempfile.mkdtemp(prefix="lola-data-numba-"))
    return folder
