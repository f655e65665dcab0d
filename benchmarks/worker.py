"""The process of one contender in one round, or of one call: load, work, tell. Started by :mod:`benchmarks.harness`."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.harness import Work


def main(spec: dict[str, Any]) -> None:
    """Run what ``spec`` names and write what was measured to ``spec["told"]``."""
    # Before any import that starts threads or counts cores.
    os.sched_setaffinity(0, {spec["core"]})
    started = time.perf_counter()
    work = _load(spec)
    load = time.perf_counter() - started
    gc.collect()
    # What others have written must not be flushed to disk on our time.
    os.sync()
    loaded_rss = _memory("VmRSS")
    cpu = _cpu()
    started = time.perf_counter()
    finish = work()
    wall = time.perf_counter() - started
    cpu = _cpu() - cpu
    peak_rss = _memory("VmHWM")
    if finish is not None:
        finish()
    told = {
        "wall": wall,
        "cpu": cpu,
        "load": load,
        "loaded_rss": loaded_rss,
        "peak_rss": peak_rss,
        "out_bytes": sum(path.stat().st_size for path in Path(spec["out"]).rglob("*") if path.is_file()),
    }
    Path(spec["told"]).write_text(json.dumps(told), encoding="utf-8")


def _load(spec: dict[str, Any]) -> Work:
    out = Path(spec["out"])
    if "call" in spec:
        module, name = spec["call"]
        return getattr(import_module(module), name)(out, **spec["given"])
    from benchmarks.corpus import open_corpus
    from benchmarks.harness import Task
    from benchmarks.stages import load_stage

    corpus = open_corpus(Path(spec["corpus"]))
    stage = load_stage(spec["stage"])
    contender = next(one for one in stage.contenders if one.name == spec["contender"])
    return contender.load(Task(corpus, out))


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _memory(name: str) -> int:
    """Bytes of a line of /proc/self/status. ``ru_maxrss`` would do no good: it is handed down from the parent."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise LookupError(name)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
