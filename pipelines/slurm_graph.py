"""The corpus graph as jobs of a scheduler: which there are, what each does, which it waits for. Nothing is submitted.

In: a recipe, the stages to run, and what is finished of them. Out: jobs in an order in which each comes after those it
waits for. There are three kinds. ``tasks``: an array, a task of it does its share of one phase. ``turn``: a short job
between two arrays, which counts what the one has done, plans the other and writes manifests. ``train``: torchrun.

Languages are dealt into lanes. From download to dedup a lane waits for no other: one turn at the end joins them. What
is finished has no job, and of the first phase that is not only those tasks that have a unit left.
"""

from __future__ import annotations

import heapq
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lola_data.errors import StageError
from pipelines.corpus import STAGES, build_stage
from pipelines.phases import plan_phase, ranks_left
from pipelines.run import lineage_of, open_stage, prepare
from pipelines.stage import Stage
from pipelines.state import Lane, StageState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from pipelines.run import DriverStage
    from pipelines.stage import ShardStep

LANE_STAGES = ("download", "identify", "dedup")
"""Stages in which no language needs another."""
_FILE_GROWS = 4
"""Bytes of text for a byte of a published file, at most."""


@dataclass(frozen=True, slots=True)
class Action:
    """What a turn does.

    Args:
        do: ``plan`` a phase (``begin``: and open its stage first), plan it and do it at once if there is work
            (``inline``), ``check`` that it is done, ``close`` a stage, or ``drive`` one that runs in one process.
        stage: of which.
        phase: number of the phase.
    """

    do: Literal["begin", "plan", "inline", "check", "close", "drive"]
    stage: str
    phase: int = 0


@dataclass(slots=True)
class Job:
    """One job.

    Args:
        name: unique in the graph.
        kind: see above.
        stage: whose resources it takes.
        phase: of ``tasks``: number of the phase.
        lane: of which lane, if of one.
        tasks: of ``tasks``: tasks of the phase.
        ranks: of ``tasks``: those to run.
        max_running: of ``tasks``: how many of them at a time (None: any number).
        actions: of ``turn``.
        after_ok: jobs that must have succeeded.
        after_any: jobs that must have ended.
    """

    name: str
    kind: Literal["tasks", "turn", "train"]
    stage: str
    phase: int = 0
    lane: str | None = None
    tasks: int = 1
    ranks: list[int] = field(default_factory=list)
    max_running: int | None = None
    actions: list[Action] = field(default_factory=list)
    after_ok: list[str] = field(default_factory=list)
    after_any: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Job:
        """The inverse of :meth:`to_json`."""
        return cls(**{**value, "actions": [Action(**action) for action in value["actions"]]})


@dataclass(slots=True)
class Graph:
    """Jobs, and the languages of each lane."""

    jobs: list[Job] = field(default_factory=list)
    lanes: dict[str, list[str]] = field(default_factory=dict)


def lineages(recipe: Recipe, layout: Layout, names: Sequence[str]) -> dict[str, str]:
    """:func:`pipelines.run.lineage_of` of some stages and of all that they read."""
    found: dict[str, str] = {}

    def of(name: str) -> str:
        if name not in found:
            stage = build_stage(name, recipe, layout)
            inputs = {source: of(source) for source in stage.inputs if source not in layout.trees}
            found[name] = lineage_of(stage, inputs)
        return found[name]

    for name in names:
        of(name)
    return found


def deal(sizes: dict[str, int], count: int) -> list[Lane]:
    """At most ``count`` lanes of about as many bytes each, the largest languages first; a language stays whole."""
    count = min(count, len(sizes))
    loads = [(0, number) for number in range(count)]
    dealt: list[list[str]] = [[] for _ in range(count)]
    for lang, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        load, least = heapq.heappop(loads)
        dealt[least].append(lang)
        heapq.heappush(loads, (load + max(1, size), least))
    return [Lane(str(number + 1), frozenset(langs)) for number, langs in enumerate(dealt)]


def build_graph(recipe: Recipe, layout: Layout, names: Sequence[str]) -> Graph:
    """The jobs that bring the stages ``names`` to their end. Stages are begun and what can be planned now is.

    Raises:
        LolaError: an input that is missing and not made by the run, or a recipe that has changed.
    """
    return _Builder(recipe, layout, names).build()


