"""The folder among the temporary files is the user's alone, or refused."""

from __future__ import annotations

import os
import stat
import tempfile
from typing import TYPE_CHECKING

import pytest

from lola_data.errors import StageError
from lola_data.temporary_folder import own_temporary_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_it_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    folder = own_temporary_folder()
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "kept").touch()
    assert own_temporary_folder() == folder
    assert (folder / "kept").exists()


@pytest.mark.parametrize("kind", ["link", "open to all", "file"])
def test_what_another_has_laid_there_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / f"lola-data-{os.getuid()}"
    if kind == "link":
        (tmp_path / "theirs").mkdir()
        place.symlink_to(tmp_path / "theirs")
    elif kind == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    with pytest.raises(StageError, match="is not yours alone; delete it, or set TMPDIR"):
        own_temporary_folder()
