"""Many seeds, one after the other in each of several lanes."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.chaos.play import Lane, Play
from benchmarks.chaos.scenes import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """Of a seed.

    Attributes:
        injected: faults that came about.
        starts: of the command.
        wrong: what must not be; empty if all held.
    """

    seed: int
    kind: str
    injected: int
    starts: int
    wrong: tuple[str, ...]
    seconds: float


def kind_of(seed: int) -> str:
    """The kind of faults of a seed: all kinds come in turn, each as often as its share says."""
    turns = [name for name, kind in KINDS.items() for _ in range(kind.share)]
    return turns[seed % len(turns)]


def run_seed(lane: Lane, seed: int, kept: Path) -> Outcome:
    """One seed; if anything is wrong, what is needed to look into it is left below ``kept``."""
    kind = KINDS[kind_of(seed)]
    began = time.monotonic()
    play = Play(seed, lane, lane.folder / f"seed-{seed}", kind.on_store)
    try:
        kind.scene(play)
    except Exception:
        play.wrong.append(f"the test itself failed: {traceback.format_exc()}")
    if play.wrong:
        play.keep(kept / f"seed-{seed}")
    try:
        return Outcome(seed, kind_of(seed), play.injected, play.starts, tuple(play.wrong), time.monotonic() - began)
    finally:
        play.close()


def run_seeds(
    seeds: Iterable[int], folder: Path, kept: Path, *, lanes: int = 2, say: Callable[[Outcome], None] = lambda one: None
) -> list[Outcome]:
    """All of them, several at a time, each lane in processes of its own; by seed."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for seed in seeds:
        waiting.put(seed)
    found: list[Outcome] = []
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            lane = Lane(folder / f"lane-{number}")
        except BaseException as error:
            failed.append(error)
            return
        try:
            while not failed:
                try:
                    seed = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome = run_seed(lane, seed, kept)
                found.append(outcome)
                say(outcome)
        except BaseException as error:
            failed.append(error)
        finally:
            lane.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(lanes)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt as error:
        failed.append(error)
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
    return sorted(found, key=lambda one: one.seed)
