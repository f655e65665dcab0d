"""An installation and a home folder that cannot be written to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lola_data

USE = "import numpy, lola_data.scripts, lola_data.words, os; print(os.environ.get('NUMBA_CACHE_DIR'))"


def use(folder: Path, code: str = USE, **environment: str) -> str:
    """The standard output of Python code that imports the copy of the package below ``folder``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "XDG"))}
    given = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder / "tmp"), **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=kept | given, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def installed(folder: Path) -> Path:
    """A copy in which nothing can be kept, whoever runs the tests: a file is where the folder would be."""
    (folder / "tmp").mkdir()
    package = Path(lola_data.__file__).parent
    shutil.copytree(package, folder / "lola_data", ignore=shutil.ignore_patterns("__pycache__", "sample"))
    (folder / "lola_data" / "__pycache__").write_text("")
    return folder


def test_compiled_functions_are_kept_among_the_temporary_files(tmp_path: Path) -> None:
    folder = installed(tmp_path)
    cache = folder / "tmp" / f"lola-data-numba-{os.getuid()}"
    assert use(folder, HOME="/dev/null") == str(cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    # numba imported first: it has read its settings by then.
    assert use(folder, f"import numba\n{USE}", HOME="/dev/null") == str(cache)


def test_another_s_folder_of_that_name_is_not_trusted(tmp_path: Path) -> None:
    folder = installed(tmp_path)
    cache = folder / "tmp" / f"lola-data-numba-{os.getuid()}"
    cache.mkdir(mode=0o700)
    cache.chmod(0o777)
    chosen = Path(use(folder, HOME="/dev/null"))
    assert chosen != cache
    assert chosen.parent == folder / "tmp"
    assert chosen.stat().st_mode & 0o777 == 0o700
    assert list(cache.iterdir()) == []


def test_nothing_changes_where_numba_can_write(tmp_path: Path) -> None:
    folder = installed(tmp_path)
    (folder / "home").mkdir()
    assert use(folder, HOME=str(folder / "home")) == "None"
    assert use(folder, HOME="/dev/null", NUMBA_CACHE_DIR=str(folder / "mine")) == str(folder / "mine")
    (folder / "lola_data" / "__pycache__").unlink()
    assert use(folder, HOME="/dev/null") == "None"
    assert list((folder / "tmp").iterdir()) == []


def test_what_is_kept_is_known(tmp_path: Path) -> None:
    ask = "print(is_compiled('lola_data/unit_hash.py', '_xxh64_rows'))"
    code = (
        f"from lola_data.compile_cache import is_compiled; {ask}\n"
        f"import pyarrow; from lola_data.unit_hash import xxh64; xxh64(pyarrow.array(['a', 'b']), 0)\n{ask}"
    )
    top = Path(lola_data.__file__).parents[1]
    assert use(top, code, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["False", "True"]
    assert use(top, f"from lola_data.compile_cache import is_compiled; {ask}", NUMBA_CACHE_DIR=str(tmp_path)) == "True"
