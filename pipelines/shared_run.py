"""A run that machines share without a scheduler: each does some of the tasks, the one with task 0 leads.

The leader plans a phase, says so in ``state/shared/leader.json``, does its own tasks, waits until every unit is done,
and goes on; it alone writes manifests and does what is not split into tasks. The others do their tasks of whatever
phase it names. Each says every few seconds that it is alive by raising a number: no clock of a machine is compared with
another's.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.background import repeated
from lola_data.errors import LolaError, RecipeError, StageError
from pipelines.corpus import build_stage
from pipelines.executors import run_phase
from pipelines.phases import check_phase, label_of, plan_phase, works_of
from pipelines.progress import say
from pipelines.run import close_stage, leave_failure, open_stage, prepare, run_stage
from pipelines.stage import Stage, assign
from pipelines.stage_checks import check_inputs
from pipelines.state import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from pipelines.stage import ShardStep

BEAT_SECONDS = 2.0
GONE_SECONDS = 60.0
"""After so long without a sign of life a machine is taken for gone."""


def check_share(tasks: int, offset: int, count: int) -> range:
    """The tasks of a machine.

    Raises:
        RecipeError: they are not all among ``tasks``.
    """
    if offset + count > tasks:
        raise RecipeError(
            f"--rank-offset {offset} --ranks {count}: tasks {offset} to {offset + count - 1}, but --tasks {tasks} has "
            f"0 to {tasks - 1}"
        )
    return range(offset, offset + count)


def run_shared(
    recipe: Recipe, layout: Layout, names: Sequence[str], tasks: int, ranks: range
) -> dict[str, dict[str, Any]]:
    """Do this machine's share of some stages; the manifests, where this machine leads (and holds the lock).

    Args:
        recipe, layout: the same on every machine.
        names: stages, in order.
        tasks: of each phase, over all machines.
        ranks: those of this machine; the one that has 0 leads.

    Raises:
        LolaError: units failed, or a machine is gone: what is done is kept, and the same commands go on.
    """
    if ranks.start == 0:
        return _Leader(recipe, layout, tasks, ranks).run(names)
    _Follower(recipe, layout, tasks, ranks).run()
    return {}


class _Machine:
    def __init__(self, recipe: Recipe, layout: Layout, tasks: int, ranks: range) -> None:
        self.recipe, self.layout, self.tasks, self.ranks = recipe, layout, tasks, ranks
        self.told: dict[str, Any] = {
            "host": f"process {os.getpid()} on {socket.gethostname()}",
            # Where the tasks run may differ between machines; what is made may not.
            "recipe": digest(recipe.model_dump(mode="json", exclude={"executor"})),
            "tasks": tasks,
            "ranks": [ranks.start, ranks.stop],
        }

    def path(self, name: str) -> str:
        return self.layout.state("shared", f"{name}.json")

    @contextmanager
    def alive(self, name: str) -> Iterator[None]:
        """Say again and again that this machine is alive."""
        lock = self.lock = threading.Lock()
        path, beat = self.path(name), int.from_bytes(os.urandom(4), "big")

        def tell() -> None:
            nonlocal beat
            with lock:
                beat += 1
                try:
                    storage.write_record(path, {**self.told, "beat": beat})
                except (LolaError, OSError) as error:
                    say(f"{path}: {error}")

        try:
            with repeated(tell, BEAT_SECONDS):
                yield
        finally:
            # What was said last.
            tell()

    def say(self, **told: Any) -> None:
        """Tell the other machines something more."""
        with self.lock:
            self.told = {**self.told, **told}

    def own(self, step: ShardStep) -> dict[int, str]:
        """Do this machine's tasks of a phase."""
        done = step.state.done_keys(step.phase)
        works = works_of(step)
        if all(work.key in done for rank in self.ranks for work in assign(works, rank, self.tasks)):
            return {}
        logs = self.layout.logs(step.stage, step.phase)
        workers = self.recipe.executor.of_stage(step.stage).workers
        return run_phase(step, tasks=self.tasks, workers=workers, logging_dir=logs, ranks=self.ranks)