class _Builder:
    def __init__(self, recipe: Recipe, layout: Layout, names: Sequence[str]) -> None:
        self.recipe, self.layout = recipe, layout
        self.graph = Graph()
        self.lineage = lineages(recipe, layout, names)
        self.stages: dict[str, Stage | DriverStage] = {}
        self.made_by: dict[str, str] = {}
        """Stage -> the job after which it is complete."""
        self.text: int | None = None
        """Bytes of text of all languages, at most; None: not known."""
        for name in names:
            self._open(name)

    def _open(self, name: str) -> None:
        stage = build_stage(name, self.recipe, self.layout)
        early = any(source in self.stages for source in stage.inputs)
        for source in stage.inputs:
            if early and source not in self.stages and source not in self.layout.trees:
                _check_complete(stage, source)
        todo, changed = open_stage(stage, lineage=self.lineage, early=early)
        if changed:
            self._refuse_later(name)
        if todo or any(source in self.stages for source in stage.inputs):
            prepare(stage)
            self.stages[name] = stage

    def _refuse_later(self, name: str) -> None:
        for later in STAGES[STAGES.index(name) + 1 :]:
            recorded = StageState(self.layout, later).recorded_fingerprint()
            if recorded is not None and isinstance(recorded["inputs"].get(name), str):
                raise StageError(
                    f"{later}: {self.layout.tree(later)} was made with another recipe or input (`{name}` takes in "
                    f"more now). Run with `--redo {later}` to delete it and what was made from it, or set another "
                    f"`workdir`"
                )

    def build(self) -> Graph:
        names = list(self.stages)
        laned = self._laned(names)
        if laned:
            self._lanes(laned)
        for name in names[len(laned) :]:
            stage = self.stages[name]
            if isinstance(stage, Stage):
                self._sequence(stage)
            elif name == "train":
                job = self._add(Job(name, "train", name, after_ok=self._inputs(stage)))
                turn = Job(f"{name}.end", "turn", name, actions=[Action("drive", name)], after_ok=[job.name])
                self.made_by[name] = self._add(turn).name
            else:
                job = Job(name, "turn", name, actions=[Action("drive", name)], after_ok=self._inputs(stage))
                self.made_by[name] = self._add(job).name
        return self.graph

    def _laned(self, names: list[str]) -> list[str]:
        """The first stages, as far as they go by lanes."""
        laned: list[str] = []
        for name, expected in zip(names, [one for one in LANE_STAGES if one in names], strict=False):
            # Documents that change their language would come into a lane that is further on.
            if name != expected or (name == "dedup" and laned and self.recipe.identify.policy == "relabel"):
                break
            laned.append(name)
        return [] if laned == ["download"] else laned

    def _add(self, job: Job) -> Job:
        self.graph.jobs.append(job)
        return job

    def _inputs(self, stage: Stage | DriverStage) -> list[str]:
        """The jobs after which the inputs of a stage are complete."""
        return sorted({self.made_by[name] for name in stage.inputs if name in self.made_by})

    def _array(self, name: str, number: int, ranks: list[int], tasks: int, share: float, lane: Lane | None) -> Job:
        most = self.recipe.executor.of_stage(name).max_running
        return Job(
            _named(self._step(name, number), lane), "tasks", name, number, None if lane is None else lane.name, tasks,
            ranks, None if most is None else max(1, round(most * share)),
        )  # fmt: skip

    def _step(self, name: str, number: int) -> ShardStep:
        stage = self.stages[name]
        assert isinstance(stage, Stage)
        return stage.phases[number]

    def _sequence(self, stage: Stage) -> None:
        """The jobs of a stage that all languages go through together."""
        waits = self._inputs(stage)
        chain = _Chain(
            self, None, 1.0, caught_up=not waits, after_ok=waits, begins=True, largest=self.text
        )  # fmt: skip
        chain.walk(stage)
        self.made_by[stage.name] = chain.turn([Action("close", stage.name)], f"{stage.name}.end").name

    def _lanes(self, names: list[str]) -> None:
        first = self.stages[names[0]]
        assert isinstance(first, Stage)
        works = plan_phase(first, first.phases[0]).works
        sizes: dict[str, int] = {}
        for work in works:
            lang = work.key.split("/", 1)[0]
            sizes[lang] = sizes.get(lang, 0) + work.bytes
        total = max(1, sum(sizes.values()))
        grows = _FILE_GROWS if names[0] == "download" else 1
        self.text = total * grows
        ends: list[str] = []
        for lane in deal(sizes, self.recipe.executor.lanes):
            self.graph.lanes[lane.name] = sorted(lane.languages)
            mine = [sizes[lang] for lang in lane.languages]
            chain = _Chain(self, lane, sum(mine) / total, caught_up=True, largest=max(mine) * grows)
            for name in names:
                stage = self.stages[name]
                assert isinstance(stage, Stage)
                chain.walk(stage)
            ends += [] if chain.last is None else [chain.last]
        closes = [Action("close", name) for name in names]
        join = self._add(Job("join", "turn", names[-1], actions=closes, after_any=ends))
        for name in names:
            self.made_by[name] = join.name


