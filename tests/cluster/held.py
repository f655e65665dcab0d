"""Changes what the jobs of a test do, by a ``sitecustomize``: a task is held while it writes, a trainer slowed down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SITE = """
import importlib.abc, importlib.util, os, sys, time


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


{change}

if {where}:
    sys.meta_path.insert(0, Finder())
"""
HOLD = """
def change(module):
    write = module.ShardWriter.write

    def held(self, *arguments, **options):
        done = write(self, *arguments, **options)
        open(os.path.join({folder!r}, "held"), "w").close()
        while not os.path.exists(os.path.join({folder!r}, "go")):
            time.sleep(0.05)
        return done

    module.ShardWriter.write = held
"""
SLOW = """
def change(module):
    step = module.train_step

    def slow(*arguments, **options):
        time.sleep({seconds})
        return step(*arguments, **options)

    module.train_step = slow
"""


def _site(folder: Path, module: str, change: str, where: str) -> str:
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(SITE.format(module=module, change=change, where=where))
    return f"export PYTHONPATH={folder}"


def hold(folder: Path, stage: str, task: int) -> str:
    """Shell lines for ``executor.setup``: a task of a stage leaves the file ``held`` while it writes a shard, and goes
    on when ``go`` is there."""
    here = f"{stage!r} in os.environ.get('SLURM_JOB_NAME', '') and '--offset' not in sys.orig_argv"
    where = f"os.environ.get('SLURM_ARRAY_TASK_ID') == '{task}' and {here}"
    return _site(folder, "lola_data.shards", HOLD.format(folder=str(folder)), where)


def slow(folder: Path, seconds: float) -> str:
    """Shell lines for ``executor.setup``: each step of a training takes so much longer."""
    return _site(folder, "train.step", SLOW.format(seconds=seconds), "True")
