"""How much of each language goes on, and which of its documents.

In: the size of every language in documents, bytes or tokens, and a method. Out: a :class:`SamplingPlan`: per language a
budget, its share of training and the epochs that makes. Then, from the hash of every document (see
:mod:`lola_data.unit_hash`), the bound below which a document is in the sample.

Methods: ``all``; ``proportional``; ``temperature``, shares ~ size^alpha (Devlin 2018, multilingual BERT; Conneau and
Lample 2019, arXiv 1901.07291, eq. 1); ``unimax`` (Chung et al. 2023, arXiv 2304.09151, algorithm 1); ``budgets``;
``lola-v1``, the rule of the LOLA release (Srivastava et al. 2024, arXiv 2409.11272).

A budget above what a language has means that the trainer goes over it more than once (``epochs`` above 1). Files never
hold a document twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lola_data.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Method = Literal["all", "proportional", "temperature", "unimax", "budgets", "lola-v1"]

EVERYTHING = 2**64
"""Bound above every hash."""

LOLA_V1_FLOOR = 100_000
"""Languages with fewer documents were taken whole."""
LOLA_V1_PERCENT = {"en": 2, "de": 16}
LOLA_V1_OTHER_PERCENT = 4

_BUCKET_BITS = 16


@dataclass(frozen=True, slots=True)
class LanguageBudget:
    """What a language gets.

    Attributes:
        available: units there are.
        budget: units to train on, of a language at hand. Above ``available`` it is repeated.
        share: part of the training that it makes, in [0, 1]; a sampling weight for the trainer. Shares are of the
            budgets before they were rounded to whole units, and sum to 1.
        epochs: ``budget / available``, 0 for an empty language.
    """

    available: int
    budget: int
    share: float
    epochs: float


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """Budgets of all languages.

    Attributes:
        method: one of :data:`Method`.
        unit: what the sizes count.
        total: units asked for.
        unspent: units asked for that no language may take without being repeated too often.
        languages: by code, sorted.
    """

    method: Method
    unit: str
    total: int
    unspent: int
    languages: dict[str, LanguageBudget]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SamplingPlan:
        """The inverse of :meth:`to_json`."""
        languages = {code: LanguageBudget(**budget) for code, budget in value["languages"].items()}
        return cls(**{**value, "languages": languages})


def plan(
    method: Method,
    sizes: Mapping[str, int],
    *,
    unit: str = "documents",
    total: int | None = None,
    alpha: float = 0.3,
    max_epochs: float = 4.0,
    budgets: Mapping[str, int] | None = None,
) -> SamplingPlan:
    """Share a budget out over languages.

    Whole units are dealt by largest remainder, so budgets and ``unspent`` add up to ``total`` exactly. A language never
    gets less than a smaller one (but with ``budgets`` and ``lola-v1``, which say otherwise).

    - ``all``: everything, once.
    - ``proportional``: shares as the sizes, at most everything once.
    - ``temperature``: shares ~ size^alpha. A language that would be repeated more than ``max_epochs`` times gets that
      much, and its surplus is shared out over the others by the same weights.
    - ``unimax``: the same with equal weights, which is UniMax.
    - ``budgets``: as given, cut to ``max_epochs``; a language without one gets nothing.
    - ``lola-v1``: 4 % of the documents, rounded down; of English 2 %, of German 16 %; all where there are fewer than
      100,000. The release took one document less of each language by an index that was off by one; that is not done
      here.

    Args:
        method: see above.
        sizes: units of each language. Empty languages are allowed and get nothing.
        unit: what the sizes count, kept in the plan.
        total: units to share out. None: as many as there are (``temperature``), or as the method says.
        alpha: exponent of ``temperature``: 1 is proportional, 0 uniform.
        max_epochs: see above.
        budgets: units of languages, for ``budgets``.

    Raises:
        RecipeError: ``budgets`` names a language that is not there, or the method lacks its total or its budgets.
    """
    languages = {code: int(sizes[code]) for code in sorted(sizes)}
    everything = sum(languages.values())
    caps = {code: int(Fraction(max_epochs) * size) for code, size in languages.items()}
    if method == "all":
        asked, exact = everything, {code: Fraction(size) for code, size in languages.items()}
    elif method == "proportional":
        asked = everything if total is None else total
        exact = fill(asked, {code: Fraction(size) for code, size in languages.items()}, languages)
    elif method == "temperature":
        asked = everything if total is None else total
        weights = {code: Fraction(float(size) ** alpha) if size else Fraction(0) for code, size in languages.items()}
        exact = fill(asked, weights, caps)
    elif method == "unimax":
        if total is None:
            raise RecipeError("sample.total: `method: unimax` needs a budget to share out")
        asked = total
        exact = fill(asked, {code: Fraction(min(size, 1)) for code, size in languages.items()}, caps)
    elif method == "budgets":
        given = _checked_budgets(budgets, languages)
        asked = sum(given.values())
        exact = {code: Fraction(min(given.get(code, 0), caps[code])) for code in languages}
    else:
        exact = {code: Fraction(lola_v1_documents(code, size)) for code, size in languages.items()}
        asked = int(sum(exact.values()))
    return _plan_of(method, unit, asked, languages, exact)


def lola_v1_documents(code: str, documents: int) -> int:
    """Documents of a language that LOLA v1 was to train on, of ``documents`` that there are."""
    if documents < LOLA_V1_FLOOR:
        return documents
    return documents * LOLA_V1_PERCENT.get(code, LOLA_V1_OTHER_PERCENT) // 100


def fill(total: int, weights: Mapping[str, Fraction], caps: Mapping[str, int]) -> dict[str, Fraction]:
    """``total`` shared out by weight with no share above its cap; what a cap cuts off goes to the others by weight.

    The exact shares; they sum to ``total`` or, where that is less, to the sum of all caps with a weight.
    """
    shares = dict.fromkeys(weights, Fraction(0))
    open_codes = [code for code, weight in weights.items() if weight > 0 and caps[code] > 0]
    left = Fraction(total)
    while open_codes:
        rate = left / sum(weights[code] for code in open_codes)
        full = [code for code in open_codes if weights[code] * rate >= caps[code]]
        if not full:
            shares |= {code: weights[code] * rate for code in open_codes}
            break
        shares |= {code: Fraction(caps[code]) for code in full}
        left -= sum(caps[code] for code in full)
        open_codes = [code for code in open_codes if code not in set(full)]
    return shares


def _checked_budgets(budgets: Mapping[str, int] | None, languages: Mapping[str, int]) -> Mapping[str, int]:
    if not budgets:
        raise RecipeError("sample.budgets: `method: budgets` needs a number of units for each language")
    strangers = sorted(set(budgets) - set(languages))
    if strangers:
        raise RecipeError(
            f"sample.budgets: no documents in {', '.join(strangers)}; the languages at hand are "
            f"{', '.join(languages) or 'none'}"
        )
    return budgets


def _plan_of(
    method: Method, unit: str, asked: int, sizes: Mapping[str, int], exact: Mapping[str, Fraction]
) -> SamplingPlan:
    spent = sum(exact.values(), Fraction(0))
    rounded = round_to_sum(exact, int(spent), sizes)
    return SamplingPlan(
        method=method,
        unit=unit,
        total=asked,
        unspent=asked - int(spent),
        languages={
            code: LanguageBudget(
                available=size,
                budget=rounded[code],
                share=float(exact[code] / spent) if spent else 0.0,
                epochs=rounded[code] / size if size else 0.0,
            )
            for code, size in sizes.items()
        },
    )


def round_to_sum(exact: Mapping[str, Fraction], total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers that sum to ``total``, by largest remainder (Hamilton); of equal ones the larger language is first.

    ``total`` must lie between the sum of the parts rounded down and rounded up.
    """
    rounded = {code: int(value) for code, value in exact.items()}
    left = total - sum(rounded.values())
    for code in sorted(exact, key=lambda code: (rounded[code] - exact[code], -sizes[code], code))[:left]:
        rounded[code] += 1
    return rounded


