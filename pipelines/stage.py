"""The stage engine: a datatrove step that works through units of Arrow batches, and the stage built of such steps.

A stage is a list of phases. A phase is a :class:`ShardStep`: it plans units of work, which do not depend on the number
of tasks, and processes one unit at a time: read batches, write whole files, return a :class:`UnitReport`. The engine
shares the units out over tasks by bytes, skips those that are recorded as done, records failures without stopping the
others, checks the row balance, and adds the reports up to the manifest.
"""

from __future__ import annotations

import heapq
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger

from lola_data import storage
from lola_data.errors import LolaError
from lola_data.manifest import UnitReport, build_manifest
from lola_data.remote_trees import remove_tree
from lola_data.shards import Unit, plan_units
from pipelines.state import Lane, StageState
from pipelines.usage import leave_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lola_data.layout import Layout


class Work(Protocol):
    """A unit of work: JSON-able, with a unique key and a size."""

    @property
    def key(self) -> str:
        """Unique name inside the phase."""
        ...

    @property
    def bytes(self) -> int:
        """Size that the sharing out goes by."""
        ...

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        ...


@dataclass(frozen=True, slots=True)
class LanguageWork:
    """All of one language as one unit of work."""

    lang: str
    bytes: int

    @property
    def key(self) -> str:
        """The language code."""
        return self.lang

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {"lang": self.lang, "bytes": self.bytes}


def shares(works: Sequence[Work], world_size: int) -> list[list[Work]]:
    """The units of each task: biggest first, each to the task with the fewest bytes so far (ties: lowest rank).

    A function of the list and the number alone; over all tasks every unit comes exactly once.
    """
    loads = [(0, candidate) for candidate in range(world_size)]
    dealt: list[list[Work]] = [[] for _ in range(world_size)]
    for work in sorted(works, key=lambda work: (-work.bytes, work.key)):
        load, least = heapq.heappop(loads)
        dealt[least].append(work)
        heapq.heappush(loads, (load + max(1, work.bytes), least))
    return dealt


def assign(works: Sequence[Work], rank: int, world_size: int) -> list[Work]:
    """The units of one task, see :func:`shares`."""
    return shares(works, world_size)[rank]


