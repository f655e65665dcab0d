"""Several language identification models asked about the same labelled text.

In: names or paths of models, and labelled text. Out: an :class:`Evaluation`: the scores of each model, and of each
against the first how far they are apart, with an interval. :mod:`lola_data.lid.evaluate_text` writes it down.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow.compute as pc

from lola_data.errors import RecipeError
from lola_data.languages import LANGUAGES
from lola_data.lid.identifier import Identifier
from lola_data.lid.models import model_path
from lola_data.lid.pair import JOINT, Pair
from lola_data.lid.scores import Interval, Scores, macro_f1_difference, score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lola_data.lid.labelled import LabelledText

_SAID = "MODEL"
_WARM_UP = 64
"""Texts asked about before the clock runs, so that compiling is not counted."""


@dataclass(frozen=True)
class Judged:
    """One model or pair: its name as given, bytes on disk, scores, and seconds that its answers took on one thread."""

    model: str
    bytes: int
    scores: Scores
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Models on one set of texts.

    Attributes:
        data: the texts.
        models: in the order given.
        differences: of each model but the first, its macro F1 less that of the first.
        min_documents, replicates, seed: as asked for.
    """

    data: LabelledText
    models: tuple[Judged, ...]
    differences: tuple[Interval, ...]
    min_documents: int
    replicates: int
    seed: int

    @property
    def named_by_all(self) -> frozenset[str]:
        """Languages of the data that every model has a label for."""
        named = [{code.code for code in judged.scores.codes if code.named} for judged in self.models]
        return frozenset(set.intersection(*named))

    @property
    def unknown(self) -> dict[str, int]:
        """Texts of each label of the data that neither CulturaX nor any of the models has: a slip of the pen, or a
        language that none of them can name."""
        named = {code.code for judged in self.models for code in judged.scores.codes if code.named}
        known = named | LANGUAGES.keys()
        return {code.code: code.texts for code in self.models[0].scores.codes if code.code not in known}

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the texts."""
        return int(cast("Any", pc).sum(cast("Any", pc).binary_length(self.data.text)).as_py())


def parts_of(model: str) -> tuple[str, ...]:
    """The one model that is named, or the two of ``FIRST+SECOND``; a ``+`` in the name of a file stays there.

    Raises:
        RecipeError: neither a registered name nor a file, or one of two is not.
    """
    first, joint, second = model.partition(JOINT)
    if not joint or Path(model).expanduser().is_file():
        model_path(model, said=_SAID)
        return (model,)
    model_path(first, said=_SAID)
    model_path(second, said=_SAID)
    return first, second


def evaluate(
    models: Sequence[str],
    data: LabelledText,
    *,
    min_documents: int = 1,
    replicates: int = 1000,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Ask every model about every text.

    Args:
        models: registered names or paths, or two of them as ``FIRST+SECOND`` (:class:`lola_data.lid.pair.Pair`).
        data: what they are asked.
        min_documents: languages with fewer texts are left out of the averages over languages.
        replicates: of the bootstrap; 0: no interval is drawn.
        seed: of the bootstrap.
        progress: told the name of each model before it is asked.

    Raises:
        RecipeError: no model, the same one twice, one that is not there, or no language with ``min_documents`` texts.
        LolaError: a model that is damaged.
    """
    for number, model in enumerate(models):
        if model in models[:number]:
            raise RecipeError(f"model {model!r} is given twice; name each once")
    if not models:
        raise RecipeError("no model given; name a registered one or the path of a file")
    truth = cast("list[str]", data.label.to_pylist())
    judged: list[Judged] = []
    answers: list[list[str]] = []
    for model in models:
        if progress is not None:
            progress(model)
        paths = [model_path(part, said=_SAID) for part in parts_of(model)]
        identifier = Identifier(model) if len(paths) == 1 else Pair(*parts_of(model))
        named = identifier.codes
        identifier.identify(data.text.slice(0, _WARM_UP))
        started = time.perf_counter()
        lang, chance = identifier.identify(data.text)
        seconds = time.perf_counter() - started
        given = cast("list[str]", lang.to_pylist())
        scores = score(truth, given, chance.to_numpy(), named=named, min_documents=min_documents)
        if not scores.codes:
            raise RecipeError(f"--min-documents {min_documents}: no language of the data has as many texts; lower it")
        judged.append(Judged(model, sum(path.stat().st_size for path in paths), scores, seconds))
        answers.append(given)
    differences = [
        macro_f1_difference(truth, answers[0], other, min_documents=min_documents, replicates=replicates, seed=seed)
        for other in answers[1:]
    ]
    return Evaluation(data, tuple(judged), tuple(differences), min_documents, replicates, seed)
