"""Pairs of texts of a stated similarity in six scripts, many of them, to measure recall on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.edits import replaced_words

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = tuple(round(0.30 + 0.05 * step, 2) for step in range(14))
"""0.30 to 0.95."""
SCRIPTS: dict[str, tuple[str, str]] = {
    "Latn": ("abcdefghijklmnopqrstuvwxyzéü", " "),
    "Cyrl": ("абвгдежзийклмнопрстуфхцчшщыэюя", " "),
    "Arab": ("ابتثجحخدذرزسشصضطظعغفقكلمنهوي", " "),
    "Deva": ("कखगघचछजझटठडढणतथदधनपफबभमयरलवशसह", " "),
    "Hang": ("가나다라마바사아자차카타파하고노도로모보소오조초코토포호", " "),
    "Hani": ("".join(chr(point) for point in range(0x4E00, 0x4E00 + 3000)), ""),
}
"""Letters to make words of, and what stands between words."""
WORDS = 400
VOCABULARY = 3_000


def vocabulary(script: str, draws: np.random.Generator) -> list[str]:
    """Words of a script: 2 to 8 letters, single characters where no spaces are written."""
    letters, joint = SCRIPTS[script]
    if not joint:
        return list(letters)
    lengths = draws.integers(2, 9, size=VOCABULARY)
    made = {"".join(letters[int(one)] for one in draws.integers(len(letters), size=length)) for length in lengths}
    return sorted(made)


def edited_pairs(count: int, *, seed: int = 0, words: int = WORDS) -> Iterator[tuple[str, str, list[str]]]:
    """``count`` texts, the scripts in turn, each as (script, text, a copy for each of :data:`LEVELS`).

    In a copy single words are replaced by others: in equal stretches one each, so that few n-grams hold two.
    """
    draws = np.random.default_rng(seed)
    pools = {script: vocabulary(script, draws) for script in SCRIPTS}
    names = list(SCRIPTS)
    for number in range(count):
        script = names[number % len(names)]
        pool, joint = pools[script], SCRIPTS[script][1]
        chosen = draws.integers(len(pool), size=words)
        copies: list[str] = []
        for level in LEVELS:
            edits = max(1, replaced_words(words, level, 5))
            borders = np.linspace(0, words, edits + 1).astype(np.int64)
            places = draws.integers(borders[:-1], borders[1:])
            copy = chosen.copy()
            copy[places] = (copy[places] + draws.integers(1, len(pool), size=edits)) % len(pool)
            copies.append(joint.join([pool[one] for one in copy.tolist()]))
        yield script, joint.join([pool[one] for one in chosen.tolist()]), copies
