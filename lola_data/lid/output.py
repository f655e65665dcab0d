"""The most probable label of a text's vector: the output layers of fastText, best label only.

In: (D,) float32, and the output layer of :class:`lola_data.lid.tables.Tables`. Out: the label's number and its
probability as fastText states it: it adds 1e-5 before it takes a logarithm, and of labels that are then equal it keeps
the last.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from lola_data.lid.tables import SOFT, TREE
from lola_data.lid.vectors import dot

_TEXTS = 8
_ONE = np.float32(1.0)
_SIGMOID_END, _SIGMOID_STEPS = 8, 512


def _sigmoid_table():
    """fastText's table of the sigmoid between -8 and 8."""
    x = np.arange(_SIGMOID_STEPS + 1, dtype=np.float32) * np.float32(2 * _SIGMOID_END / _SIGMOID_STEPS) - _SIGMOID_END
    return (1.0 / (_ONE + np.exp(-x)).astype(np.float64)).astype(np.float32)


SIGMOID_TABLE = _sigmoid_table()


@numba.njit(cache=True, nogil=True)
def _log(value):
    return np.float32(math.log(np.float64(value) + 1e-5))


@numba.njit(cache=True, nogil=True)
def best_labels(tables, sigmoid, vectors, counts, labels, scores):
    """Write the best label of each of the first m vectors, and its probability.

    Args:
        tables: of the model.
        sigmoid: SIGMOID_TABLE.
        vectors: (n, D) float32.
        counts: (n,) int64, rows that a vector is the mean of; 0: nothing is known of the text, its vector is 0.
        labels, scores: (m,) with m <= n, written to: -1 and 0 where nothing is known or nothing is more probable than
            1e-5, -1 and NaN where the vector is not finite.
    """
    dim, output, left, right = tables.dim, tables.output, tables.left, tables.right
    number = output.size // dim
    chances = np.zeros((_TEXTS, max(number, left.size)), dtype=np.float32)
    nodes = np.zeros(left.size, dtype=np.int32)
    for start in range(0, labels.size, _TEXTS):
        texts = min(_TEXTS, labels.size - start)
        if tables.layer != TREE:
            # A row of the output matrix serves several texts while it is at hand.
            for label in range(number):
                for text in range(texts):
                    chances[text, label] = dot(vectors, (start + text) * dim, dim, output, label * dim)
        for text in range(texts):
            place = start + text
            labels[place], scores[place] = -1, 0.0
            if not _is_finite(vectors, place):
                scores[place] = np.nan
            elif counts[place] > 0 and tables.layer == TREE:
                labels[place], scores[place] = _best_leaf(vectors, place, output, left, right, nodes, chances[0])
            elif counts[place] > 0:
                if tables.layer == SOFT:
                    _softmax(chances[text])
                else:
                    _sigmoid(chances[text], sigmoid)
                labels[place], scores[place] = _last_best(chances[text])


@numba.njit(cache=True, nogil=True)
def _is_finite(vectors, text):
    nothing = np.float32(0.0)
    for column in range(vectors.shape[1]):
        # NaN where a number is NaN or infinite.
        nothing += vectors[text, column] * np.float32(0.0)
    return nothing == 0.0


@numba.njit(cache=True, nogil=True)
def _best_leaf(vectors, text, output, left, right, nodes, scores):
    """Hierarchical softmax, in fastText's order: left before right, no branch that is worse than the best leaf so far.

    ``nodes`` (int32) and ``scores`` (float32): room for as many as the tree has.
    """
    dim, leaves = vectors.shape[1], (left.size + 1) // 2
    best, best_score = -1, np.float32(-np.inf)
    floor = _log(np.float32(0.0))
    nodes[0], scores[0] = left.size - 1, 0.0
    top = 0
    while top >= 0:
        node, score = np.int64(nodes[top]), scores[top]
        top -= 1
        if score < floor or score < best_score:
            continue
        if node < leaves:
            best, best_score = node, score
            continue
        value = dot(vectors, text * dim, dim, output, (node - leaves) * dim)
        chance = _ONE / (_ONE + np.float32(math.exp(-value)))
        nodes[top + 1], scores[top + 1] = right[node], score + _log(chance)
        nodes[top + 2], scores[top + 2] = left[node], score + _log(_ONE - chance)
        top += 2
    return best, np.float32(math.exp(best_score))


@numba.njit(cache=True, nogil=True)
def _softmax(values):
    """Outputs into probabilities, in place."""
    most = np.float32(-np.inf)
    for label in range(values.size):
        most = max(most, values[label])
    total = np.float32(0.0)
    for label in range(values.size):
        values[label] = np.float32(math.exp(values[label] - most))
        total += values[label]
    for label in range(values.size):
        values[label] /= total


@numba.njit(cache=True, nogil=True)
def _sigmoid(values, table):
    """Outputs into probabilities, each for itself, in place."""
    for label in range(values.size):
        value = values[label]
        if value < -_SIGMOID_END:
            values[label] = 0.0
        elif value > _SIGMOID_END:
            values[label] = 1.0
        else:
            step = (value + np.float32(_SIGMOID_END)) * np.float32(_SIGMOID_STEPS / _SIGMOID_END / 2)
            values[label] = table[np.int64(step)]


@numba.njit(cache=True, nogil=True)
def _last_best(chances):
    most = np.float32(0.0)
    for label in range(chances.size):
        most = max(most, chances[label])
    goal = _log(most)
    # Float32 logarithms near log(1e-5) are 1e-6 apart, so only what is as near to the greatest can equal it.
    near = (np.float64(most) + 1e-5) * (1 - 4e-6) - 1e-5
    best = chances.size - 1
    while chances[best] < near or _log(chances[best]) < goal:
        best -= 1
    return best, np.float32(math.exp(goal))