class _Chain:
    """Jobs one after the other: arrays with turns between them.

    ``caught_up``: all that comes before is finished now, so that phases are planned here rather than in a turn.
    """

    def __init__(
        self, builder: _Builder, lane: Lane | None, share: float, *, caught_up: bool, after_ok: Sequence[str] = (),
        begins: bool = False, largest: int | None = None,
    ) -> None:  # fmt: skip
        self.builder, self.lane, self.share, self.largest = builder, lane, share, largest
        self.caught_up, self.begins = caught_up, begins
        self.after_ok, self.after_any = [*after_ok], []
        self.pending: list[Action] = []
        self.last: str | None = None
        self.turns: list[str] = []
        """The turn before, without whose success nothing of what follows may run."""

    def walk(self, stage: Stage) -> None:
        """Add the jobs of all phases of a stage."""
        tasks = max(1, round(self.builder.recipe.executor.of_stage(stage.name).tasks * self.share))
        for number, step in enumerate(stage.phases):
            if self.caught_up:
                step.lane = self.lane
                plan = plan_phase(stage, step)
                step.lane = None
                if plan.left:
                    # Fewer tasks than units would leave some without any.
                    world = min(tasks, len(plan.works))
                    self._array(stage, number, ranks_left(plan, world), world)
                continue
            if self.largest is not None and not step.needed_for(self.largest):
                self.pending.append(Action("inline", stage.name, number))
                continue
            begin = self.begins and number == 0
            actions = [*self.pending, Action("begin" if begin else "plan", stage.name, number)]
            self.turn(actions, _named(step, self.lane, "plan"))
            self._array(stage, number, [*range(tasks)], tasks)

    def _array(self, stage: Stage, number: int, ranks: list[int], tasks: int) -> None:
        job = self.builder._array(stage.name, number, ranks, tasks, self.share, self.lane)
        job.after_ok = self.after_ok
        self.builder._add(job)
        self.after_ok, self.after_any, self.caught_up = [], [job.name], False
        self.pending = [Action("check", stage.name, number)]
        self.last = job.name

    def turn(self, actions: list[Action], name: str) -> Job:
        """Add a turn that waits for what came before."""
        actions = actions if actions[: len(self.pending)] == self.pending else [*self.pending, *actions]
        stage = actions[-1].stage
        job = Job(name, "turn", stage, lane=None if self.lane is None else self.lane.name, actions=actions)
        job.after_ok, job.after_any = sorted({*self.after_ok, *self.turns}), self.after_any
        self.builder._add(job)
        self.turns = [job.name]
        self.after_ok, self.after_any, self.pending = [job.name], [], []
        self.last, self.caught_up = job.name, False
        return job


def _named(step: ShardStep, lane: Lane | None, *further: str) -> str:
    parts = [step.stage, *([] if step.phase == "main" else [step.phase]), *further]
    return ".".join([*parts, *([] if lane is None else [lane.name])])


def _check_complete(stage: Stage | DriverStage, source: str) -> None:
    if not StageState(stage.layout, source).complete():
        raise StageError(
            f"{stage.name}: its input {stage.layout.tree(source)} is not complete; run the stage `{source}` first"
        )
