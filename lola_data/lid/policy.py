"""What becomes of a document whose language has been identified: it stays, moves to another folder, or is removed.

In: the folder of the documents, the language and score of each, and the identify section of the recipe. Out: per
document the folder it goes to, or the reason for which it is removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.lid.agreement import unexpected_script
from lola_data.lid.labels import UNDETERMINED, confusable, confusable_with

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lola_data.sections import IdentifySection

WRONG_LANGUAGE = "wrong_language"
LOW_SCORE = "low_score"
WRONG_SCRIPT = "wrong_script"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of each document: ``folder`` (n,) string, where it goes, null if it is removed; ``reason`` (n,) string, why it is
    removed, null if it is kept."""

    folder: pa.Array
    reason: pa.Array


def judge(
    claimed: str,
    lang: pa.Array,
    score: pa.Array,
    section: IdentifySection,
    *,
    languages: Collection[str],
    script: pa.Array | None = None,
    second: tuple[pa.Array, pa.Array] | None = None,
    minima: Mapping[str, float] | None = None,
) -> Verdict:
    """Apply the policy to documents of one folder.

    - A document is in its own language where the model says so, or says a language confusable with it
      (``accept_confusable``). It stays if its score reaches the folder's minimum, else it goes as ``low_score``.
    - One of which the model is at least ``mismatch_score`` sure that it is in another language is dropped as
      ``wrong_language``, kept, or moved. It moves only to a folder in ``languages`` and only if the score reaches the
      minimum of that language; else it goes as ``wrong_language`` or ``low_score``.
    - What is left, another language with a doubtful score or none at all, is no evidence for the folder's language: it
      stays only where the folder asks for no minimum, else it goes as ``low_score``.
    - With a second opinion, another language is believed only where both are sure of one, and ``relabel`` only where
      they name the same one or near kin; what one alone says is doubtful.
    - With ``unexpected_script: drop`` one that would stay or move, but is mostly in a script that the language of its
      folder is not written in, goes as ``wrong_script``.

    Args:
        claimed: code of the folder.
        lang: (n,) string, codes as identified.
        score: (n,) float32.
        section: policy and scores.
        languages: folders that ``relabel`` may move to.
        script: (n,) string, ISO 15924 codes; needed for ``unexpected_script: drop``.
        second: (lang, score) as the second model gives them, in the same shapes.
        minima: language -> minimum score, before ``section.min_score``.
    """
    minima = {**(minima or {}), **section.min_score_by_language}
    scores = score.to_numpy(zero_copy_only=False)
    own_codes = confusable_with(claimed) if section.accept_confusable else frozenset({claimed})
    own = _is_in(lang, own_codes | {claimed})
    sure_of_other = ~own & ~_is_in(lang, {UNDETERMINED}) & (scores >= np.float32(section.mismatch_score))
    one_word = np.ones(len(lang), dtype=np.bool_)
    if second is not None:
        others = second[1].to_numpy(zero_copy_only=False)
        sure_too = ~_is_in(second[0], own_codes | {claimed, UNDETERMINED})
        sure_of_other &= sure_too & (others >= np.float32(section.mismatch_score))
        pairs = zip(lang.to_pylist(), second[0].to_pylist(), strict=True)
        one_word = np.fromiter((confusable(one, two) for one, two in pairs), np.bool_, len(lang))
    doubtful = np.where(own, scores, np.float32(0)) < np.float32(minima.get(claimed, section.min_score))

    folder = np.full(len(lang), claimed, dtype=object)
    reason = np.full(len(lang), None, dtype=object)
    reason[doubtful & ~sure_of_other] = LOW_SCORE
    if section.policy == "drop":
        reason[sure_of_other] = WRONG_LANGUAGE
    elif section.policy == "relabel":
        homeless = sure_of_other & ~(_is_in(lang, languages) & one_word)
        moving = sure_of_other & ~homeless
        folder[moving] = lang.to_numpy(zero_copy_only=False)[moving]
        reason[homeless] = WRONG_LANGUAGE
        for code in set(folder[moving].tolist()):
            reason[moving & (folder == code) & (scores < np.float32(minima.get(code, section.min_score)))] = LOW_SCORE
    if section.unexpected_script == "drop" and script is not None:
        for code in {*folder[reason == None].tolist()}:  # noqa: E711 (element by element)
            stays = (folder == code) & (reason == None)  # noqa: E711
            reason[stays & unexpected_script(code, script)] = WRONG_SCRIPT
    folder[reason != None] = None  # noqa: E711 (element by element)
    return Verdict(pa.array(folder, pa.string()), pa.array(reason, pa.string()))


def _is_in(lang: pa.Array, codes: Collection[str]) -> np.ndarray:
    return pc.is_in(lang, value_set=pa.array(sorted(codes), pa.string())).to_numpy(zero_copy_only=False)
