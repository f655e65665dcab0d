"""One phase of a stage: its units are planned, done somewhere, and counted.

Where they are done is the executor's affair; planning and counting are the same for all of them, and either may happen
in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lola_data.errors import StageError
from pipelines.progress import human_bytes, phase_bar, say
from pipelines.stage import shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.stage import ShardStep, Stage, Work

PhaseRunner = Callable[["ShardStep", int, str, Callable[[], None]], dict[int, str]]
"""Does what is left of a phase: takes the phase, the number of units that are left, the folder for datatrove's logs and
a function to call now and then; returns the tasks that were lost, with the reason."""


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """The units of a phase, and those of them that are not finished."""

    works: Sequence[Work]
    left: Sequence[Work]


def label_of(stage: Stage, step: ShardStep) -> str:
    """What a phase is called in messages."""
    name = stage.name if len(stage.phases) == 1 else f"{stage.name} ({step.phase})"
    return name if step.lane is None else f"{name}, lane {step.lane.name}"


def plan_phase(stage: Stage, step: ShardStep, *, keep_failures: bool = False) -> PhasePlan:
    """Plan a phase and record the plan; what is finished of it stays so.

    ``keep_failures``: those of an earlier attempt are still to be told.

    Raises:
        StageError: what it reads is not what it was when the phase was begun, or two units have one name.
    """
    state = step.state
    works = list(step.plan())
    if step.lane is not None:
        works = [work for work in works if step.lane.holds(work.key)]
    plan = [work.to_json() for work in works]
    recorded = state.plan(step.phase)
    if recorded is not None and recorded != plan and not _only_mended(step, recorded, works):
        raise StageError(
            f"{stage.name}: the shards it reads have changed since it was begun ({len(recorded)} units of work then, "
            f"{len(plan)} now). Run with `--redo {stage.name}`"
        )
    state.write_plan(step.phase, plan)
    keys = {work.key for work in works}
    if len(keys) != len(works):
        twice = next(key for key, count in Counter(work.key for work in works).items() if count > 1)
        raise StageError(f"{stage.name}: two shards would be written under one name, {twice}; rename one of them")
    done = state.done_keys(step.phase) & keys
    left = [work for work in works if work.key not in done]
    if works or len(stage.phases) == 1:
        say(
            f"{label_of(stage, step)}: {len(left)} of {len(works)} units to do, "
            f"{human_bytes(sum(work.bytes for work in left))}"
            if left
            else f"{label_of(stage, step)}: nothing left to do"
        )
        if not keep_failures:
            state.forget_failures(step.phase)
    return PhasePlan(works, left)


def do_phase(stage: Stage, step: ShardStep, run: PhaseRunner, workers: int) -> None:
    """Plan a phase, do what is left of it, and count.

    Raises:
        StageError: it cannot be planned, or units failed.
    """
    plan = plan_phase(stage, step)
    if not plan.left:
        return
    for line in step.announce(plan.left, workers):
        say(line)
    sizes = {work.key: work.bytes for work in plan.works}

    def completed() -> int:
        return sum(sizes.get(key, 0) for key in step.state.done_keys(step.phase)) + step.under_way()

    with phase_bar(label_of(stage, step), sum(sizes.values()), completed) as update:
        lost = run(step, len(plan.left), stage.layout.logs(stage.name, step.phase), update)
    check_phase(stage, step, lost)


def check_phase(stage: Stage, step: ShardStep, lost: dict[int, str]) -> None:
    """Raise StageError unless every unit that is planned is finished; ``lost``: tasks that ended badly, and why."""
    state = step.state
    expected = [step.work_from_json(value).key for value in state.plan(step.phase) or []]
    missing = {*expected} - state.done_keys(step.phase)
    if step.lane is not None:
        missing = {key for key in missing if step.lane.holds(key)}
    if not missing:
        return
    lines = [f"{failure['message']} [log: {failure['log']}]" for failure in state.failures(step.phase)]
    lines += [f"task {rank} {reason}" for rank, reason in sorted(lost.items())]
    lines = lines or [f"{', '.join(sorted(missing)[:5])}{', ...' if len(missing) > 5 else ''}: not done"]
    shown = lines[:10] + ([f"... and {len(lines) - 10} more: lola-data status"] if len(lines) > 10 else [])
    raise StageError(
        f"{stage.name}: {len(missing)} of {len(expected)} units failed; the others are done and kept. "
        f"Mend the cause and run the same command again.\n  " + "\n  ".join(shown)
    )


def works_of(step: ShardStep) -> list[Work]:
    """The units of the recorded plan of a phase, those of its lane."""
    works = [step.work_from_json(value) for value in step.state.plan(step.phase) or []]
    return [work for work in works if step.lane is None or step.lane.holds(work.key)]


def ranks_left(plan: PhasePlan, tasks: int) -> list[int]:
    """The tasks, of ``tasks``, that have a unit to do."""
    left = {work.key for work in plan.left}
    return [rank for rank, works in enumerate(shares(plan.works, tasks)) if any(work.key in left for work in works)]


def _only_mended(step: ShardStep, recorded: list[dict[str, Any]], works: Sequence[Work]) -> bool:
    """Whether all that is finished is planned as it was; what is not may have been mended since."""
    done = step.state.done_keys(step.phase)
    before = {work.key: work.to_json() for work in map(step.work_from_json, recorded) if work.key in done}
    return before == {work.key: work.to_json() for work in works if work.key in done}
