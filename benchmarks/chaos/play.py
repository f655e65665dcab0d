"""One seed's run under way: it is started, killed and started again in a work folder, and judged each time it ends.

In: a :class:`Lane`, which lends processes, a store and calm runs to one seed at a time. Out: what was wrong.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.chaos.places import BUCKET, SmallDisk, Store, room, tree
from benchmarks.chaos.rows import wrong_rows
from benchmarks.chaos.source import ONLY, make_source, write_recipe
from benchmarks.chaos.starter import Started, Starter
from benchmarks.chaos.within import Faults

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 240.0
"""Seconds after which a run is taken to hang. One takes 1 to 30."""
STORE_DOCUMENTS, STORE_SHARDS = {"en": 20, "sw": 14}, 2
"""Of the corpus of runs on the store, where every file costs requests."""


@dataclass(frozen=True)
class Calm:
    """A run that nothing happened to. ``bytes`` and ``files`` (and folders): what it takes of a disk."""

    source: Path
    tree: dict[str, bytes]
    seconds: float
    bytes: int
    files: int


class Lane:
    """What one seed after the other is run with."""

    def __init__(self, folder: Path, *, store: bool = True) -> None:
        self.folder = folder
        sources = folder / "source", folder / "store-source"
        make_source(sources[0])
        make_source(sources[1], STORE_DOCUMENTS, STORE_SHARDS)
        self.store: Store | None = None
        environment: dict[str, str] = {"LOLA_CHAOS_SOURCE": str(sources[0])}
        if store:
            self.store = Store(folder / "store.log")
            environment |= self.store.environment
        try:
            self.starter = Starter(folder / "starter", environment)
            try:
                self.calm, self.calm_on_store = (self._calm(source) for source in sources)
            except BaseException:
                self.starter.close()
                raise
        except BaseException:
            if self.store is not None:
                self.store.close()
            raise

    def _calm(self, source: Path) -> Calm:
        """Two tasks, on a disk. The first run warms up; both must come out the same."""
        trees: list[dict[str, bytes]] = []
        place, seconds = self.folder / f"calm-{source.name}", 0.0
        for _ in range(2):
            shutil.rmtree(place, ignore_errors=True)
            recipe = write_recipe(place / "recipe.yaml", source, str(place / "work"), 2)
            started = self.starter.start(["run", str(recipe), *ONLY], Faults())
            self.starter.wait(started, PATIENCE)
            if started.code != 0:
                raise RuntimeError(f"the calm run failed: {started.text}")
            seconds = time.monotonic() - started.began
            trees.append(tree(place / "work"))
        if trees[0] != trees[1]:
            raise RuntimeError("two calm runs differ")
        files = sum(1 for _ in (place / "work").rglob("*"))
        return Calm(source, trees[0], seconds, room(place / "work"), files)

    def close(self) -> None:
        """End all processes."""
        self.starter.close()
        if self.store is not None:
            self.store.close()


@dataclass
class Play:
    """A seed.

    Attributes:
        injected: faults that have come about.
        starts: of the command.
        wrong: what must not be, in words.
    """

    seed: int
    lane: Lane
    folder: Path
    on_store: bool = False
    disk: SmallDisk | None = None
    injected: int = 0
    starts: int = 0
    wrong: list[str] = field(default_factory=list)
    ended: list[Started] = field(default_factory=list)
    emptied: set[str] = field(default_factory=set)
    """Records that a loss of power has emptied. Those of a finished stage are not asked for, and may stay so."""
    may_end: tuple[int, ...] = ()
    """Exit codes that are right for the run that ends next, besides 0, 1 and that of SIGKILL."""

    def __post_init__(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.drawn = random.Random(self.seed)
        self.prefix = f"seed-{self.seed}"
        self.journal = self.folder / "journal"
        self.tasks = self.drawn.choice([1, 1, 2]) if self.on_store else self.drawn.choice([1, 2, 3])

    @property
    def calm(self) -> Calm:
        """The run that this one must come out as."""
        return self.lane.calm_on_store if self.on_store else self.lane.calm

    @property
    def store(self) -> Store:
        """The store, of a run that works there."""
        assert self.lane.store is not None
        return self.lane.store

    @property
    def workdir(self) -> str:
        """Its work folder."""
        return (
            f"s3://{BUCKET}/{self.prefix}"
            if self.on_store
            else str((self.disk.folder if self.disk else self.folder) / "work")
        )

    def begin(self, faults: Faults | None = None, *options: str, tasks: int | None = None) -> Started:
        """Start the command."""
        recipe = write_recipe(self.folder / "recipe.yaml", self.calm.source, self.workdir, tasks or self.tasks)
        self.starts += 1
        given = replace(faults or Faults(), workdir=self.workdir, journal=str(self.journal))
        return self.lane.starter.start(["run", str(recipe), *ONLY, *options], given)

    def end(self, started: Started, *, others: Sequence[Started] = ()) -> int:
        """Wait for a run's end and judge it: 0 or 1, or by SIGKILL; one line of error and no traceback. The code.

        ``others``: the runs of which one may hold the work folder.
        """
        if not self.lane.starter.wait(started, PATIENCE):
            self.lane.starter.dump(started)
            self.lane.starter.kill(started, tasks=True)
            self._tell("hang", started, f"no end after {PATIENCE:.0f} s")
            return -9
        self.ended.append(started)
        text, code = started.text, started.code or 0
        for word in ("Traceback", "This is a bug", "Exception in thread", "Exception ignored"):
            if word in text:
                self._tell("traceback", started, word)
        if code not in (0, 1, -signal.SIGKILL, *self.may_end):
            self._tell("exit code", started, str(code))
        self.may_end = ()
        if code == 1:
            if "lola-data: error: " not in text:
                self._tell("message", started, "exit code 1 without a line that says why")
            if ": in use by " in text:
                self._check_holder(started, text, others)
        return code

    def _check_holder(self, started: Started, text: str, others: Sequence[Started]) -> None:
        found = re.search(r": in use by process (\d+) on (\S+)\. ", text)
        pids = {str(one.pid) for one in others if one is not started}
        if found is None or found[1] not in pids or found[2] != socket.gethostname():
            self._tell("lock", started, f"the holder is not named: {text.splitlines()[-1]}")

    def kill_at(self, started: Started, seconds: float, *, tasks: bool) -> bool:
        """SIGKILL a run after so long, with its tasks or alone: whether it still ran."""
        if self.lane.starter.wait(started, seconds):
            return False
        self.lane.starter.kill(started, tasks=tasks)
        self.injected += 1
        return True

    def ask_at(self, started: Started, seconds: float, number: signal.Signals) -> bool:
        """Send a run that signal after so long, and leave it to end by itself: whether it still ran."""
        if self.lane.starter.wait(started, seconds):
            return False
        # Ctrl-C when all is done and the interpreter closes down is not caught any more.
        self.may_end = (130, -signal.SIGINT) if number == signal.SIGINT else (-number,)
        self.lane.starter.signal(started, number)
        self.injected += 1
        return True

    def kill_task_at(self, started: Started, seconds: float) -> bool:
        """SIGKILL one of a run's tasks after so long, when there is one."""
        end = time.monotonic() + seconds + 5
        self.lane.starter.wait(started, seconds)
        while started.code is None and time.monotonic() < end:
            if pids := self.lane.starter.tasks():
                try:
                    os.kill(self.drawn.choice(pids), 9)
                except ProcessLookupError:
                    continue
                self.injected += 1
                return True
            self.lane.starter.wait(started, 0.01)
        return False

    def changes(self) -> list[dict[str, Any]]:
        """What has been put in place so far, in order."""
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_text(encoding="utf-8").splitlines()]

    def come_calm(self) -> None:
        """Nothing is wrong any more: the command must now succeed at once, and then find nothing to do."""
        code = self.end(self.begin())
        if code != 0:
            self._tell("stuck", self.ended[-1], f"exit code {code} although nothing is wrong any more")
        self.check()
        if not self.wrong and self.drawn.random() < 0.25:
            before = len(self.changes())
            again = self.begin()
            if self.end(again) != 0:
                self._tell("again", again, "a run that was finished does not end well when it is started again")
            trees = [one["path"] for one in self.changes()[before:] if "/state/" not in one["path"]]
            if trees:
                self._tell("again", again, f"a run that was finished writes {trees[:3]}")
            self.check()

    def check(self) -> None:
        """The trees are those of the calm run, no row is lost or doubled, and `lola-data verify` finds them sound."""
        from lola_data.errors import LolaError
        from pipelines.verify import verify

        place = self.folder / "copy" if self.on_store else Path(self.workdir)
        found = self.store.tree(self.prefix) if self.on_store else tree(place)
        wanted = self.calm.tree
        missing, more = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        both = sorted(wanted.keys() & found.keys())
        other = [name for name in both if wanted[name] != found[name] and (found[name] or name not in self.emptied)]
        for what, names in (("missing", missing), ("too many", more), ("different", other)):
            if names:
                self.wrong.append(f"trees: {len(names)} {what}: {', '.join(names[:4])}")
        if self.on_store:
            for name, content in found.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
        self.wrong += [f"rows: {why}" for why in wrong_rows(self.calm.source, place)]
        try:
            self.wrong += [f"verify: {one.path}: {one.kind}: {one.message}" for one in verify(str(place)).faults[:3]]
        except LolaError as error:
            self.wrong.append(f"verify: {error}")

    def _tell(self, kind: str, started: Started, why: str) -> None:
        self.wrong.append(f"{kind}: {why} [{started.log.name}]")

    def keep(self, folder: Path) -> None:
        """Leave what is needed to look into it: what the runs said, and the work folder."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "wrong.txt").write_text("\n".join([f"seed {self.seed}", *self.wrong]) + "\n", encoding="utf-8")
        for started in self.ended:
            shutil.copy(started.log, folder)
        for name in ("journal", "recipe.yaml", "copy"):
            place = self.folder / name
            if place.is_dir():
                shutil.copytree(place, folder / name)
            elif place.exists():
                shutil.copy(place, folder)
        if not self.on_store and Path(self.workdir).is_dir():
            shutil.copytree(self.workdir, folder / "work")

    def close(self) -> None:
        """Delete all of it."""
        if self.disk is not None:
            self.disk.close()
        if self.on_store:
            self.store.proxy.trouble = None
            self.store.empty(self.prefix)
        for started in self.ended:
            started.log.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