class _Watch:
    """Whether another machine gives signs of life."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.beat: int | None = None
        self.since = time.monotonic()
        self.seen = False

    def look(self) -> dict[str, Any] | None:
        """What it says, once it has been seen to be alive; None before that.

        Raises:
            StageError: it has been silent for too long.
        """
        told = storage.read_json(self.path) if storage.is_filled(self.path) else None
        if told is not None and told["beat"] != self.beat:
            self.seen = self.beat is not None
            self.beat, self.since = told["beat"], time.monotonic()
        if time.monotonic() - self.since > GONE_SECONDS:
            who = f"tasks {told['ranks'][0]} to {told['ranks'][1] - 1} ({told['host']})" if told else "the leader"
            raise StageError(
                f"{self.path}: no sign of life from {who} for {GONE_SECONDS:.0f} s. Start the same command on every "
                f"machine again: what is done is kept"
            )
        return told if self.seen else None


class _Leader(_Machine):
    def run(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        manifests: dict[str, dict[str, Any]] = {}
        storage.remove(self.path("leader"))
        with self.alive("leader"):
            try:
                for name in names:
                    stage = build_stage(name, self.recipe, self.layout)
                    manifests[name] = self._stage(stage) if isinstance(stage, Stage) else self._alone(stage)
            except BaseException as error:
                self.say(ended=f"{error}".splitlines()[0] if isinstance(error, LolaError) else type(error).__name__)
                raise
            self.say(ended="")
        return manifests

    def _alone(self, stage: Any) -> dict[str, Any]:
        return run_stage(stage, self.recipe.executor.of_stage(stage.name))

    def _stage(self, stage: Stage) -> dict[str, Any]:
        if open_stage(stage)[0]:
            began = time.time()
            try:
                check_inputs(stage)
                prepare(stage)
                for number, step in enumerate(stage.phases):
                    self._phase(stage, number, step)
                return close_stage(stage, since=began)
            except LolaError as error:
                leave_failure(stage, error)
                raise
        say(f"{stage.name}: up to date")
        return storage.read_json(self.layout.manifest(stage.name))

    def _phase(self, stage: Stage, number: int, step: ShardStep) -> None:
        plan = plan_phase(stage, step)
        if not plan.left:
            return
        for line in step.announce(plan.left, self.recipe.executor.workers):
            say(line)
        self.say(stage=stage.name, phase=number)
        lost = self.own(step)
        self._await(stage, step, lost)
        check_phase(stage, step, lost)

    def _await(self, stage: Stage, step: ShardStep, lost: dict[int, str]) -> None:
        """Wait for the other machines' units."""
        owner = {work.key: rank for rank in range(self.tasks) for work in assign(works_of(step), rank, self.tasks)}
        watches: dict[str, _Watch] = {}
        before = 0
        while True:
            failed = {failure["key"] for failure in step.state.failures(step.phase)}
            left = owner.keys() - step.state.done_keys(step.phase) - failed
            left = {key for key in left if owner[key] not in lost and owner[key] not in self.ranks}
            if not left:
                return
            if len(left) != before:
                say(f"{label_of(stage, step)}: waiting for {len(left)} units of other machines")
                before = len(left)
            self._check_alive({owner[key] for key in left}, watches)
            time.sleep(BEAT_SECONDS / 4)

    def _check_alive(self, ranks: set[int], watches: dict[str, _Watch]) -> None:
        root = self.layout.state("shared")
        heard: set[int] = set()
        for path, size in storage.list_files(root, ".json"):
            if size and path != "leader.json":
                told = storage.read_json(storage.join(root, path))
                mine = ranks & {*range(*told["ranks"])}
                if mine and told["tasks"] == self.tasks:
                    watches.setdefault(path, _Watch(storage.join(root, path))).look()
                    heard |= mine
        silent = watches.setdefault("", _Watch(self.path("no machine")))
        if ranks <= heard:
            silent.since = time.monotonic()
        elif time.monotonic() - silent.since > GONE_SECONDS:
            few = ", ".join(map(str, sorted(ranks - heard)[:6]))
            raise StageError(
                f"tasks {few}: no machine has come that does them. Start `lola-data run` with --rank-offset and "
                f"--ranks for them, and this command again: what is done is kept"
            )


class _Follower(_Machine):
    def run(self) -> None:
        watch, done = _Watch(self.path("leader")), None
        say(f"tasks {self.ranks.start} to {self.ranks.stop - 1}: waiting for the machine that has task 0")
        with self.alive(str(self.ranks.start)):
            while True:
                try:
                    told = watch.look()
                except StageError:
                    if self._was_finished():
                        say("the leading machine had finished before this one came: nothing is left to do")
                        return
                    raise
                if told is not None:
                    self._check(told)
                    if "ended" in told:
                        if told["ended"]:
                            raise StageError(f"the leading machine has stopped: {told['ended']}")
                        return
                    at = (told.get("stage"), told.get("phase"))
                    if at != done and at[0] is not None:
                        stage: Any = build_stage(at[0], self.recipe, self.layout)
                        step = stage.phases[at[1]]
                        say(f"{label_of(stage, step)}: tasks {self.ranks.start} to {self.ranks.stop - 1}")
                        self.own(step)
                        done = at
                time.sleep(BEAT_SECONDS / 4)

    def _was_finished(self) -> bool:
        """Whether the last that was heard of the leading machine is that the same run is at its end."""
        path = self.path("leader")
        told: dict[str, Any] = storage.read_json(path) if storage.is_filled(path) else {}
        return told.get("ended") == "" and all(told[key] == self.told[key] for key in ("tasks", "recipe"))

    def _check(self, told: dict[str, Any]) -> None:
        for key, what in (("tasks", "--tasks"), ("recipe", "the recipe (or --set)")):
            if told[key] != self.told[key]:
                raise StageError(
                    f"{what} is not the same here as on the leading machine ({told['host']}); give every machine the "
                    f"same, but for --rank-offset and --ranks"
                )
        first, last = told["ranks"]
        if self.ranks.start < last and first < self.ranks.stop:
            raise StageError(
                f"tasks {max(first, self.ranks.start)} to {min(last, self.ranks.stop) - 1} are those of the leading "
                f"machine ({told['host']}) too; give each machine tasks of its own"
            )
