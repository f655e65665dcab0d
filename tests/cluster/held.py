"""Lets a test hold a task of an array in the middle of writing a shard: a ``sitecustomize`` for its jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SITE = """
import importlib.abc, importlib.util, os, sys, time

FOLDER, STAGE, TASK = {folder!r}, {stage!r}, {task!r}


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "lola_data.shards":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            write = module.ShardWriter.write

            def held(self, *arguments, **options):
                done = write(self, *arguments, **options)
                open(os.path.join(FOLDER, "held"), "w").close()
                while not os.path.exists(os.path.join(FOLDER, "go")):
                    time.sleep(0.05)
                return done

            module.ShardWriter.write = held

        spec.loader.exec_module = exec_module
        return spec


if sys.argv[0] and os.environ.get("SLURM_ARRAY_TASK_ID") == TASK and STAGE in os.environ.get("SLURM_JOB_NAME", ""):
    sys.meta_path.insert(0, Finder())
"""


def hold(folder: Path, stage: str, task: int) -> str:
    """Set it up; shell lines for ``executor.setup``. The task leaves the file ``held``, and goes on when ``go`` is
    there."""
    folder.mkdir(parents=True)
    site = SITE.format(folder=str(folder), stage=stage, task=str(task))
    (folder / "sitecustomize.py").write_text(site)
    return f"export PYTHONPATH={folder}"
