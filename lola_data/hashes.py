"""Hash steps shared by the compiled kernels, and 128-bit hashes of strings byte for byte.

In: 64-bit integers, or an Arrow column of strings. Out: uint64. Each is a fixed function of its input: no process seed,
no dependence on the platform. The finaliser is that of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014), a bijection of the 64-bit integers.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from lola_data.buffers import Text, string_buffer, string_chunks

# All uint64: compiled code turns a uint64 that meets a signed integer into a float.
SEED_A = np.uint64(0x243F6A8885A308D3)
SEED_B = np.uint64(0x13198A2E03707344)
STEP_A = np.uint64(0x9E3779B97F4A7C15)
STEP_B = np.uint64(0xD6E8FEB86659FD93)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S29, _S30, _S31, _S32 = (np.uint64(shift) for shift in (27, 29, 30, 31, 32))


@numba.njit(cache=True, nogil=True, inline="always")
def mix64(value):
    """splitmix64's finaliser: uint64 -> uint64, every output bit depends on every input bit."""
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)


@numba.njit(cache=True, nogil=True, inline="always")
def step_a(state, symbol):
    """Feed one symbol (uint64) to a running hash (uint64)."""
    state = (state ^ symbol) * STEP_A
    return state ^ (state >> _S32)


@numba.njit(cache=True, nogil=True, inline="always")
def step_b(state, symbol):
    """Feed one symbol to a running hash that is independent of :func:`step_a`'s."""
    state = (state + symbol) * STEP_B
    return state ^ (state >> _S29)


@numba.njit(cache=True, nogil=True, inline="always")
def finish_128(a, b):
    """Both halves of a 128-bit hash from the two running hashes, each half depending on both."""
    high = mix64(a + (b << _S32 | b >> _S32))
    return high, mix64(b ^ high)


@numba.njit(cache=True, nogil=True)
def _hash_values(data, offsets, out):
    for value in range(offsets.size - 1):
        a, b = SEED_A, SEED_B
        for place in range(offsets[value], offsets[value + 1]):
            symbol = np.uint64(data[place])
            a = step_a(a, symbol)
            b = step_b(b, symbol)
        out[value, 0], out[value, 1] = finish_128(a, b)


def hash128(text: Text) -> npt.NDArray[np.uint64]:
    """128-bit hash of each string's bytes: (N, 2) uint64. A null hashes as the empty string.

    >>> import pyarrow as pa
    >>> a, b, c = hash128(pa.array(["one", "two", "one"])).tolist()
    >>> a == c, a == b
    (True, False)
    """
    parts = []
    for chunk in string_chunks(text):
        out = np.empty((len(chunk), 2), dtype=np.uint64)
        _hash_values(*string_buffer(chunk), out)
        parts.append(out)
    return np.concatenate(parts) if parts else np.empty((0, 2), dtype=np.uint64)
