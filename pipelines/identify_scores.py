"""The first phase of identify where thresholds go by a rule: the scores of each language's own documents, counted.

raw/<lang>/ -> a record for each unit with the counts of its scores. :func:`thresholds` adds them up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from lola_data.checks import invalid_utf8
from lola_data.lid.identifier import Identifier
from lola_data.lid.labels import confusable_with
from lola_data.lid.thresholds import ScoreCounts, threshold
from lola_data.manifest import UnitReport
from lola_data.schemas import RAW
from lola_data.shards import read_batches
from pipelines.stage import TreeStep

if TYPE_CHECKING:
    from lola_data.sections import IdentifySection
    from lola_data.shards import Unit
    from pipelines.state import StageState


class ScoreStep(TreeStep):
    """Reads every text once and keeps nothing but counts. Text that is not valid UTF-8 is left to the next phase."""

    phase: ClassVar[str] = "scores"

    def __init__(self, *args: Any, section: IdentifySection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.identifier = Identifier(section.model, max_chars=section.max_chars)

    def process(self, work: Unit) -> UnitReport:
        """Count one unit."""
        codes = confusable_with(work.lang) if self.section.accept_confusable else frozenset({work.lang})
        own = pa.array(sorted(codes | {work.lang}), pa.string())
        counts = ScoreCounts()
        for batch in read_batches(self.input_tree, work, RAW, columns=["text"]):
            text = batch["text"]
            bad = invalid_utf8(text)
            if bad.any():
                text = text.filter(pa.array(~bad))
            lang, score = self.identifier.identify(text)
            chosen = score.filter(pc.is_in(lang, value_set=own))
            counts.add(chosen.to_numpy(zero_copy_only=False))
        return UnitReport(work.key, extra={"lang": work.lang, "scores": counts.to_json()})


def thresholds(state: StageState) -> dict[str, float]:
    """Language -> minimum score, from the records of the phase."""
    counts: dict[str, ScoreCounts] = {}
    for report in state.reports(ScoreStep.phase):
        counts.setdefault(report.extra["lang"], ScoreCounts()).__iadd__(ScoreCounts.from_json(report.extra["scores"]))
    return {lang: threshold(found) for lang, found in sorted(counts.items())}
