"""The kinds of faults: what happens to a run in each, drawn by the seed, until nothing is wrong any more."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.chaos.places import PAGE, SmallDisk
from benchmarks.chaos.proxy import Trouble
from benchmarks.chaos.within import DAY, Faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.chaos.play import Play
    from benchmarks.chaos.starter import Started

PHASES = 13
"""Phases of all stages of a run."""
CHANGES = {1: 850, 2: 175, 3: 175}
"""Changes of files that the driver makes in a run, about, by the number of tasks. A task makes some 25 in a phase."""


def workers_killed(play: Play) -> None:
    """Tasks are killed, before a change of a file or at any moment; the others and the driver live on."""
    play.tasks = play.drawn.choice([2, 3])
    times = play.drawn.randint(1, 4)
    for _ in range(times):
        if play.drawn.random() < 0.6:
            phase = play.drawn.randrange(PHASES // times + 1)
            hit = phase, play.drawn.randrange(play.tasks), play.drawn.randint(1, 20)
            started = play.begin(Faults(task=hit))
        else:
            started = play.begin()
            play.kill_task_at(started, play.drawn.uniform(0, play.calm.seconds / times))
        play.end(started)
        play.injected += "was killed (SIGKILL)" in started.text
    play.come_calm()


def runs_killed(play: Play) -> None:
    """The driver is killed, with its tasks or without, or asked to end, and the run is started again at once."""
    times = play.drawn.randint(2, 6)
    for _ in range(times):
        _killed(play, Faults(), times)
    play.come_calm()


def _killed(play: Play, faults: Faults, times: int) -> bool:
    """A start that is killed, if it runs for long enough, after about one part in ``times`` of the work: whether it
    was."""
    part = play.drawn.uniform(0, 1.7 / times)
    if play.drawn.random() < 0.5:
        changes = 1 + int(part * CHANGES[play.tasks])
        started = play.begin(Faults(**{**vars(faults), "driver": changes}))
        killed = play.end(started) == -9
        play.injected += killed
        return killed
    started, seconds = play.begin(faults), part * play.calm.seconds
    number = play.drawn.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    if number == signal.SIGKILL:
        killed = play.kill_at(started, seconds, tasks=play.drawn.random() < 0.5)
    else:
        killed = play.ask_at(started, seconds, number)
    play.end(started)
    return killed


def power_lost(play: Play) -> None:
    """All processes are killed, and of what was not flushed to the disk some is empty or short."""
    times = play.drawn.randint(1, 4)
    for _ in range(times):
        before = len(play.changes())
        _killed(play, Faults(), times)
        for pid in play.lane.starter.tasks():
            _kill(pid)
        # The last that was written to a path counts.
        durable = {one["path"]: one["durable"] for one in play.changes()[before:]}
        for name, outlives in durable.items():
            path = Path(name)
            if outlives or play.drawn.random() < 0.5 or not path.exists():
                continue
            content = path.read_bytes()
            path.unlink()  # It may be a link to a file of the source.
            left = play.drawn.choice([0, len(content) // PAGE * PAGE]) if len(content) > PAGE else 0
            path.write_bytes(content[:left])
            if path.suffix == ".json":
                play.emptied.add(str(path.relative_to(play.workdir)))
            play.injected += 1
    play.come_calm()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def disk_full(play: Play) -> None:
    """The disk is too small, in bytes or in files, and is given more room bit by bit; or no file may grow beyond a
    quota."""
    needed, files = play.calm.bytes, play.calm.files
    share = play.drawn.uniform(0.02, 0.7)
    of_files = play.drawn.random() < 0.3

    def room() -> tuple[int, int]:
        return (4 * needed, int(files * share) + 3) if of_files else (int(needed * share), 0)

    try:
        disk = play.disk = SmallDisk(play.folder / "disk", *room())
    except OSError:
        _quota(play)
        return
    while share < 1.2:
        play.injected += _end_full(play, play.begin())
        share += play.drawn.uniform(0.05, 0.4)
        disk.grow(*room())
    disk.grow(4 * needed, 0)
    play.come_calm()


def _quota(play: Play) -> None:
    for _ in range(play.drawn.randint(1, 3)):
        play.injected += _end_full(play, play.begin(Faults(largest=play.drawn.randint(500, 20_000))))
    play.come_calm()


def _end_full(play: Play, started: Started) -> bool:
    """Whether it ended for want of room; it must say so."""
    full = play.end(started) == 1
    words = ("no space left on the device", "larger than allowed", " free")
    if full and not any(word in started.text for word in words):
        play.wrong.append(f"message: the disk is full, and that is not said [{started.log.name}]")
    return full


def store_fails(play: Play) -> None:
    """The store drops requests before and after they are done, cuts answers, is slow, answers 500 and 503."""
    for _ in range(play.drawn.randint(1, 2)):
        trouble = _trouble(play)
        play.end(play.begin())
        play.injected += trouble.met.total()
    play.store.proxy.trouble = None
    play.come_calm()


def store_fails_and_runs_are_killed(play: Play) -> None:
    """The same, and the driver is killed too."""
    for _ in range(play.drawn.randint(1, 3)):
        trouble = _trouble(play)
        if play.drawn.random() < 0.5:
            started = play.begin(Faults(driver=play.drawn.randint(1, 400)))
            play.injected += play.end(started) == -9
        else:
            started = play.begin()
            play.kill_at(started, play.drawn.uniform(0, 4 * play.calm.seconds), tasks=play.drawn.random() < 0.5)
            play.end(started)
        play.injected += trouble.met.total()
    play.store.proxy.trouble = None
    play.come_calm()


def _trouble(play: Play) -> Trouble:
    trouble = Trouble(play.drawn.randrange(10**9), play.drawn.choice([0.01, 0.03, 0.1]))
    play.store.proxy.trouble = trouble
    return trouble


def clocks_wrong(play: Play) -> None:
    """Every process has a clock that is wrong by hours or days and jumps, files bear any date, and runs are killed."""
    times = play.drawn.randint(1, 4)
    for _ in range(times):
        clock = play.drawn.randrange(10**9)
        if play.drawn.random() < 0.7:
            _killed(play, Faults(clock=clock), times)
        else:
            play.end(play.begin(Faults(clock=clock)))
        play.injected += 1
        for path in sorted(Path(play.workdir).rglob("*")):
            if play.drawn.random() < 0.3 and path.stat().st_nlink == 1:
                date = time.time() + play.drawn.uniform(-400, 400) * DAY
                os.utime(path, (date, date))
    play.come_calm()


def started_twice(play: Play) -> None:
    """The command is started two or three times in one work folder, at the same moment or a little later; one of them
    may be killed. One at a time works, and who is refused is told whose it is."""
    seconds = play.calm.seconds * (4 if play.on_store else 1)
    for _ in range(play.drawn.randint(1, 2)):
        before = len(play.changes())
        runs = [play.begin()]
        if play.drawn.random() < 0.4:
            play.kill_at(runs[0], play.drawn.uniform(0.05, 0.9) * seconds, tasks=False)
        for _ in range(play.drawn.randint(1, 2)):
            play.lane.starter.wait(runs[0], play.drawn.choice([0.0, 0.0, play.drawn.uniform(0, seconds)]))
            runs.append(play.begin())
        codes = [play.end(one, others=runs) for one in runs]
        play.injected += len(runs) - 1
        if 0 not in codes:
            play.wrong.append(f"lock: of {len(runs)} runs none went on: {codes}")
        _check_turns(play, runs, before)
    play.come_calm()


def _check_turns(play: Play, runs: list[Started], before: int) -> None:
    """One after the other has written, and none that was refused."""
    found = [one["driver"] for one in play.changes()[before:] if not one["path"].endswith("/state/lock")]
    turns = [pid for at, pid in enumerate(found) if at == 0 or found[at - 1] != pid]
    if twice := [pid for pid, count in Counter(turns).items() if count > 1]:
        play.wrong.append(f"lock: runs {turns} have written in turn, {twice} more than once")
    refused = {one.pid for one in runs if one.code == 1 and ": in use by " in one.text}
    if refused & set(turns):
        play.wrong.append(f"lock: a run that was refused has written: {sorted(refused & set(turns))}")


def machines_share(play: Play) -> None:
    """Two machines, the clocks of which are wrong, share a run; one is killed, and both are started again."""
    shares = [(0, 2), (2, 2)]

    def begin(number: int, faults: Faults) -> Started:
        offset, ranks = shares[number]
        share = ("--tasks", "4", "--rank-offset", str(offset), "--ranks", str(ranks))
        return play.begin(faults, *share, tasks=2)

    for _ in range(play.drawn.randint(1, 2)):
        runs = [begin(number, Faults(clock=play.drawn.randrange(10**9))) for number in range(len(shares))]
        play.kill_at(play.drawn.choice(runs), play.drawn.uniform(0, 2) * play.calm.seconds, tasks=False)
        for one in runs:
            play.end(one, others=runs)
        play.injected += 1
    runs = [begin(number, Faults(clock=play.drawn.randrange(10**9))) for number in range(len(shares))]
    codes = [play.end(one, others=runs) for one in runs]
    if codes != [0, 0]:
        play.wrong.append(f"stuck: machines that share a calm run end with {codes}")
    play.come_calm()


@dataclass(frozen=True)
class Kind:
    """A kind of faults. ``share``: of twenty seeds, so many are of it; those on the store take longest."""

    scene: Callable[[Play], None]
    share: int
    on_store: bool = False


KINDS = {
    "workers killed": Kind(workers_killed, 3),
    "runs killed": Kind(runs_killed, 3),
    "power lost": Kind(power_lost, 2),
    "disk full": Kind(disk_full, 2),
    "store fails": Kind(store_fails, 2, on_store=True),
    "store fails, runs killed": Kind(store_fails_and_runs_are_killed, 1, on_store=True),
    "clocks wrong": Kind(clocks_wrong, 2),
    "started twice": Kind(started_twice, 2),
    "started twice, on the store": Kind(started_twice, 1, on_store=True),
    "machines share a run": Kind(machines_share, 2),
}
