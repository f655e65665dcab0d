"""What each stage costs: rates measured on one machine, and how fast this one is beside it.

Measured with ``python -m benchmarks cost`` on the embedded corpus and on the benchmark's, in 2 to 8 tasks, on an idle
machine with two cores (AMD EPYC). The same command shows how far a run was from what they foretold.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """Costs of a stage. Core-seconds are of one core of the machine that was measured; megabytes are 10^6 bytes.

    Attributes:
        per_mb: core-seconds for a megabyte of text that comes in.
        per_unit: core-seconds for a unit of work, all phases together.
        per_task: core-seconds that a task takes to get going, in each phase.
        driver: core-seconds for planning and counting.
        phases: how many phases start tasks.
        memory_mb: most memory of a task, but for what grows with the corpus.
        disk_share: bytes on the disk for a byte of text that comes in.
        unit_files: files on the disk for a unit, each at least a block.
        left_share: share of the text that goes on to the next stage.
        compiling: core-seconds of the first task on a machine, which compiles what numba then keeps.
        kernel: source and name of a function that is compiled with the rest.
    """

    per_mb: float
    per_unit: float = 0.0
    per_task: float = 0.0
    driver: float = 0.3
    phases: int = 1
    memory_mb: float = 200.0
    disk_share: float = 0.0
    unit_files: float = 0.0
    left_share: float = 1.0
    compiling: float = 0.0
    kernel: tuple[str, str] | None = None


RATES = {
    "download": Rate(0.009, 0.004, 0.4, driver=1.3, memory_mb=150, unit_files=1.5),
    "identify": Rate(
        0.028, 0.016, 0.35, memory_mb=200, disk_share=0.335, unit_files=2.5, left_share=0.98,
        compiling=12.0, kernel=("lola_data/lid/kernel.py", "_average_texts"),
    ),
    "dedup": Rate(
        0.068, 0.027, 0.28, phases=3, memory_mb=188, disk_share=0.335, unit_files=4.5, left_share=0.95,
        compiling=10.0, kernel=("lola_data/minhash.py", "_sign"),
    ),
    "sample": Rate(
        0.025, 0.011, 0.14, phases=3, memory_mb=163, disk_share=0.32, unit_files=3.5,
        compiling=1.5, kernel=("lola_data/unit_hash.py", "_xxh64_rows"),
    ),
    "tokenizer": Rate(0.29, memory_mb=310),
    "tokenize": Rate(
        0.03, 0.008, 0.15, memory_mb=185, unit_files=3,
        compiling=12.0, kernel=("tokenizer/bpe_kernel.py", "encode_texts"),
    ),
    "balance": Rate(0.01, 0.01, driver=1.6, memory_mb=550),
}  # fmt: skip
BLOCK = 4096
"""Bytes that a small file takes on a disk."""
START_SECONDS = 4.0
"""Core-seconds of a Python that starts afresh and imports what a task needs, as jobs of Slurm and Ray do."""
TOKENIZER_MEMORY = 10.0
"""Bytes of memory for a byte of training text, in many languages together (:mod:`tokenizer.train` has single ones)."""
BYTES_PER_TOKEN = (2.6, 0.4)
"""With 2,560 pieces over many languages; and what each factor of e in their number adds."""
TRAIN_FLOPS = 2.5e10
"""Floating-point operations per second of one core in training, measured with the demo's model."""
TRAIN_MEMORY_MB = 650.0
"""Of a trainer without a model."""
AFTER_TRAINING_MB = 75.0
"""What the report adds to the memory of a process that has trained."""
TEXT_PER_FILE_BYTE = 1.7
"""Bytes of text per byte of a published shard: CulturaX is 27 TB of text in 16 TB of Parquet."""
TEXT_PER_DOCUMENT = 3_700
"""Mean bytes of a document of CulturaX."""

PROBE_SECONDS = 0.0077
"""Processor time of :func:`probe` on the machine that was measured."""
TYPICAL = 1.2
"""The rates are of the fast moments of the machine that was measured, and so is :data:`PROBE_SECONDS`. It is on a
shared host, where the same run takes up to 1.5 times as long minutes later; this is in the middle."""
NOISE = 1.25
"""A moment that is slower or faster than the typical one by up to this factor tells nothing of the run's."""


def probe() -> float:
    """Processor time of a fixed piece of work: compressing, and plain Python."""
    began = time.process_time()
    state = bytearray()
    for number in range(60_000):
        state.append((number * number) >> 7 & 255)
    for _ in range(4):
        zlib.compress(bytes(state), 6)
    return time.process_time() - began


def slowness() -> float:
    """How many times what the rates say a run will take here, by the best of many tries of :func:`probe`."""
    found = min(probe() for _ in range(25)) / (PROBE_SECONDS * TYPICAL)
    return TYPICAL * (found / NOISE if found > NOISE else found * NOISE if found < 1 / NOISE else 1.0)
