"""How well answers of a language identifier agree with the truth.

In: per text the true code, the answer and its score. Out: :class:`Scores` of one model, and the difference of two
models with an interval. Definitions, for a code c among the codes C of the truth:

- precision: of the texts answered c, those that are c; recall: of the texts that are c, those answered c;
  F1 = 2 correct / (texts that are c + texts answered c). A code never answered has precision and F1 0.
- macro F1: the plain mean of F1 over codes, each language counting the same however many texts it has.
- false-positive rate of c on a balanced set: the mean, over the other codes of C, of the share of their texts answered
  c. It is what would be answered c wrongly if every language had as many texts.
- expected calibration error: texts in 15 bins of equal width by score; the mean over texts of the distance between a
  bin's mean score and its share of right answers (Guo et al., "On calibration of modern neural networks", ICML 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lola_data.lid.labels import CONFUSABLE_GROUPS, confusable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

CALIBRATION_BINS = 15

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CodeScore:
    """One language: its ``texts``, the texts ``answered`` so, those of both (``correct``), and the rates above.

    ``named``: whether the model has a label for it; None where that was not asked. ``taken_for``: wrong answers to its
    texts with their number, most frequent first.
    """

    code: str
    texts: int
    answered: int
    correct: int
    precision: float
    recall: float
    f1: float
    false_positive_rate: float
    named: bool | None
    taken_for: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class GroupScore:
    """A group of confusable languages: ``codes`` of it that have texts, the ``texts``, the share of them answered with
    any code of the group, and the share answered exactly."""

    codes: tuple[str, ...]
    texts: int
    within: float
    exact: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Texts of scores in (low, high]: how many, their mean score and their share of right answers."""

    low: float
    high: float
    texts: int
    score: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference and the 95 % interval of its bootstrap distribution."""

    difference: float
    low: float
    high: float


class Answers:
    """True codes and answers as numbers.

    Args:
        truth: (N,) codes.
        answers: of each model, (N,) codes.
    """

    def __init__(self, truth: Sequence[str], *answers: Sequence[str]) -> None:
        self.codes = sorted({*truth, *(code for model in answers for code in model)})
        number = {code: at for at, code in enumerate(self.codes)}
        self.truth = np.fromiter((number[code] for code in truth), np.int64, len(truth))
        self.answers = [np.fromiter((number[code] for code in model), np.int64, len(model)) for model in answers]
        self.texts = np.bincount(self.truth, minlength=len(self.codes))


@dataclass(frozen=True)
class Scores:
    """One model on N texts.

    Attributes:
        codes: per language of the truth that has at least ``min_documents`` texts, in the order of the alphabet.
        too_few: languages of the truth with fewer; their texts still count as chances to be wrong about others.
        texts: N.
        accuracy: share of the N texts answered exactly.
        group_accuracy: share answered with the code or one confusable with it.
        groups: of confusable languages, two or more of which are in the truth.
        confusions: (true, answer, texts) of wrong answers, most frequent first.
        bins: calibration.
    """

    codes: tuple[CodeScore, ...]
    too_few: tuple[str, ...]
    texts: int
    accuracy: float
    group_accuracy: float
    groups: tuple[GroupScore, ...]
    confusions: tuple[tuple[str, str, int], ...]
    bins: tuple[Bin, ...]

    @property
    def macro_f1(self) -> float:
        """Over all of :attr:`codes`; a language that the model cannot name counts as 0."""
        return _mean(code.f1 for code in self.codes)

    @property
    def macro_f1_named(self) -> float:
        """Over those of :attr:`codes` that the model has a label for. Texts of the others still lower precision."""
        return _mean(code.f1 for code in self.codes if code.named)

    def macro_f1_of(self, codes: Collection[str]) -> float:
        """Over those of :attr:`codes` that are among ``codes``."""
        return _mean(code.f1 for code in self.codes if code.code in codes)

    @property
    def accuracy_named(self) -> float:
        """Share of the texts of languages that the model has a label for which are answered exactly."""
        named = [code for code in self.codes if code.named]
        return sum(code.correct for code in named) / max(1, sum(code.texts for code in named))

    @property
    def codes_named(self) -> int:
        """How many of :attr:`codes` the model has a label for."""
        return sum(bool(code.named) for code in self.codes)

    @property
    def false_positive_rate(self) -> float:
        """Mean over :attr:`codes`."""
        return _mean(code.false_positive_rate for code in self.codes)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error."""
        return sum(bin.texts * abs(bin.score - bin.accuracy) for bin in self.bins) / max(1, self.texts)

    @cached_property
    def by_code(self) -> dict[str, CodeScore]:
        """:attr:`codes` by code."""
        return {score.code: score for score in self.codes}


