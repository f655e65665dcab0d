"""Time and memory of work on a device: a GPU by its own events, or the CPU.

On a GPU, four gigabytes are written before each run: the caches are cold, and the host is ahead of the device, so that
what is measured is the device's time, not the host's launches. Work that makes the host wait pays for it all the same.
"""

from __future__ import annotations

import re
import statistics
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

GEMM = re.compile(
    r"gemm|cutlass|nvjet|xmma|cublas|_(up|down)_(fwd|bwd)|_weight_grad|scatter2scatter|group_?bwd|xty|\bsplitKreduce",
    re.IGNORECASE,
)
"""Names of kernels that are matrix products, or part of one: cuBLAS, CUTLASS, ours, scattermoe's."""
FLUSH_BYTES = 4 << 30
WARM_UP = 3


class DeviceClock:
    """Measures calls on one device."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.device = device
        self._flush = torch.empty(FLUSH_BYTES if self.cuda else 0, dtype=torch.uint8, device=device)

    def run(self, work: Callable[[], object]) -> float:
        """Seconds of one call."""
        if not self.cuda:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self._flush.zero_()
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3

    def medians(self, works: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
        """Median seconds of each over ``runs`` rounds, after rounds to warm up. They take turns, so that what slows the
        machine for a while slows all of them."""
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(WARM_UP + runs):
            for name, work in works.items():
                taken = self.run(work)
                if turn >= WARM_UP:
                    seconds[name].append(taken)
        return {name: statistics.median(found) for name, found in seconds.items()}

    def dense_flops(self, dtype: torch.dtype, side: int, runs: int) -> float:
        """FLOP a second of the product of two matrices of ``side`` x ``side``."""
        left = torch.randn(side, side, device=self.device).to(dtype)
        right = torch.randn(side, side, device=self.device).to(dtype)
        return 2 * side**3 / self.medians({"": lambda: left @ right}, runs)[""]

    def copy_bytes(self, size: int, runs: int) -> float:
        """Bytes a second, read and written, of a copy of ``size`` bytes."""
        source = torch.zeros(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * size / self.medians({"": lambda: target.copy_(source)}, runs)[""]

    def peak_bytes(self, work: Callable[[], object]) -> int | None:
        """The most that a call has allocated at a time beyond what was there before; None on the CPU."""
        if not self.cuda:
            return None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def outside_gemms(self, work: Callable[[], object], repeats: int = 5) -> float | None:
        """Seconds of a call in kernels, copies and fills that are no matrix products; None on the CPU."""
        if not self.cuda:
            return None
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(repeats):
                work()
            torch.cuda.synchronize()
        kernels = [event for event in profiler.key_averages() if event.device_type.name == "CUDA"]
        micros = sum(event.self_device_time_total for event in kernels if not GEMM.search(event.key))
        return micros / 1e6 / repeats


def kept_bytes(forward: Callable[[], Tensor], leaves: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of ``forward`` and that are no part of ``leaves``: memory, each
    piece once, however many tensors share it."""
    known = {leaf.untyped_storage().data_ptr() for leaf in leaves}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            # Held until the end, so that no address is used twice.
            found[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in found.values())
