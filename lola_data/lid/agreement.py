"""How far the language a folder claims and the language a model names agree: counts a language, and a group of kin.

In: the claimed code and the codes identified, a batch at a time. Out: per language how many documents are named as it,
as a language that models take for it (a group of :data:`lola_data.lid.labels.CONFUSABLE_GROUPS`), as another one, or as
none; how many are mostly written in a script that the language is not written in; and the same for each group as one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola_data.languages import LANGUAGES, unicode_scripts
from lola_data.lid.labels import CONFUSABLE_GROUPS, UNDETERMINED, confusable_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

NO_SCRIPT = frozenset({"Zyyy", "Zinh", "Zzzz"})
"""Scripts of texts without letters that tell one."""


@dataclass
class Agreement:
    """Documents of one folder, or of a group of folders.

    Attributes:
        own: named as the folder's language.
        kin: named as another language of its group.
        other: named as any other language.
        none: named as no language: nothing to judge.
        script: of all these, mostly in a script that the language is not written in.
    """

    own: int = 0
    kin: int = 0
    other: int = 0
    none: int = 0
    script: int = 0

    @property
    def documents(self) -> int:
        """All documents."""
        return self.own + self.kin + self.other + self.none

    def __iadd__(self, more: Agreement) -> Agreement:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(more, one.name))
        return self

    def to_json(self) -> dict[str, int]:
        """A plain dict; ``Agreement(**value)`` is its inverse."""
        return asdict(self)


def agreement_of(claimed: str, lang: pa.Array, script: pa.Array) -> Agreement:
    """Agreement in one batch of the folder ``claimed``: ``lang`` and ``script`` are (n,) strings."""
    counts = {value["values"]: value["counts"] for value in pc.value_counts(lang).to_pylist()}
    kin = confusable_with(claimed)
    own, none = counts.get(claimed, 0), counts.get(UNDETERMINED, 0)
    near = sum(count for code, count in counts.items() if code in kin and code != claimed)
    return Agreement(own, near, len(lang) - own - near - none, none, int(unexpected_script(claimed, script).sum()))


def unexpected_script(claimed: str, script: pa.Array) -> npt.NDArray[np.bool_]:
    """Rows whose letters are mostly of a script that the language is not written in; (n,) bool.

    Args:
        claimed: a code; one that is not among the 167 has no script that would be unexpected.
        script: (n,) ISO 15924 codes. Texts without letters that tell a script are not unexpected.
    """
    if claimed not in LANGUAGES:
        return np.zeros(len(script), dtype=np.bool_)
    usual = {*LANGUAGES[claimed].scripts, *unicode_scripts(claimed), *NO_SCRIPT}
    known = pc.is_in(script, value_set=pa.array(sorted(usual), pa.string()))
    return ~known.to_numpy(zero_copy_only=False)


def by_group(languages: Mapping[str, Agreement]) -> dict[str, Agreement]:
    """The groups of which two or more languages are there, each as one: what was ``kin`` is ``own`` here.

    The name of a group is its languages that are there, joined by slashes.
    """
    found: dict[str, Agreement] = {}
    for group in CONFUSABLE_GROUPS:
        members = sorted(code for code in group if code in languages)
        if len(members) < 2:
            continue
        total = Agreement()
        for code in members:
            total += languages[code]
        total.own, total.kin = total.own + total.kin, 0
        found["/".join(members)] = total
    return dict(sorted(found.items()))


def agreement_report(languages: Mapping[str, Agreement]) -> dict[str, Any]:
    """``languages`` and ``groups``: name -> counts, as plain values."""
    return {
        "languages": {code: one.to_json() for code, one in sorted(languages.items())},
        "groups": {name: one.to_json() for name, one in by_group(languages).items()},
    }
