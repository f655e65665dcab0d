"""The work folder that a command means when none is named: the one it is called in, or the only one below it."""

from __future__ import annotations

import re
from pathlib import Path

from lola_data.errors import RecipeError
from lola_data.layout import Layout

_ID = re.compile(r"[^/]+/.+/(0|[1-9][0-9]*)")


def means_document(path: str) -> bool:
    """Whether an argument that may be a path or the id of a document can only be an id: ``<lang>/<shard>/<row>``."""
    return _ID.fullmatch(path) is not None and "://" not in path and not Path(path).exists()


def workdir_here(folder: Path) -> str:
    """The work folder that ``folder`` is or lies in, else the only one in it or one level deeper.

    Raises:
        RecipeError: there is none, or more than one; the message names them.
    """
    folder = folder.resolve()
    for candidate in (folder, *folder.parents):
        if _is_work_folder(candidate):
            return str(candidate)
    below = [one for pattern in ("*", "*/*") for one in sorted(folder.glob(pattern)) if _is_work_folder(one)]
    if len(below) == 1:
        return str(below[0])
    found = f"several: {', '.join(str(one.relative_to(folder)) for one in below)}" if below else "none"
    raise RecipeError(
        f"{folder}: the work folder of a run is looked for here, and there is {found}; name it before the id"
    )


def _is_work_folder(path: Path) -> bool:
    return path.is_dir() and (layout := Layout.found_at(str(path))) is not None and not layout.hidden
