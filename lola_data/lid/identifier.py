"""Language identification with fastText models, batch by batch.

In: an Arrow column of texts. Out: a column of CulturaX codes and a column of scores, one each per text. The label is
what fastText's own ``predict`` gives for the text as one line; it is found by :mod:`lola_data.lid.kernel`, or by
fastText itself where that does not know the model's kind.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.buffers import string_buffer, string_chunks
from lola_data.errors import LolaError
from lola_data.lid.binding import Binding
from lola_data.lid.format import check_model_file
from lola_data.lid.kernel import Classifier
from lola_data.lid.labels import UNDETERMINED, culturax_code
from lola_data.lid.models import REGISTRY, model_path
from lola_data.lid.weights import UnsupportedModel, read_weights

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.buffers import Text


class Identifier:
    """Names the language of texts.

    The model is loaded at the first call and shared by all identifiers of the process with the same model; an instance
    that has not been asked yet can be sent to another process, and one that has been asked is sent without the model.

    Args:
        model: a registered name (see :mod:`lola_data.lid.models`) or the path of a fastText classifier.
        max_chars: show the model only so many leading characters of a text (None: all).
    """

    def __init__(self, model: str = "lid.176.ftz", *, max_chars: int | None = None) -> None:
        self.model = model
        self.max_chars = max_chars

    def load(self) -> None:
        """Load the model now, for example before a fork so that the processes share its memory.

        Raises:
            RecipeError: no such model.
            LolaError: it cannot be downloaded, or the file is not a whole fastText classifier.
        """
        _load(self.model)

    @property
    def codes(self) -> frozenset[str]:
        """What the model can answer: CulturaX codes, or its own labels where there is none. Loads the model.

        Raises:
            RecipeError, LolaError: as :meth:`load`.
        """
        return frozenset(cast("list[str]", _load(self.model).codes.to_pylist())) - {UNDETERMINED}

    def identify(self, text: Text) -> tuple[pa.Array, pa.Array]:
        """Language and score of each text.

        Line breaks (LF, CR, VT, FF, U+0085, U+2028, U+2029) and NUL stand for a space: fastText ends its line at the
        first of them, or takes it for part of a word. So does the literal token ``</s>``, at which it would stop
        reading. A text that is null, empty or nothing but white space is ``und`` with score 0.

        Args:
            text: (n,) strings of valid UTF-8.

        Returns:
            lang (n,) string, CulturaX codes or the model's own label where there is none; score (n,) float32, the
            probability of that label, in [0, 1].

        Raises:
            LolaError: as :meth:`load`, or the model holds numbers that are not finite.
        """
        model = _load(self.model)
        langs: list[pa.Array] = []
        scores: list[pa.Array] = []
        for part in string_chunks(text):
            shown = part if self.max_chars is None else pc.utf8_slice_codeunits(part, 0, self.max_chars)
            labels, score = model.classifier.predict(*string_buffer(shown))
            if np.isnan(score).any():
                raise LolaError(f"model {self.model!r} holds numbers that are not finite; it is damaged")
            # The steps of hierarchical softmax add 1e-5 each, so a sure label may come out above 1.
            np.clip(score, 0.0, 1.0, out=score)
            score[model.undetermined[labels]] = 0.0
            langs.append(model.codes.take(pa.array(np.where(labels < 0, len(model.codes) - 1, labels))))
            scores.append(pa.array(score))
        return (
            pa.concat_arrays(langs) if langs else pa.array([], pa.string()),
            pa.concat_arrays(scores) if scores else pa.array([], pa.float32()),
        )


class _Model(NamedTuple):
    """A classifier; the code of each of its labels, and ``und`` as the last; which of the codes are ``und``."""

    classifier: Classifier | Binding
    codes: pa.Array
    undetermined: npt.NDArray[np.bool_]


def _load(model: str) -> _Model:
    # A file may be written anew, by `lid train` for one, while this process lives; a registered model is pinned.
    version = None if model in REGISTRY else storage.version_of(str(model_path(model)))
    return _loaded(model, version)


@lru_cache(maxsize=2)
def _loaded(model: str, version: tuple[int, int, int] | None) -> _Model:
    del version
    path = model_path(model)
    if model not in REGISTRY:
        check_model_file(path)
    classifier = open_classifier(path)
    codes = [*map(culturax_code, classifier.labels), UNDETERMINED]
    return _Model(classifier, pa.array(codes, pa.string()), np.array([code == UNDETERMINED for code in codes]))


def open_classifier(path: Path) -> Classifier | Binding:
    """The classifier in a whole fastText file: the compiled one, or fastText's where that cannot read the model."""
    try:
        return Classifier(read_weights(path))
    except UnsupportedModel:
        return Binding(path)
