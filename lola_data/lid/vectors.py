"""Steps of the compiled language identification that Numba's own loops do badly, written in LLVM's instructions.

In: arrays that Numba knows. Out: sums and products of float32 rows, eight bytes as one integer, the next byte of a few
kinds. Rows are worked through in blocks of 16 numbers, then of 4, then one by one, always in the same order, so that
results are the same bits on every machine; Numba's loops would test at each short row whether the arrays overlap.
Nothing here checks a bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba.extending
from llvmlite import ir
from numba.core import cgutils, types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Typed loosely: who calls such a function leaves out its first argument.
_intrinsic: Any = numba.extending.intrinsic
_BLOCK = 16
_WIDTHS = (_BLOCK, 4, 1)
_BYTE = ir.IntType(8)
_INT = ir.IntType(64)
_FLOAT = ir.FloatType()
_BYTES = ir.VectorType(_BYTE, _BLOCK)


class _Code:
    """What is being generated: a function of arrays and integers."""

    def __init__(self, context: Any, builder: Any, signature: Any, values: Any) -> None:
        self.context = context
        self.builder = builder
        self.kinds = signature.args
        self.values = values

    def place(self, array: int, at: Any = None) -> Any:
        """Address of element ``at`` of argument number ``array``."""
        data = self.context.make_array(self.kinds[array])(self.context, self.builder, self.values[array]).data
        return data if at is None else self.builder.gep(data, [at])

    def floats(self, place: Any, at: Any, kind: Any) -> Any:
        """Address of ``kind``, ``at`` float numbers behind ``place``."""
        base = self.builder.bitcast(place, _FLOAT.as_pointer())
        return self.builder.bitcast(self.builder.gep(base, [at]), kind.as_pointer())

    def load(self, place: Any) -> Any:
        """The value at a place that need not be aligned."""
        value = self.builder.load(place)
        value.align = 1
        return value

    def store(self, value: Any, place: Any) -> None:
        self.builder.store(value, place).align = 1

    def variable(self, value: Any) -> Any:
        """Address of a local variable, which LLVM keeps in a register."""
        place = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, place)
        return place

    def count(self, first: Any, last: Any, step: int = 1) -> Any:
        return cgutils.for_range_slice(self.builder, first, last, _INT(step), intp=_INT)

    def for_columns(self, dim: Any, step: Callable[[Any, Any], None]) -> None:
        """Call ``step(column, kind)`` for each whole block of columns, widest first."""
        first = _INT(0)
        for width in _WIDTHS:
            last = self.builder.and_(dim, _INT(-width))
            with self.count(first, last, width) as (column, _):
                step(column, _floats(width))
            first = last

    def lanes_sum(self, lanes: Any) -> Any:
        """The sum of a block, in halves."""
        width = lanes.type.count
        while width > 1:
            width //= 2
            lanes = self.builder.fadd(*self._halves(lanes, width))
        return self.builder.extract_element(lanes, ir.IntType(32)(0))

    def _halves(self, lanes: Any, width: int) -> Iterator[Any]:
        numbers = ir.VectorType(ir.IntType(32), width)
        for first in (0, width):
            chosen = ir.Constant(numbers, list(range(first, first + width)))
            yield self.builder.shuffle_vector(lanes, ir.Constant(lanes.type, ir.Undefined), chosen)


def _floats(width: int) -> Any:
    return ir.VectorType(_FLOAT, width)


@_intrinsic
def sum_rows(typingctx, table, dim, rows, first, last, into, at):
    """Add the rows ``rows[first:last]`` of ``table`` to into[at : at + dim], in this order.

    ``table``: the bytes of float32 rows of ``dim`` numbers, not necessarily aligned; ``rows``: uint32.
    """

    def generate(context, builder, signature, values):
        code = _Code(context, builder, signature, values)
        source, numbers, target = code.place(0), code.place(2), code.place(5, values[6])
        dim, first, last = values[1], values[3], values[4]

        def step(column: Any, kind: Any) -> None:
            total = code.variable(code.load(code.floats(target, column, kind)))
            with code.count(first, last) as (number, _):
                row = builder.zext(builder.load(builder.gep(numbers, [number])), _INT)
                place = code.floats(source, builder.add(builder.mul(row, dim), column), kind)
                builder.store(builder.fadd(builder.load(total), code.load(place)), total)
            code.store(builder.load(total), code.floats(target, column, kind))

        code.for_columns(dim, step)
        return context.get_dummy_value()

    return types.void(table, types.int64, rows, types.int64, types.int64, into, types.int64), generate


@_intrinsic
def add(typingctx, into, dim, source, at):
    """into[:dim] += source[at : at + dim]."""

    def generate(context, builder, signature, values):
        code = _Code(context, builder, signature, values)
        target, addend = code.place(0), code.place(2, values[3])

        def step(column: Any, kind: Any) -> None:
            place = code.floats(target, column, kind)
            code.store(builder.fadd(code.load(place), code.load(code.floats(addend, column, kind))), place)

        code.for_columns(values[1], step)
        return context.get_dummy_value()

    return types.void(into, types.int64, source, types.int64), generate


@_intrinsic
def dot(typingctx, vectors, at, dim, table, table_at):
    """The product of vectors[at : at + dim] and table[table_at : table_at + dim], both counted through all axes."""

    def generate(context, builder, signature, values):
        code = _Code(context, builder, signature, values)
        left, right = code.place(0, values[1]), code.place(3, values[4])
        totals = {width: code.variable(ir.Constant(_floats(width), None)) for width in _WIDTHS}

        def step(column: Any, kind: Any) -> None:
            product = builder.fmul(*(code.load(code.floats(side, column, kind)) for side in (left, right)))
            builder.store(builder.fadd(builder.load(totals[kind.count]), product), totals[kind.count])

        code.for_columns(values[2], step)
        wide, narrow, single = (code.lanes_sum(builder.load(total)) for total in totals.values())
        return builder.fadd(builder.fadd(wide, narrow), single)

    return types.float32(vectors, types.int64, types.int64, table, types.int64), generate


@_intrinsic
def prefetch(typingctx, array, at):
    """Ask for the cache line of element ``at`` of an array, without waiting for it."""

    def generate(context, builder, signature, values):
        place = builder.bitcast(_Code(context, builder, signature, values).place(0, values[1]), _BYTE.as_pointer())
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, flag, flag, flag])
        read, keep, data = flag(0), flag(3), flag(1)
        builder.call(builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind), [place, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@_intrinsic
def load_8(typingctx, data, at):
    """data[at : at + 8] of a uint8 array as one uint64, the first byte lowest on a little-endian machine."""

    def generate(context, builder, signature, values):
        code = _Code(context, builder, signature, values)
        return code.load(builder.bitcast(code.place(0, values[1]), _INT.as_pointer()))

    return types.uint64(data, types.int64), generate


def next_of(highest: int, *others: int) -> Any:
    """A function (data, at) -> number of bytes before the first in data[at : at + 16] that is at most ``highest`` or
    one of ``others``; 16 if there is none."""

    @_intrinsic
    def search(typingctx, data, at):
        def generate(context, builder, signature, values):
            code = _Code(context, builder, signature, values)
            text = code.load(builder.bitcast(code.place(0, values[1]), _BYTES.as_pointer()))
            found = builder.icmp_unsigned("<=", text, ir.Constant(_BYTES, [highest] * _BLOCK))
            for byte in others:
                same = builder.icmp_unsigned("==", text, ir.Constant(_BYTES, [byte] * _BLOCK))
                found = builder.or_(found, same)
            mask = builder.zext(builder.bitcast(found, ir.IntType(_BLOCK)), _INT)
            return builder.cttz(builder.or_(mask, _INT(1 << _BLOCK)), ir.IntType(1)(0))

        return types.int64(data, types.int64), generate

    return search


@_intrinsic
def bit_count(typingctx, value):
    """Bits set in a uint64."""

    def generate(context, builder, signature, values):
        return builder.ctpop(values[0])

    return types.uint64(types.uint64), generate