class ShardStep(PipelineStep, ABC):
    """One phase of a stage, as a datatrove step. Subclasses say what the units are and how one is processed.

    An instance travels to worker processes: it holds plain settings only, and loads models in :meth:`process`.
    """

    type = "lola-data"
    phase: ClassVar[str] = "main"

    def __init__(self, layout: Layout, stage: str) -> None:
        super().__init__()
        self.name = f"{stage}.{self.phase}"
        self.layout = layout
        self.stage = stage
        self.lane: Lane | None = None
        """The languages that this phase is limited to, if it is."""

    @property
    def state(self) -> StageState:
        """The records of the stage, of the languages of the lane."""
        return StageState(self.layout, self.stage, self.lane)

    def needed_for(self, text_bytes: int) -> bool:
        """Whether there may be work for so many bytes of text; tasks are set up for it before it is planned."""
        del text_bytes
        return True

    @abstractmethod
    def plan(self) -> Sequence[Work]:
        """All units of work, in a fixed order. Only reads; called once, by the driver."""

    def announce(self, left: Sequence[Work], workers: int) -> list[str]:
        """Lines to say before the units that are left are begun."""
        del left, workers
        return []

    def under_way(self) -> int:
        """Bytes done of units that are not finished, for the progress bar."""
        return 0

    def work_from_json(self, value: dict[str, Any]) -> Work:
        """The inverse of the unit's ``to_json``."""
        return Unit(**value)

    @abstractmethod
    def process(self, work: Any) -> UnitReport:
        """Do one unit of work.

        Output files are written with :class:`lola_data.shards.ShardWriter` or
        :func:`lola_data.storage.atomic_output`, so that they are whole or absent. Doing a unit again must give the
        same bytes.

        Raises:
            LolaError: what the user can mend; it fails this unit and no other.
        """

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Work through the units of this task. Yields no documents; a unit that fails is recorded, not raised."""
        yield from data or ()
        began = time.time()
        state = self.state
        works = [self.work_from_json(value) for value in state.plan(self.phase) or []]
        works = [work for work in works if self.lane is None or self.lane.holds(work.key)]
        done = state.done_keys(self.phase)
        for work in assign(works, rank, world_size):
            if work.key in done:
                continue
            log = self.layout.logs(self.stage, self.phase, "logs", f"task_{rank:05d}.log")
            try:
                with self.track_time("unit"):
                    report = self.process(work)
                    report.check()
                    state.mark_done(self.phase, report)
            except Exception as caught:
                error = caught
                if isinstance(caught, OSError):
                    error = storage.disk_error(caught.filename or work.key, caught)
                message = str(error)
                if isinstance(error, LolaError):
                    logger.error(f"{work.key}: {message}")
                else:
                    logger.exception(f"{work.key}: unexpected error")
                    message = f"{work.key}: unexpected {type(error).__name__}: {error}. This is a bug: see the log"
                state.mark_failed(self.phase, work.key, message=message, log=log)
            else:
                self.stat_update("documents", value=sum(counts.documents for counts in report.taken.values()))
                self.stat_update("bytes", value=sum(counts.bytes for counts in report.taken.values()), unit="unit")
                logger.info(f"{work.key}: done")
        leave_usage(self.layout, self.stage, self.phase, rank, began)


class TreeStep(ShardStep):
    """A phase whose units are the pieces of an input tree of Parquet shards."""

    def __init__(
        self, layout: Layout, stage: str, *, input_stage: str, languages: list[str] | None, unit_bytes: int
    ) -> None:
        super().__init__(layout, stage)
        self.input_stage = input_stage
        self.languages = languages
        self.unit_bytes = unit_bytes

    @property
    def input_tree(self) -> str:
        """Root of the tree that is read."""
        return self.layout.tree(self.input_stage)

    def plan(self) -> list[Unit]:
        """The pieces of the input tree."""
        languages = self.languages
        if self.lane is not None:
            languages = sorted(self.lane.languages if languages is None else self.lane.languages & {*languages})
        return plan_units(self.input_tree, languages=languages, unit_bytes=self.unit_bytes)


@dataclass
class Stage:
    """A stage of the corpus graph made of phases that run on an executor, one after the other.

    Args:
        name: of the stage, as in :data:`lola_data.layout.TREES`.
        layout: of the corpus.
        phases: in order; each sees what the ones before it wrote.
        settings: the values of the recipe that decide the output.
        inputs: stages whose trees are read.
    """

    name: str
    layout: Layout
    phases: list[ShardStep]
    settings: dict[str, Any]
    inputs: list[str]
    extra: dict[str, Any] = field(default_factory=dict)
    grows: ClassVar[bool] = False
    """Whether a finished stage goes on under a recipe that asks for more of the same."""

    def finish(self, reports: list[UnitReport], fingerprint: dict[str, Any]) -> dict[str, Any]:
        """The manifest, from the reports of the last phase. A subclass may check, write more files, or raise."""
        return build_manifest(self.name, reports, fingerprint=fingerprint, extra=self.extra)

    def same_units(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether what was finished under the fingerprint ``old`` is what ``new`` would make of it.

        An input tree that lies elsewhere may have had a shard mended: the plan tells which, so it may differ.
        """
        ours = {name: value for name, value in new["inputs"].items() if name not in self.layout.trees}
        theirs = {name: value for name, value in old["inputs"].items() if name not in self.layout.trees}
        return ours == theirs and {**old, "inputs": None} == {**new, "inputs": None}

    def output_roots(self) -> list[str]:
        """Folders that belong to this stage alone and that ``--redo`` deletes."""
        return [
            self.layout.tree(self.name),
            self.layout.removed(self.name),
            self.layout.scratch(self.name),
            self.layout.state(self.name),
            self.layout.logs(self.name),
        ]

    def write_manifest(
        self,
        fingerprint: dict[str, Any],
        forecast: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda manifest: None,
    ) -> dict[str, Any]:
        """Add the reports of the last phase up, write the manifest and record the stage as complete.

        What ``forecast`` makes of the manifest, if it makes anything, is written with it.
        """
        state = StageState(self.layout, self.name)
        manifest = self.finish(state.reports(self.phases[-1].phase), fingerprint)
        if foreseen := forecast(manifest):
            manifest["forecast"] = foreseen
        storage.write_json(self.layout.manifest(self.name), manifest)
        state.mark_complete()
        self.delete_scratch()
        return manifest

    def delete_scratch(self) -> None:
        """Delete intermediate files of a finished stage."""
        with suppress(LolaError):
            remove_tree(self.layout.scratch(self.name))
