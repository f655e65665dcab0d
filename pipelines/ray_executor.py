"""Phases on a Ray cluster, by datatrove's executor for it. The driver stays, as it does on one machine.

Every node needs lola-data installed, and sees the work folder under the same path (or it is a URL).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from datatrove.executor.ray import RayPipelineExecutor
from datatrove.utils.logging import logger

from lola_data.background import repeated
from lola_data.errors import StageError
from pipelines.executors import POLL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from lola_data.sections import ExecutorSection
    from pipelines.phases import PhaseRunner
    from pipelines.stage import ShardStep

CONNECT_SECONDS = 20.0
"""A cluster that does not take a connection within this is out of reach."""
_HEADROOM = 1.25
"""Memory that is reserved for a task over that which it is told to keep to: the interpreter and its libraries."""


class _InFolder:
    """A step that goes to the folder of the driver, from which relative paths are meant; nodes without it stay."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Change the folder; yields what came."""
        del rank, world_size
        if os.path.isdir(self.folder):  # noqa: PTH112
            os.chdir(self.folder)
        return data


def connect(executor: ExecutorSection) -> None:
    """Connect to the cluster of the recipe, or start one of this machine's for this process.

    Raises:
        StageError: Ray is not installed, or the cluster is out of reach.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise StageError(
            "`executor.kind: ray` needs Ray, which is not installed: pip install 'lola-data[ray]'"
        ) from None
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    address = executor.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            _knock(address)
            ray.init(address=address, **quiet)
        else:
            ray.init(num_cpus=executor.workers * executor.cpus_per_task, include_dashboard=False, **quiet)
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StageError(
            f"Ray at {address or 'this machine'}: {said}. Look whether the cluster is up (`ray status`) and "
            f"`executor.address` is right"
        ) from error


def _knock(address: str) -> None:
    """Raise OSError if nobody listens there: Ray itself would try for minutes before it said so."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), CONNECT_SECONDS).close()


def ray_runner(executor: ExecutorSection) -> PhaseRunner:
    """Runs phases on Ray and waits for them. A task that is lost is submitted again three times, by datatrove."""
    connect(executor)

    def run(step: ShardStep, units: int, logging_dir: str, on_poll: Callable[[], None]) -> dict[int, str]:
        tasks = min(executor.tasks, units)
        # The driver tells what is done by the records of the units.
        logger.remove()
        phase = RayPipelineExecutor(
            pipeline=[_InFolder(os.getcwd()), step],  # noqa: PTH109
            tasks=tasks,
            workers=min(executor.workers, tasks),
            logging_dir=logging_dir,
            cpus_per_task=executor.cpus_per_task,
            mem_per_cpu_gb=executor.memory_mb * _HEADROOM / 1024 / executor.cpus_per_task,
            skip_completed=False,
        )
        with repeated(on_poll, POLL_SECONDS):
            phase.run()
        return {}

    return run