Sizes: TypeAlias = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]
"""Hash and size of some documents, same length."""


def hash_bound(parts: Callable[[], Iterable[Sizes]], budget: int) -> int:
    """Bound such that the documents whose hash is below it are the sample of that budget.

    Documents are taken in the order of their hash until the next one does not fit: the sample is never larger than the
    budget, and a larger budget gives a superset. The first document is taken even if it alone does not fit, unless the
    budget is 0. Two passes over ``parts``: the first adds sizes up by leading bits of the hash, the second
    looks only at the bucket in which the budget ends, so memory does not grow with the language.

    Args:
        parts: gives the hashes and sizes of all documents, in pieces of any order, each time it is called.
        budget: units.

    Returns:
        A number in [0, 2^64]: :data:`EVERYTHING` takes all documents, 0 none.
    """
    buckets = np.zeros(1 << _BUCKET_BITS, dtype=np.int64)
    shift = np.uint64(64 - _BUCKET_BITS)
    for hashes, sizes in parts():
        # Weights of bincount are floats, exact only up to 2^53.
        np.add.at(buckets, (hashes >> shift).astype(np.int64), sizes)
    running = np.cumsum(buckets)
    if budget <= 0:
        return 0
    if running[-1] <= budget:
        return EVERYTHING
    bucket = int(np.searchsorted(running, budget, side="right"))
    before = int(running[bucket - 1]) if bucket else 0
    found = [
        (hashes[inside], sizes[inside])
        for hashes, sizes in parts()
        if (inside := (hashes >> shift) == np.uint64(bucket)).any()
    ]
    # Documents of one hash cannot be told apart: they are in or out together.
    hashes, inverse = np.unique(np.concatenate([hashes for hashes, _ in found]), return_inverse=True)
    together = np.zeros(len(hashes), dtype=np.int64)
    np.add.at(together, inverse, np.concatenate([sizes for _, sizes in found]))
    cut = int(np.searchsorted(before + np.cumsum(together), budget, side="right"))
    if cut == 0 and not _any_below(parts, bucket << int(shift)):
        cut = 1
    return int(hashes[cut - 1]) + 1 if cut else bucket << int(shift)


def _any_below(parts: Callable[[], Iterable[Sizes]], bound: int) -> bool:
    return bound > 0 and any(bool((hashes < np.uint64(bound)).any()) for hashes, _ in parts())


def chosen(hashes: npt.NDArray[np.uint64], bound: int) -> npt.NDArray[np.bool_]:
    """Which documents lie below a bound of :func:`hash_bound`; (n,) bool."""
    if bound >= EVERYTHING:
        return np.ones(len(hashes), dtype=np.bool_)
    return hashes < np.uint64(bound)


def first_of_each(counts: Sequence[int], budget: int) -> list[int]:
    """How many of the first documents each piece of a language gives where the first ``budget`` of all are taken.

    Args:
        counts: documents of each piece, in order.
        budget: documents to take.

    Returns:
        As many numbers: all of the pieces before the budget ends, part of the one in which it ends, 0 after.
    """
    taken: list[int] = []
    for count in counts:
        taken.append(min(count, max(0, budget - sum(taken))))
    return taken