def score(
    truth: Sequence[str],
    answers: Sequence[str],
    scores: npt.NDArray[np.float32],
    *,
    named: Iterable[str] | None = None,
    min_documents: int = 1,
) -> Scores:
    """The scores of one model.

    Args:
        truth: (N,) codes, N > 0.
        answers: (N,) codes.
        scores: (N,) probabilities of the answers.
        named: codes that the model has labels for (None: those it answered with).
        min_documents: languages with fewer texts are left out of :attr:`Scores.codes`.
    """
    data = Answers(truth, answers)
    (given,) = data.answers
    size = len(data.codes)
    cells, counts = np.unique(data.truth * size + given, return_counts=True)
    rows, columns = cells // size, cells % size
    right = np.zeros(size, np.int64)
    right[rows[rows == columns]] = counts[rows == columns]
    answered = np.bincount(given, minlength=size)
    there = np.flatnonzero(data.texts)
    false_positive = _false_positive_rates(rows, columns, counts, data.texts)
    labels = {data.codes[at] for at in np.unique(given)} if named is None else set(named)
    wrong = sorted(
        (
            (data.codes[row], data.codes[column], int(count))
            for row, column, count in zip(rows, columns, counts, strict=True)
            if row != column
        ),
        key=lambda found: (-found[2], found[0], found[1]),
    )
    taken_for: dict[str, list[tuple[str, int]]] = {}
    for code, answer, count in wrong:
        taken_for.setdefault(code, []).append((answer, count))
    return Scores(
        codes=tuple(
            CodeScore(
                code=code,
                texts=int(data.texts[at]),
                answered=int(answered[at]),
                correct=int(right[at]),
                precision=float(right[at] / max(1, answered[at])),
                recall=float(right[at] / data.texts[at]),
                f1=float(2 * right[at] / (data.texts[at] + answered[at])),
                false_positive_rate=float(false_positive[at]),
                named=code in labels,
                taken_for=tuple(taken_for.get(code, ())),
            )
            for at, code in ((at, data.codes[at]) for at in there)
            if data.texts[at] >= min_documents
        ),
        too_few=tuple(data.codes[at] for at in there if data.texts[at] < min_documents),
        texts=len(truth),
        accuracy=float(right.sum() / max(1, len(truth))),
        group_accuracy=_group_accuracy(data, rows, columns, counts),
        groups=_groups(data, rows, columns, counts),
        confusions=tuple(wrong),
        bins=_bins(data.truth == given, scores),
    )


def macro_f1_difference(
    truth: Sequence[str],
    left: Sequence[str],
    right: Sequence[str],
    *,
    min_documents: int = 1,
    replicates: int = 1000,
    seed: int = 0,
) -> Interval:
    """Macro F1 of ``right`` less that of ``left``, with the 95 % interval of a paired bootstrap.

    Both models are asked about the same texts, which are drawn again with replacement inside each language, so that the
    numbers of texts a language stay as they are (percentile interval: Efron and Tibshirani, 1993). It says how much the
    difference hangs on which of these texts were taken; nothing of text of another kind.
    """
    data = Answers(truth, left, right)
    size = len(data.codes)
    first, second = data.answers
    codes = np.flatnonzero(data.texts >= max(1, min_documents))
    # Texts that are alike in truth and answers are alike in all that matters, so their numbers are drawn.
    cells, counts = np.unique((data.truth * size + first) * size + second, return_counts=True)
    owner, one, two = cells // size**2, cells // size % size, cells % size

    def difference(numbers: npt.NDArray[np.int64]) -> float:
        values = []
        for answer in (one, two):
            answered = np.bincount(answer, numbers, size)
            correct = np.bincount(owner[owner == answer], numbers[owner == answer], size)
            values.append((2 * correct[codes] / (data.texts[codes] + answered[codes])).mean())
        return float(values[1] - values[0])

    draw = np.random.default_rng(seed)
    borders = np.searchsorted(owner, np.append(np.flatnonzero(data.texts), size))
    drawn = np.empty((replicates, len(cells)), np.int64)
    for start, end in pairwise(borders):
        number = counts[start:end]
        drawn[:, start:end] = draw.multinomial(number.sum(), number / number.sum(), size=replicates)
    found = np.array([difference(numbers) for numbers in drawn])
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(difference(counts), float(low), float(high))


def _false_positive_rates(rows: Counts, columns: Counts, counts: Counts, texts: Counts) -> npt.NDArray[np.float64]:
    """Of each code, the mean over the other codes of the truth of the share of their texts answered with it."""
    wrong = rows != columns
    shares = np.bincount(columns[wrong], counts[wrong] / texts[rows[wrong]], texts.size)
    return shares / np.maximum(1, np.count_nonzero(texts) - (texts > 0))


def _group_accuracy(data: Answers, rows: Counts, columns: Counts, counts: Counts) -> float:
    fits = [confusable(data.codes[row], data.codes[column]) for row, column in zip(rows, columns, strict=True)]
    return float(counts[fits].sum() / max(1, counts.sum()))


def _groups(data: Answers, rows: Counts, columns: Counts, counts: Counts) -> tuple[GroupScore, ...]:
    found: list[GroupScore] = []
    for group in CONFUSABLE_GROUPS:
        inside = np.array([code in group for code in data.codes])
        members = tuple(code for at, code in enumerate(data.codes) if inside[at] and data.texts[at])
        if len(members) > 1:
            texts = int(data.texts[inside].sum())
            within = counts[inside[rows] & inside[columns]].sum() / texts
            exact = counts[inside[rows] & (rows == columns)].sum() / texts
            found.append(GroupScore(members, texts, float(within), float(exact)))
    return tuple(found)


def _bins(right: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]) -> tuple[Bin, ...]:
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    values = scores.astype(np.float64)
    # (low, high], and the first with its lower end.
    place = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, CALIBRATION_BINS - 1)
    number = np.bincount(place, minlength=CALIBRATION_BINS)
    total = np.bincount(place, values, CALIBRATION_BINS)
    correct = np.bincount(place, right, CALIBRATION_BINS)
    return tuple(
        Bin(
            float(edges[at]),
            float(edges[at + 1]),
            int(number[at]),
            float(total[at] / number[at]),
            float(correct[at] / number[at]),
        )
        for at in np.flatnonzero(number)
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
