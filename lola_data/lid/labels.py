"""From the labels of language identification models to CulturaX codes.

In: a label as a model gives it, ``__label__als`` (fastText's lid.176) or ``__label__als_Latn`` (GlotLID, OpenLID,
NLLB). Out: a CulturaX code; a label of a language that CulturaX has not keeps its own name (``dty``, ``xho_Latn``).

The two families of labels are not the same language under the same letters. lid.176 has the codes of the Wikipedias it
was trained on, and CulturaX took them over: there ``als`` is Alemannic. In the others the letters are ISO 639-3, where
``als`` is Tosk Albanian and Alemannic is ``gsw``. What tells them apart is the script behind the underscore.

Sources: the macrolanguage table of ISO 639-3 and the notes of ``resources/languages.tsv``.
"""

from __future__ import annotations

from functools import lru_cache

from lola_data.languages import LANGUAGES

PREFIX = "__label__"

UNDETERMINED = "und"
"""Code of a text with nothing to judge."""

_MEMBERS: dict[str, str] = {
    # Macrolanguages and groups under which CulturaX files a language, and the ISO 639-3 codes that belong there.
    "ar": "ara arb",
    "az": "aze azj",
    "bh": "bih bho",
    "bxr": "bua bxr",
    "ckb": "ckb",
    "eml": "eml egl rgn",
    "et": "est ekk",
    "fa": "fas pes prs",
    "gn": "grn gug",
    "gom": "gom kok",
    "ku": "kur kmr",
    "kv": "kom kpv koi",
    "lv": "lav lvs",
    "mg": "mlg plt bhr bmm bzc msh skg tdx tkg txy xmv xmw",
    "mhr": "mhr chm",
    "mn": "mon khk mvf",
    "ms": "msa zsm zlm",
    "nah": (
        "nah azd azn azz naz nch nci ncj ncl ncx ngu nhc nhe nhg nhi nhk nhm nhn nhp nhq nht nhv nhw nhx nhy nhz nlv "
        "npl nuz ppl"
    ),
    "ne": "nep npi",
    "no": "nor nob",
    "or": "ori ory",
    "ps": "pus pbt pbu pst",
    "qu": (
        "que cqu qub qud quf qug quh quk qul qup qur qus quw qux quy quz qva qvc qve qvh qvi qvj qvl qvm qvn qvo qvp "
        "qvs qvw qvz qwa qwc qwh qws qxa qxc qxh qxl qxn qxo qxp qxr qxt qxu qxw"
    ),
    "sq": "sqi als aln",
    "sw": "swa swh swc",
    "tl": "fil tgl",
    "uz": "uzb uzn uzs",
    "yi": "yid ydd yih",
    "zh": "zho cmn",
}

_BY_SCRIPT: dict[str, str] = {
    # Where CulturaX splits by script what one ISO 639-3 code covers.
    "aze_Arab": "azb",
    "azj_Arab": "azb",
    "hbs_Cyrl": "sr",
    "kur_Arab": "ckb",
    "lah_Arab": "pnb",
    "pan_Arab": "pnb",
}

CONFUSABLE_GROUPS: tuple[frozenset[str], ...] = (
    frozenset({"bs", "hr", "sh", "sr", "cnr_Latn", "cnr_Cyrl"}),
    frozenset({"id", "min", "ms"}),
    frozenset({"wuu", "yue", "zh"}),
    frozenset({"nn", "no"}),
    frozenset({"ar", "arz", "acm_Arab", "acq_Arab", "aeb_Arab", "ajp_Arab", "apc_Arab", "ars_Arab", "ary_Arab"}),
    frozenset({"bh", "hi", "mai"}),
    frozenset({"gom", "mr"}),
    frozenset({"dty", "ne"}),
    frozenset({"bn", "bpy"}),
    frozenset({"bcl", "tl"}),
    frozenset({"ceb", "war"}),
    frozenset({"fa", "lrc", "mzn"}),
    frozenset({"be", "rue", "uk"}),
    frozenset({"mhr", "mrj"}),
    frozenset({"bxr", "mn", "xal"}),
    frozenset({"li", "nl", "vls"}),
    frozenset({"als", "bar", "de"}),
    frozenset({"frr", "fy"}),
    frozenset({"dsb", "hsb"}),
    frozenset({"an", "ast", "cbk", "es"}),
    frozenset({"ca", "oc"}),
    frozenset({"fr", "wa"}),
    frozenset({"eml", "it", "lmo", "nap", "pms", "scn", "vec"}),
    frozenset({"eo", "io"}),
    frozenset({"ia", "ie"}),
)
"""Languages that models take for each other because they are near kin and all but one are rare in the training text. No
code is in two groups. Languages lost to others that are no kin (Erzya to Russian) are not here: text of the other
language in their folder would pass unseen."""


def culturax_code(label: str) -> str:
    """CulturaX code of a model's label, which may have fastText's ``__label__`` in front.

    A label that no CulturaX language answers to is returned as it is, without the prefix; one with ISO 639-3 ``und``
    or ``zxx`` (no language) is :data:`UNDETERMINED`.
    """
    name = label.removeprefix(PREFIX)
    language, underscore, script = name.partition("_")
    if not (underscore and len(language) == 3 and len(script) == 4):
        return name
    if language in ("und", "zxx"):
        return UNDETERMINED
    return _BY_SCRIPT.get(name) or _iso639_3_to_code().get(language, name)


def confusable(left: str, right: str) -> bool:
    """Whether two codes are the same or in one of :data:`CONFUSABLE_GROUPS`."""
    return left == right or right in confusable_with(left)


def confusable_with(code: str) -> frozenset[str]:
    """The codes that count as ``code`` where confusable languages are accepted, itself included."""
    return next((group for group in CONFUSABLE_GROUPS if code in group), frozenset({code}))


@lru_cache(maxsize=1)
def _iso639_3_to_code() -> dict[str, str]:
    table = {entry.iso639_3: entry.code for entry in LANGUAGES.values() if entry.iso639_3}
    table |= {member: code for code, members in _MEMBERS.items() for member in members.split()}
    return table
