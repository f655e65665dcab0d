"""Two identification models as one: the second speaks where the first has no word.

In: two models and texts. Out: languages and scores, as from :class:`lola_data.lid.identifier.Identifier`. A model
of one's own is often better than a published one on the languages that it was trained on, and blind to all others.
So its answer stands, unless the other is sure enough of a language that it has no label for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.lid.identifier import Identifier

if TYPE_CHECKING:
    from lola_data.buffers import Text

SURE = 0.5
JOINT = "+"
"""Between the names of the two, where they are named in one word."""


class Pair:
    """Answers of ``first``, but those of ``second`` where that is at least ``sure`` of what ``first`` cannot name.

    Args:
        first, second: registered names or paths.
        sure: probability in [0, 1].
    """

    def __init__(self, first: str, second: str, *, sure: float = SURE) -> None:
        self.first = Identifier(first)
        self.second = Identifier(second)
        self.sure = sure

    @property
    def codes(self) -> frozenset[str]:
        """What either can name. Loads the models."""
        return self.first.codes | self.second.codes

    def identify(self, text: Text) -> tuple[pa.Array, pa.Array]:
        """Language and score of each text; see :meth:`lola_data.lid.identifier.Identifier.identify`."""
        lang, score = self.first.identify(text)
        other, other_score = self.second.identify(text)
        beyond = pa.array(sorted(self.second.codes - self.first.codes), pa.string())
        takes_over = pc.and_(
            pc.is_in(other, value_set=beyond), pc.greater_equal(other_score, pa.scalar(np.float32(self.sure)))
        )
        return pc.if_else(takes_over, other, lang), pc.if_else(takes_over, other_score, score)
