"""What the tests of many processes run: functions that each process calls, and the call that starts the processes.

Processes are forked from a server that has imported the trainer once, since importing it takes longer than the tests.
Each finds the variables that ``torchrun`` sets; the store at which they meet is held by the test, as by torchrun.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from lola_data.train_config import TrainConfig
from train.kernels.exchange import from_owners, to_owners
from train.model import Decoder
from train.moe import MixtureOfExperts
from train.optimizer import make_optimizer
from train.parallel import check_world, spread
from train.ranks import ALONE, Ranks, joined
from train.step import train_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from torch import Tensor

HUNG = 300
"""Seconds after which processes count as hung and are killed; on two free cores nothing here takes a tenth of it."""
VOCAB, STEPS, ROWS = 50, 3, 8


@dataclass(frozen=True)
class Ended:
    """How a process ended: what its function returned, or what it raised."""

    value: Any = None
    error: BaseException | None = None


@contextlib.contextmanager
def started(
    world: int, function: Callable[..., Any], *arguments: Any
) -> Iterator[list[tuple[BaseProcess, Connection]]]:
    """``world`` processes that call ``function(*arguments)``, each with the end at which its :class:`Ended` comes; they
    are killed at the end if they still run."""
    context = multiprocessing.get_context("forkserver")
    # Torch imports the second one at the first step of an optimiser.
    context.set_forkserver_preload(["train.loop", "torch._dynamo"])
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    begun: list[tuple[BaseProcess, Connection]] = []
    for rank in range(world):
        mine, theirs = context.Pipe(duplex=False)
        variables = {
            "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        }  # fmt: skip
        process = context.Process(target=_call, args=(theirs, variables, function, arguments), daemon=True)
        process.start()
        theirs.close()
        begun.append((process, mine))
    try:
        yield begun
    finally:
        for process, mine in begun:
            process.join(1)
            process.kill()
            process.join()
            mine.close()


def run_all(world: int, function: Callable[..., Any], *arguments: Any) -> list[Ended]:
    """Call ``function(*arguments)`` in ``world`` processes; how each of them ended, by rank.

    Raises:
        AssertionError: a process neither returned nor raised; all are killed then.
    """
    last, ended = time.monotonic() + HUNG, []
    with started(world, function, *arguments) as begun:
        for rank, (_, mine) in enumerate(begun):
            assert mine.poll(max(0.0, last - time.monotonic())), f"process {rank} of {world} hangs"
            try:
                ended.append(mine.recv())
            except EOFError:
                raise AssertionError(f"process {rank} of {world} died") from None
    return ended


def results_of(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``function(*arguments)`` returned in each of ``world`` processes; raises what one of them raised."""
    ended = run_all(world, function, *arguments)
    for rank, one in enumerate(ended):
        if one.error is not None:
            raise AssertionError(f"process {rank} of {world}") from one.error
    return [one.value for one in ended]


