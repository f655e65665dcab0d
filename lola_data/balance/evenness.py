"""How evenly a corpus is spread over its languages: one size per language in, a few well-known figures out.

Sizes may be bytes, tokens or documents; only their proportions matter. A language of size 0 counts as a language that
has nothing: it lowers evenness and raises the Gini coefficient, and leaves the entropy as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Evenness:
    """Evenness of n languages of sizes x_1..x_n with shares p_i = x_i / sum(x).

    Attributes:
        languages: n.
        entropy: Shannon entropy H = -sum p_i ln p_i, in nats; 0 when one language has everything.
        normalised_entropy: Pielou's evenness H / ln n, in [0, 1]; 1 by convention when n is 1, 0 when all sizes are 0.
        effective_languages: exp(H), Hill number of order 1: so many languages of equal size have the same entropy.
        gini: Gini coefficient sum_i (2i - n - 1) x_(i) / (n sum x) over sizes in ascending order; 0 when all are
            equal, (n - 1) / n when one has everything.
        smallest_100_share: share of the 100 smallest languages (of all, when there are no more than 100).
        smallest_half_share: share of the floor(n / 2) smallest languages.
    """

    languages: int
    entropy: float
    normalised_entropy: float
    effective_languages: float
    gini: float
    smallest_100_share: float
    smallest_half_share: float


def evenness(sizes: ArrayLike) -> Evenness:
    """Evenness figures of ``sizes``: float[n], each finite and not negative.

    >>> figures = evenness([1, 1, 1, 1])
    >>> round(figures.effective_languages, 9), figures.gini
    (4.0, 0.0)

    Raises:
        ValueError: a negative or non-finite size, or an array of more than one dimension.
    """
    x: NDArray[np.float64] = np.sort(np.asarray(sizes, np.float64))
    if x.ndim != 1 or not np.isfinite(x).all() or (x.size and x[0] < 0):
        raise ValueError("sizes: a flat list of finite numbers, none of them negative, is needed")
    n, total = int(x.size), float(x.sum())
    if total == 0.0:
        return Evenness(n, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    shares = x / total
    present = shares[shares > 0]
    entropy = max(0.0, float(-(present * np.log(present)).sum()))
    ranks = np.arange(1, n + 1)
    return Evenness(
        languages=n,
        entropy=entropy,
        normalised_entropy=entropy / float(np.log(n)) if n > 1 else 1.0,
        effective_languages=float(np.exp(entropy)),
        gini=float(((2 * ranks - n - 1) * shares).sum() / n),
        smallest_100_share=float(shares[:100].sum()),
        smallest_half_share=float(shares[: n // 2].sum()),
    )
