"""A collection with labels: documents in 12 scripts, copies with graded edits, and what only looks like a copy.

Texts are made of drawn words, so that no two are alike but by what is done here. For each edited copy the label says
whether a person who knows the rule would call it a duplicate: the Jaccard similarity of the sets of five words to its
original, exactly computed, reaches the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHABETS: dict[str, tuple[str, str]] = {
    "Latn": ("abcdefghijklmnopqrstuvwxyzéüøß", " "),
    "Cyrl": ("абвгдежзийклмнопрстуфхцчшщыэюя", " "),
    "Grek": ("αβγδεζηθικλμνξοπρστυφχψω", " "),
    "Armn": ("աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցփքօֆ", " "),
    "Geor": ("აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ", " "),
    "Hebr": ("אבגדהוזחטיכלמנסעפצקרשת", " "),
    "Arab": ("ابتثجحخدذرزسشصضطظعغفقكلمنهوي", " "),
    "Deva": ("कखगघचछजझटठडढणतथदधनपफबभमयरलवशसह", " "),
    "Taml": ("கஙசஞடணதநபமயரலவழளறன", " "),
    "Hang": ("가나다라마바사아자차카타파하고노도로모보소오조초코토포호", " "),
    "Thai": ("กขคงจฉชซญฐณดตถทธนบปผฝพฟภมยรลวศสหอฮ", ""),
    "Hani": ("".join(chr(point) for point in range(0x4E00, 0x4E00 + 3000)), ""),
}
"""Script -> letters, and what stands between words."""
VOCABULARY = 4_000
KINDS = ("same", "case", "space", "insert", "delete", "replace", "reorder", "boilerplate")
"""Edits; the last five at :data:`GRADES`."""
GRADES = (0.005, 0.01, 0.02, 0.04, 0.08)
"""Share of the words that is inserted, deleted, replaced; for boilerplate ten times the share is added around."""
TEMPLATES = "template", "chain"
FILLED = 0.25
"""Share of a templated document that is its own; two of them have a Jaccard similarity of 0.6 at the most."""
CHAIN = 6
CHAIN_STEP = 0.012
"""Share of the words replaced from link to link: neighbours are duplicates, the ends are not."""


@dataclass
class Graded:
    """The collection. ``of``: the original of each copy, -1 for others; ``kind``: how it was made."""

    scripts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    of: list[int] = field(default_factory=list)

    def add(self, script: str, text: str, kind: str, of: int = -1) -> int:
        """Append a document; its number."""
        self.scripts.append(script)
        self.texts.append(text)
        self.kinds.append(kind)
        self.of.append(of)
        return len(self.texts) - 1


def _edit(kind: str, share: float, words: list[str], pool: list[str], draws: np.random.Generator) -> list[str]:
    """Words edited at random places."""
    count = max(1, round(share * len(words)))
    some = [pool[one] for one in draws.integers(len(pool), size=10 * count).tolist()]
    if kind == "boilerplate":
        return [*some[: len(some) // 2], *words, *some[len(some) // 2 :]]
    edited = list(words)
    places = sorted(draws.choice(len(words), size=count, replace=False).tolist(), reverse=True)
    if kind == "reorder":
        # Sentences moved: the text is cut at the places and its pieces put together in another order.
        borders = [0, *sorted(places), len(words)]
        pieces = [words[first:last] for first, last in pairwise(borders)]
        return [word for one in draws.permutation(len(pieces)).tolist() for word in pieces[one]]
    for place, word in zip(places, some, strict=False):
        if kind == "insert":
            edited.insert(place, word)
        elif kind == "delete":
            del edited[place]
        else:
            edited[place] = word
    return edited


def make(groups: int, *, words: int = 250, seed: int = 0) -> Graded:
    """``groups`` originals for every script and edit; templated documents and chains beside them."""
    made = Graded()
    for number, (script, (letters, joint)) in enumerate(ALPHABETS.items()):
        draws = np.random.default_rng([seed, number])
        pool = _pool(letters, joint, draws)

        def draw(count: int, pool: list[str] = pool, draws: np.random.Generator = draws) -> list[str]:
            return [pool[one] for one in draws.integers(len(pool), size=count).tolist()]

        for kind in KINDS:
            for grade in GRADES if kind in KINDS[3:] else (0.0,):
                for _ in range(groups):
                    original = draw(words)
                    first = made.add(script, joint.join(original), "original")
                    if kind in KINDS[:3]:
                        copy = _dressed(kind, joint.join(original))
                    else:
                        copy = joint.join(_edit(kind, grade, original, pool, draws))
                    made.add(script, copy, kind, first)
        for _ in range(groups):
            _add_template(made, script, joint, draw, words)
            _add_chain(made, script, joint, draw(words), pool, draws)
    return made


def _pool(letters: str, joint: str, draws: np.random.Generator) -> list[str]:
    if not joint:
        return list(letters)
    lengths = draws.integers(2, 9, size=VOCABULARY).tolist()
    return sorted({"".join(letters[one] for one in draws.integers(len(letters), size=length)) for length in lengths})


def _dressed(kind: str, text: str) -> str:
    if kind == "case":
        return text.upper()
    return f"\n {text.replace(' ', '  ', 5)}\n\n" if kind == "space" else text


def _add_template(made: Graded, script: str, joint: str, draw: Callable[[int], list[str]], words: int) -> None:
    """Four documents of one template, each with stretches of its own: alike to the eye, no duplicates."""
    frame = draw(round(words * (1 - FILLED)))
    for _ in range(4):
        own = draw(words - len(frame))
        cut = len(frame) // 2
        half = len(own) // 2
        made.add(script, joint.join([*frame[:cut], *own[:half], *frame[cut:], *own[half:]]), TEMPLATES[0])


def _add_chain(
    made: Graded, script: str, joint: str, words: list[str], pool: list[str], draws: np.random.Generator
) -> None:
    last = -1
    for _ in range(CHAIN):
        last = made.add(script, joint.join(words), TEMPLATES[1], last)
        words = _edit("replace", CHAIN_STEP, words, pool, draws)
