"""A memory checker for kernels under Triton's interpreter: what compute-sanitizer does on a card, here.

In a :func:`watched` block each address that a kernel touches is looked at before it is touched. It is an error to read
or write beside the tensors of the launch, to write an element twice in a launch (on a card two programs would race),
to write a tensor that the launch reads, and, where the last program runs alone, to let a whole number pass the end of
its type. In a :func:`poisoned` block
new memory holds NaN (a very large number where it is of integers) and lies apart from all other, so what is not
written, and what is read beside a tensor, shows.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from torch.overrides import TorchFunctionMode
from triton.runtime import interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

APART = 8192
"""Bytes between tensors."""
POISON = 0x3FFFFFF0
"""Of integers."""


def apart(tensor: Tensor) -> Tensor:
    """A contiguous copy with poison around it."""
    around = APART // tensor.element_size()
    with torch._C.DisableTorchFunction():
        memory = torch.empty(tensor.numel() + 2 * around, dtype=tensor.dtype)
        memory.fill_(float("nan") if tensor.is_floating_point() else POISON)
        copy = memory[around : around + tensor.numel()].view(tensor.shape)
        return copy.copy_(tensor.detach())


class _Poisoned(TorchFunctionMode):
    _NEW = (torch.empty, torch.empty_like, Tensor.new_empty)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in self._NEW:
            made.fill_(float("nan") if made.is_floating_point() else POISON)
            return apart(made)
        return apart(made) if func in (torch.zeros, torch.zeros_like, Tensor.new_zeros) else made


def poisoned() -> TorchFunctionMode:
    """A block in which new memory holds poison."""
    return _Poisoned()


class _Launch:
    """What one launch touches."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        spans = sorted({(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in tensors if t.numel()})
        self.begins = np.array([begin for begin, _ in spans], np.uint64)
        self.ends = np.array([end for _, end in spans], np.uint64)
        self.read: set[int] = set()
        self.written: dict[int, list[np.ndarray]] = {}

    def spans_of(self, addresses: np.ndarray, size: int, verb: str) -> np.ndarray:
        span = np.searchsorted(self.begins, addresses, side="right") - 1
        inside = (span >= 0) & (addresses + np.uint64(size) <= self.ends[span]) if len(self.ends) else span >= 0
        assert inside.all(), f"{verb} of {int((~inside).sum())} elements beside the tensors of the launch"
        return span

    def loads(self, addresses: np.ndarray, size: int) -> None:
        self.read.update(np.unique(self.spans_of(addresses, size, "read")).tolist())

    def stores(self, addresses: np.ndarray, size: int) -> None:
        span = self.spans_of(addresses, size, "write")
        for number in np.unique(span).tolist():
            self.written.setdefault(number, []).append(addresses[span == number])

    def close(self) -> None:
        assert not self.read & set(self.written), "a launch writes a tensor that it reads"
        for addresses in map(np.concatenate, self.written.values()):
            assert len(np.unique(addresses)) == len(addresses), "an element is written more than once in a launch"


@contextmanager
def mended(*, overflow: bool = False) -> Iterator[None]:
    """A block in which Triton's interpreter is quicker, and rounds as a card does.

    At each call of a function of the kernels' own it gives the language its meaning anew, though the launch has done
    so, which takes longer than what is called. It cuts float32 off to make bfloat16 of it; a card takes the nearest.

    Args:
        overflow: whether whole numbers are watched, which takes as long as the rest.
    """
    call, convert = interpreter.InterpretedFunction.__call__, interpreter._convert_float
    launch = interpreter.GridExecutor.__call__
    known: set[int] = set()

    def launched(self: Any, *args: Any, **kwargs: Any) -> None:
        known.clear()
        launch(self, *args, **kwargs)

    def quick(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Triton's own functions know the language by other names than the kernels do: once a launch for each module.
        names = id(self.fn.__globals__)
        if self.fn.__module__.startswith("triton.") and names not in known:
            known.add(names)
            return call(self, *args, **kwargs)
        return self.rewrite()(*args, **kwargs)

    def nearest(data: np.ndarray, of: Any, to: Any, rounding: Any) -> np.ndarray:
        if (of, to) != (tl.float32, tl.bfloat16):
            return convert(data, of, to, rounding)
        return torch.from_numpy(np.array(data)).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)

    builder = interpreter.interpreter_builder
    options = dataclasses.replace(builder.options, sanitize_overflow=overflow)
    with (
        mock.patch.object(interpreter.InterpretedFunction, "__call__", quick),
        mock.patch.object(interpreter.GridExecutor, "__call__", launched),
        mock.patch.object(interpreter, "_convert_float", nearest),
        mock.patch.object(builder, "options", options),
    ):
        yield


@contextmanager
def watched(*, only: str | None = None, last: bool = False) -> Iterator[list[str]]:
    """A block in which launches are checked; gives the names of the kernels as they are launched.

    Args:
        only: leave out all kernels but the one of this name.
        last: run the last program of each launch alone. Both are for tensors so large that all would take too long.

    Raises:
        AssertionError: a kernel did what it must not.
    """
    with mended(overflow=last), _watched(only, last) as names:
        yield names


@contextmanager
def _watched(only: str | None, last: bool) -> Iterator[list[str]]:
    names: list[str] = []
    running: list[_Launch] = []
    skipped = 0
    call = interpreter.GridExecutor.__call__
    load = interpreter.InterpreterBuilder.create_masked_load
    store = interpreter.InterpreterBuilder.create_masked_store
    place = interpreter.InterpreterBuilder.set_grid_idx

    def launch(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal skipped
        name = self.fn.__name__
        names.append(name)
        if only not in (None, name):
            return
        if last:
            skipped, self.grid = self.grid[0] - 1, (1,)
        running.append(_Launch([arg for arg in args if isinstance(arg, Tensor)]))
        try:
            call(self, *args, **kwargs)
        except interpreter.InterpreterError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            if isinstance(cause, AssertionError):
                raise AssertionError(f"{name}: {cause}") from error
            raise
        finally:
            launched = running.pop()
        try:
            launched.close()
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error

    def at(self: Any, x: int, y: int, z: int) -> None:
        place(self, x, y, z)
        if skipped:
            self.grid_idx, self.grid_dim = (x + skipped, y, z), (x + skipped + 1, y + 1, z + 1)

    def addresses_of(ptrs: Any, mask: Any) -> tuple[np.ndarray, int]:
        here = np.broadcast_to(mask.data, ptrs.data.shape)
        return ptrs.data[here], ptrs.get_element_ty().primitive_bitwidth // 8

    def masked_load(self: Any, ptrs: Any, mask: Any, *others: Any) -> Any:
        running[-1].loads(*addresses_of(ptrs, mask))
        return load(self, ptrs, mask, *others)

    def masked_store(self: Any, ptrs: Any, value: Any, mask: Any, *others: Any) -> Any:
        running[-1].stores(*addresses_of(ptrs, mask))
        return store(self, ptrs, value, mask, *others)

    def stay(self: Any, *_: Any) -> None:
        """Arguments lie on the CPU as they are: copying them onto themselves would touch all of a sparse tensor."""

    builder = interpreter.InterpreterBuilder
    with (
        mock.patch.object(interpreter.GridExecutor, "__call__", launch),
        mock.patch.object(interpreter.GridExecutor, "_restore_args_dev", stay),
        mock.patch.object(builder, "create_masked_load", masked_load),
        mock.patch.object(builder, "create_masked_store", masked_store),
        mock.patch.object(builder, "set_grid_idx", at),
    ):
        yield names
