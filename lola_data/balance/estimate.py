"""Totals and percentiles estimated from a sample, with intervals of 95 % confidence: figures of sampled units in, how
far the truth may lie from the estimate out.

Every unit (a page of documents, or a document) has a size x that is known for all of them together, such as bytes, and
a figure y that is known for the sampled ones, such as characters. The ratio R = sum y / sum x of a simple random sample
of n of N units estimates Y / X, and R X the total Y (Cochran, *Sampling Techniques*, 3rd ed. 1977, section 6.3; with
pages as units, section 9A.1, for a page is a cluster of documents). Its variance, by linearisation and with the mean of
x in the sample, is

    v(R) = (1 - n / N) n / (n - 1) sum (y_i - R x_i)^2 / (sum x_i)^2,

and the interval R +- t v(R)^(1/2), t being Student's with n - 1 degrees of freedom. Where all units were taken it has
no width. The bias of the ratio is of the order 1 / n and small beside it. Where few documents make up most of what
differs, intervals hold the truth somewhat less often than they say.

A percentile is bounded by inverting the interval of the share of documents below it (Woodruff, *Confidence Intervals
for Medians and Other Position Measures*, JASA 1952). Documents of a page resemble each other, so a sample of pages
tells less than as many documents drawn one by one: by the design effect, the variance of that share among pages over
the variance it would have among single documents (Kish, *Survey Sampling*, 1965).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
"""Of all intervals."""
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


def student_quantile(degrees: float) -> float:
    """The 97.5 % quantile of Student's t, from ``degrees`` of freedom >= 4 on within 0.3 %.

    By the expansion in 1 / degrees (Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.5).

    >>> round(student_quantile(10), 2), round(student_quantile(1e9), 2)
    (2.23, 1.96)
    """
    z, v = _Z, max(1.0, degrees)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / v**power for power, term in enumerate(terms))


def ratio(y: ArrayLike, x: ArrayLike, *, fraction: float) -> tuple[float, float]:
    """The ratio of the totals of y and x, and half the width of its interval.

    >>> ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], fraction=0.1)
    (0.5, 0.0)

    Args:
        y, x: float[n], of the sampled units.
        fraction: n / N in [0, 1].
    """
    y, x = np.asarray(y, np.float64), np.asarray(x, np.float64)
    return ratio_of_moments(y.size, float(y.sum()), float(x.sum()), float(y @ y), float(y @ x), float(x @ x), fraction)


def ratio_of_moments(
    n: int, y: float, x: float, yy: float, yx: float, xx: float, fraction: float
) -> tuple[float, float]:
    """:func:`ratio` from the sums of y, x and their products over n sampled units; half of the width is infinite where
    one unit has to speak for others."""
    if not x:
        return 0.0, 0.0
    found = y / x
    if fraction >= 1.0:
        return found, 0.0
    if n < 2:
        return found, math.inf
    # Of sums that cancel a rounding error may remain below zero.
    residuals = max(0.0, yy - 2.0 * found * yx + found * found * xx)
    if residuals < 1e-12 * yy:
        residuals = 0.0
    error = math.sqrt((1.0 - fraction) * n / (n - 1) * residuals) / abs(x)
    return found, student_quantile(n - 1) * error


def effective_documents(lengths: Sequence[NDArray[np.integer]], levels: Sequence[float], *, fraction: float) -> float:
    """Documents drawn one by one that would tell as much of the distribution as a sample of pages does; infinite where
    all pages were taken.

    Args:
        lengths: of the documents of each sampled page.
        levels: quantiles in (0, 1) at which the design effect is looked at; the largest counts, and none below 1.
        fraction: of the pages that were sampled.
    """
    if fraction >= 1.0:
        return math.inf
    rows = np.array([page.size for page in lengths], np.float64)
    everything = rows.sum()
    if len(lengths) < 2 or not everything:
        return everything or 1.0
    together = np.sort(np.concatenate(lengths))
    worst = 1.0
    for level in levels:
        bound = together[min(together.size - 1, int(level * together.size))]
        below = np.array([np.count_nonzero(page <= bound) for page in lengths], np.float64)
        share = below.sum() / everything
        if not 0.0 < share < 1.0:
            continue
        residuals = below - share * rows
        spread = rows.size / (rows.size - 1) * float(residuals @ residuals) / everything**2
        worst = max(worst, spread * everything / (share * (1.0 - share)))
    # Student's quantile, by the number of pages, is taken in here: who uses this takes the normal one.
    worst *= (student_quantile(rows.size - 1) / _Z) ** 2
    return everything / (worst * (1.0 - fraction))


def quantile_ranks(level: float, variance: float) -> tuple[float, float]:
    """Levels between which the quantile ``level`` lies, the share of documents below it having this variance.

    >>> [round(bound, 3) for bound in quantile_ranks(0.5, 0.25 / 10_000)]
    [0.49, 0.51]
    """
    half = _Z * math.sqrt(variance)
    return max(0.0, level - half), min(1.0, level + half)
