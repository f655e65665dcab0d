"""Every stage of a tiny run once for each of its operations on files, with that one failing; a program of its own,
since an audit hook cannot be taken out of an interpreter again.

In: a folder. Out, as JSON: for each stage, its operations, and what was not as it must be.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.chaos.source import ONLY, STAGES, make_source, write_recipe
from lola_data.cli import main

CODES = (errno.ENOSPC, errno.ESTALE, errno.EACCES)
"""A full disk, a file system whose server is gone, no rights; in turn."""
NEVER = ("This is a bug", "unexpected", "Traceback", "Exception ignored")


class FailingOperation:
    """An audit hook that fails the ``left``-th opening for writing, renaming or making of folders below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = f"{root}/"
        self.left = 0
        self.failed = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.left or event not in {"open", "os.rename", "os.mkdir"} or isinstance(arguments[0], int):
            return
        path = os.fsdecode(arguments[0])
        if not path.startswith(self.root):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        self.left -= 1
        if not self.left:
            self.failed = f"{event} {path}"
            code = CODES[len(path) % len(CODES)]
            raise OSError(code, os.strerror(code), path)


def run(recipe: Path, only: tuple[str, ...]) -> tuple[int, str]:
    """Exit code of ``lola-data run`` in this process, and what it printed; a traceback is one here too."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(["run", str(recipe), *only])
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
        except BaseException as error:
            return -1, f"{said.getvalue()}Traceback: {error!r}"
    return 0, said.getvalue()


def files(work: Path) -> dict[str, bytes]:
    """All files but logs, the run's own records, and manifests, which tell of times."""
    return {
        name: path.read_bytes()
        for path in sorted(work.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
        for name in [str(path.relative_to(work))]
        if not name.startswith(("logs/", "state/"))
    }


def try_stage(stage: str, root: Path, recipe: Path, calm: dict[str, bytes], hook: FailingOperation) -> dict[str, Any]:
    """Fail each operation of a stage. Its tree is whole afterwards."""
    work, before = root / "work", root / "before"
    shutil.rmtree(before, ignore_errors=True)
    work.mkdir(exist_ok=True)
    shutil.copytree(work, before)
    wrong: list[str] = []
    codes: set[int] = set()
    operations = 0
    while True:
        shutil.rmtree(work)
        shutil.copytree(before, work)
        hook.left, hook.failed = operations + 1, ""
        code, said = run(recipe, ("--only", stage))
        hook.left = 0
        if not hook.failed:
            return {"operations": operations, "codes": sorted(codes), "wrong": wrong}
        operations += 1
        codes.add(code)
        if code not in (0, 1) or any(word in said for word in NEVER) or (code and "lola-data: error: " not in said):
            wrong.append(f"{hook.failed}: exit code {code}: {said[-600:]}")
        code, said = run(recipe, ("--only", stage))
        made = files(work)
        if code or any(calm.get(name) != content for name, content in made.items()):
            wrong.append(f"{hook.failed}, then again: exit code {code}: {said[-600:]}")


if __name__ == "__main__":
    root = Path(sys.argv[1])
    make_source(root / "source", {"en": 12, "sw": 12}, 1)
    recipe = write_recipe(root / "recipe.yaml", root / "source", str(root / "work"), 1)
    hook = FailingOperation(root / "work")
    sys.addaudithook(hook)
    code, said = run(recipe, ONLY)
    assert code == 0, said
    calm = files(root / "work")
    shutil.rmtree(root / "work")
    told = {stage: try_stage(stage, root, recipe, calm, hook) for stage in STAGES}
    print(json.dumps({"stages": told, "same": files(root / "work") == calm}))