def _call(end: Connection, variables: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    # To put a tensor together for a comparison takes what this warns of.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    try:
        ended = Ended(value=function(*arguments))
    except Exception as error:
        import traceback

        error.add_note(traceback.format_exc())
        ended = Ended(error=error)
    with contextlib.suppress(BrokenPipeError):  # whoever began it may have what it wanted
        end.send(ended)
    end.close()


class Seen(NamedTuple):
    """What some steps saw, and the weights after them, whole.

    Attributes:
        steps: loss, grad_norm, balance and z of each.
        loads: load_LE of each, as lists.
        tensors: by name, parameters and buffers.
    """

    steps: list[dict[str, float]]
    loads: list[list[list[float]]]
    tensors: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Settings under which some steps are made.

    Attributes:
        settings: of :class:`TrainConfig`.
        one_expert: whether every token is sent to expert 0.
    """

    settings: dict[str, Any]
    one_expert: bool = False


def make_steps(case: Case, ranks: Ranks = ALONE) -> Seen:
    """Train a small model for some steps, on the same global batches for any number of processes."""
    config = TrainConfig.from_dict(case.settings)
    check_world(config, ranks.world)
    with torch.device("meta"):
        model = Decoder(config.model, VOCAB, 1, config.moe_backend)
    model.train()
    if config.recompute:
        for block in model.blocks:
            block.recompute_activations()  # type: ignore[operator]
    spread(model, config, ranks, "cpu")
    model.to_empty(device="cpu")
    model.initialise(0)
    if case.one_expert:
        for module in model.modules():
            if isinstance(module, MixtureOfExperts):
                assert module.bias_E is not None
                # More than any probability: the choice is made, whatever the router learns meanwhile.
                module.bias_E[0] = 10.0
    optimizer = make_optimizer(model, config)
    generator = torch.Generator().manual_seed(0)
    steps, loads = [], []
    for step in range(STEPS):
        tokens = torch.randint(0, VOCAB, (ROWS, config.model.seq_len + 1), generator=generator)
        result = train_step(
            model, optimizer, tokens[ranks.rank :: ranks.world], config, step=step, autocast=None, ranks=ranks
        )
        steps.append({name: getattr(result, name) for name in ("loss", "grad_norm", "balance", "z")})
        loads.append(result.load_LE.tolist())
    tensors = {name: whole(value).numpy() for name, value in model.state_dict().items()}
    return Seen(steps, loads, tensors)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is spread over processes, in each of them. All of them call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def make_many_steps(cases: dict[str, Case]) -> dict[str, Seen]:
    """:func:`make_steps` for each of ``cases``, in one group of processes."""
    with joined("cpu") as ranks:
        return {name: make_steps(case, ranks) for name, case in cases.items()}


def use_ranks() -> tuple[Any, ...]:
    """What a process has of the sum, the vote and the word of the first."""
    with joined("cpu") as ranks:
        total = ranks.sum(torch.tensor([1.0, 10.0 * ranks.rank])).tolist()
        votes = [ranks.any(False), ranks.any(ranks.rank == 1), ranks.any(True)]
        ranks.wait()
        return total, votes, ranks.first_says(f"said by {ranks.rank}"), ranks.is_first


def exchange(rows: list[list[list[float]]], counts: list[list[int]]) -> dict[str, Any]:
    """Send a process's rows to the owners of their experts, let each owner multiply a row by 100 * (its rank + 1) plus
    the number of the expert there, and take them home; with the gradients of the sum of squares."""
    with joined("cpu") as ranks:
        assert dist.group.WORLD is not None
        x_RD = torch.tensor(rows[ranks.rank]).reshape(-1, 2).requires_grad_()
        arrived, arrival = to_owners(x_RD, torch.tensor(counts[ranks.rank]), dist.group.WORLD)
        weight = torch.ones((), requires_grad=True)
        factor_N1 = (100.0 * (ranks.rank + 1) + arrival.expert_N)[:, None]
        home = from_owners(arrived * factor_N1 * weight, arrival, dist.group.WORLD)
        home.square().sum().backward()
        assert x_RD.grad is not None
        assert weight.grad is not None
        return {
            "arrived": arrived.tolist(), "expert": arrival.expert_N.tolist(), "sent": arrival.sent,
            "received": arrival.received, "home": home.tolist(), "x_grad": x_RD.grad.tolist(),
            "weight_grad": weight.grad.item(),
        }  # fmt: skip


class TrainCall(NamedTuple):
    """Arguments of a call of :func:`train.loop.train`.

    Attributes:
        run: the run's directory.
        settings: of :class:`TrainConfig`.
        max_steps: most steps of the call.
        signal_rank, signal_step: which process gets SIGTERM, and in which step (from 0).
    """

    run: Path
    settings: dict[str, Any]
    max_steps: int | None = None
    signal_rank: int = -1
    signal_step: int = -1


def call_train(tree: Path, calls: list[TrainCall], together: bool = True) -> list[tuple[int, Any]]:
    """Call ``train`` several times, in one group of processes or (``together=False``) as the CLI does; the steps done
    and the summary of each call."""
    import train.loop as loop

    real, results = loop.train_step, []
    with joined("cpu") if together else contextlib.nullcontext(ALONE) as ranks:
        for call in calls:

            def step_with_signal(*given: Any, step: int, call: TrainCall = call, **more: Any) -> Any:
                if (ranks.rank, step) == (call.signal_rank, call.signal_step):
                    os.kill(os.getpid(), signal.SIGTERM)
                return real(*given, step=step, **more)

            loop.train_step = step_with_signal
            config = TrainConfig.from_dict(call.settings)
            result = loop.train(config, tree, call.run, max_steps_this_run=call.max_steps)
            results.append((result.step, result.summary))
    loop.train_step = real
    return results


def call_cli(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of the console script."""
    from lola_data.cli import main

    code, output, errors = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, output.getvalue(), errors.getvalue()
