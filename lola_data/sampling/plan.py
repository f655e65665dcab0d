"""What a sampling method gives every language: documents, tokens, shares and epochs, before anything is sampled.

In: how large each language is, as far as that is known, and the recipe's section ``sample``. Out: a
:class:`PlannedSample`: one row a language, their totals, and how even the corpus is before and after. Budgets are those
of :func:`lola_data.sampling.methods.plan`, which the stage goes by too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lola_data.balance.evenness import Evenness, evenness
from lola_data.languages import LANGUAGES
from lola_data.sampling.methods import plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lola_data.sampling.methods import SamplingPlan
    from lola_data.sections import SampleSection


@dataclass(frozen=True, slots=True)
class LanguageSize:
    """How large a language is.

    Attributes:
        documents: counted.
        bytes: UTF-8 bytes of its texts.
        tokens: of its texts.
        estimated: which of ``bytes`` and ``tokens`` are estimates.
    """

    documents: int
    bytes: int
    tokens: int
    estimated: frozenset[str] = frozenset()

    def of(self, unit: str) -> int:
        """Documents, bytes or tokens."""
        return {"documents": self.documents, "bytes": self.bytes, "tokens": self.tokens}[unit]


@dataclass(frozen=True, slots=True)
class PlannedLanguage:
    """What there is of a language, and what it gets.

    Attributes:
        lang: code.
        name: English name of a CulturaX code, else empty.
        documents: documents there are.
        bytes: UTF-8 bytes there are.
        tokens: tokens there are; None where they are not known and the plan does not count in tokens.
        share: part of all units there are, in [0, 1].
        budget: units to train on; above what there is, text is repeated.
        documents_taken: documents that the stage writes, each once. Exact where the plan counts in documents; else
            what a sample of that budget holds if its documents are of average length.
        tokens_taken: tokens of these, at the language's average; None where ``tokens`` is.
        target_share: part of the training, in [0, 1].
        epochs: budget / units there are.
        estimated: which of ``bytes``, ``tokens``, ``budget``, ``documents_taken`` and ``tokens_taken`` are estimates.
            Where the size of one language in the plan's unit is, so are the budgets, shares and epochs of all.
    """

    lang: str
    name: str
    documents: int
    bytes: int
    tokens: int | None
    share: float
    budget: int
    documents_taken: int
    tokens_taken: int | None
    target_share: float
    epochs: float
    estimated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """A sampling plan in documents and tokens.

    Attributes:
        section: what was asked for.
        plan: the budgets, as the stage would make them of these sizes.
        rows: languages, the largest target share first, equal ones by code.
    """

    section: SampleSection
    plan: SamplingPlan
    rows: tuple[PlannedLanguage, ...]

    def totals(self) -> dict[str, Any]:
        """Sums over all languages, under the names of :class:`PlannedLanguage`.

        Of tokens only those languages are summed that have some; ``tokens_of`` is the number of such languages and
        ``tokens_of_documents`` that of their documents. ``epochs`` is all budgets by all there is.
        """
        known = [row for row in self.rows if row.tokens is not None]
        available = sum(budget.available for budget in self.plan.languages.values())
        budget = sum(row.budget for row in self.rows)
        return {
            "languages": len(self.rows),
            "documents": sum(row.documents for row in self.rows),
            "bytes": sum(row.bytes for row in self.rows),
            "tokens": sum(row.tokens or 0 for row in known) if known else None,
            "share": sum(row.share for row in self.rows),
            "budget": budget,
            "documents_taken": sum(row.documents_taken for row in self.rows),
            "tokens_taken": sum(row.tokens_taken or 0 for row in known) if known else None,
            "target_share": sum(row.target_share for row in self.rows),
            "epochs": budget / available if available else 0.0,
            "tokens_of": len(known),
            "tokens_of_documents": sum(row.documents for row in known),
            "estimated": sorted({name for row in self.rows for name in row.estimated}),
        }

    def evenness(self) -> dict[str, Evenness]:
        """``before``: of what there is; ``after``: of the training that the plan makes."""
        return {
            "before": evenness([float(budget.available) for budget in self.plan.languages.values()]),
            "after": evenness([row.target_share for row in self.rows]),
        }

    def to_json(self) -> dict[str, Any]:
        """A plain dict: ``settings`` (the section's values), ``unit``, ``total``, ``unspent``, ``rows``, ``totals`` and
        ``evenness``."""
        return {
            "settings": self.section.model_dump(),
            "unit": self.plan.unit,
            "total": self.plan.total,
            "unspent": self.plan.unspent,
            "rows": [{**asdict(row), "estimated": list(row.estimated)} for row in self.rows],
            "totals": self.totals(),
            "evenness": {name: asdict(figures) for name, figures in self.evenness().items()},
        }


def plan_sample(section: SampleSection, sizes: Mapping[str, LanguageSize]) -> PlannedSample:
    """What ``section`` gives each language of ``sizes``.

    Raises:
        RecipeError: as :func:`lola_data.sampling.methods.plan`.
    """
    made = plan(
        section.method,
        {lang: size.of(section.unit) for lang, size in sizes.items()},
        unit=section.unit,
        total=section.total,
        alpha=section.alpha,
        max_epochs=section.max_epochs,
        budgets=section.budgets,
    )
    # The budget of a language depends on the sizes of all.
    rough = any(section.unit in size.estimated for size in sizes.values())
    rows = [_row(section, made, lang, size, rough=rough) for lang, size in sizes.items()]
    return PlannedSample(section, made, tuple(sorted(rows, key=lambda row: (-row.target_share, row.lang))))


def _row(section: SampleSection, made: SamplingPlan, lang: str, size: LanguageSize, *, rough: bool) -> PlannedLanguage:
    given = made.languages[lang]
    everything = sum(budget.available for budget in made.languages.values())
    taken = (
        size.documents if section.method == "all" else documents_taken(size.documents, given.available, given.budget)
    )
    tokens_known = section.unit == "tokens" or "tokens" not in size.estimated
    part = 0 < taken < size.documents
    estimated = set(size.estimated if tokens_known else size.estimated - {"tokens"})
    if rough and given.budget != section.budgets.get(lang):
        estimated.add("budget")
    if section.method != "all" and (rough or (part and section.unit != "documents")):
        estimated.add("documents_taken")
    if tokens_known and taken and (part or estimated & {"tokens", "documents_taken"}):
        estimated.add("tokens_taken")
    return PlannedLanguage(
        lang=lang,
        name=LANGUAGES[lang].name if lang in LANGUAGES else "",
        documents=size.documents,
        bytes=size.bytes,
        tokens=size.tokens if tokens_known else None,
        share=given.available / everything if everything else 0.0,
        budget=given.budget,
        documents_taken=taken,
        tokens_taken=_part(size.tokens, taken, size.documents) if tokens_known else None,
        target_share=given.share,
        epochs=given.epochs,
        estimated=tuple(sorted(estimated)),
    )


def documents_taken(documents: int, available: int, budget: int) -> int:
    """Documents of a sample of ``budget`` units of ``available``, each document counted at the average size.

    A budget never takes more documents than fit in it, but one at least, as
    :func:`lola_data.sampling.methods.hash_bound`.

    >>> documents_taken(1000, 5000, 1250), documents_taken(1000, 5000, 9000), documents_taken(1000, 5000, 1)
    (250, 1000, 1)
    """
    if budget <= 0:
        return 0
    return documents if budget >= available else max(1, _part(documents, budget, available))


def _part(whole: int, part: int, of: int) -> int:
    return whole * part // of if of else 0
