"""An evaluation written down: tables for people, JSON and CSV for programs.

In: an :class:`lola_data.lid.evaluate.Evaluation`. Out: text. Speed stands in the table for people alone, so that the
same models and data give the same JSON and CSV.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lola_data.languages import LANGUAGES
from lola_data.shown_text import plain
from lola_data.text_tables import plain_table, readable_bytes

if TYPE_CHECKING:
    from lola_data.lid.evaluate import Evaluation, Judged
    from lola_data.lid.scores import CodeScore

JSON_FORMAT = 1
CONFUSIONS = 12
"""Confusions of each model in the table."""
_TAKEN_FOR, _TAKEN_FOR_IN_CSV = 3, 10

COLUMNS = (
    "data", "model", "code", "texts", "answered", "correct", "precision", "recall", "f1", "false_positive_rate",
    "named", "taken_for",
)  # fmt: skip
"""Of :func:`csv_text`."""


def report(evaluation: Evaluation, *, top: int | None = None) -> str:
    """Everything, for a terminal or a file.

    Args:
        top: languages in the table, hardest for the first model first (None: all).
    """
    scores = evaluation.models[0].scores
    parts = [
        f"{scores.texts:,} texts in {len(scores.codes) + len(scores.too_few)} languages"
        + (
            f"; averages over the {len(scores.codes)} with {evaluation.min_documents:,} or more"
            if scores.too_few
            else ""
        )
        + (f"; {evaluation.data.left_out:,} rows without text or label left out" if evaluation.data.left_out else ""),
        *_unknown(evaluation),
        "",
        _summary(evaluation),
        "",
        *_differences(evaluation),
        _languages(evaluation, top),
        "",
        *_groups(evaluation),
        *(line for judged in evaluation.models for line in _confusions(judged)),
    ]
    return "\n".join(parts)


def _unknown(evaluation: Evaluation) -> list[str]:
    named = ", ".join(f"{plain(code)} ({texts:,})" for code, texts in sorted(evaluation.unknown.items()))
    return [f"neither CulturaX nor a model has these labels, so their texts count as missed: {named}"] if named else []


def _rows(headers: list[str], text: set[int], rows: list[list[str]]) -> str:
    """A table without a last row that sums up; the columns ``text`` are aligned to the left."""
    right = [at not in text for at in range(len(headers))]
    lines = plain_table(headers, right, [*rows, [""] * len(headers)]).split("\n")
    return "\n".join(lines[:-2])


def _summary(evaluation: Evaluation) -> str:
    shared = evaluation.named_by_all
    several = len(evaluation.models) > 1
    headers = ["model", "size", "can name", "macro F1", "of those named"]
    headers += [f"of {len(shared)} all name"] if several else []
    headers += ["accuracy", "in group", "false pos.", "calib. error", "texts/s", "MB/s"]
    rows: list[list[str]] = []
    for judged in evaluation.models:
        scores = judged.scores
        row = [judged.model, readable_bytes(judged.bytes), f"{scores.codes_named} of {len(scores.codes)}"]
        row += [f"{scores.macro_f1:.3f}", f"{scores.macro_f1_named:.3f}"]
        row += [f"{scores.macro_f1_of(shared):.3f}"] if several else []
        row += [f"{scores.accuracy:.3f}", f"{scores.group_accuracy:.3f}", f"{scores.false_positive_rate:.2%}"]
        row += [f"{scores.calibration_error:.3f}", f"{scores.texts / judged.seconds:,.0f}"]
        row += [f"{evaluation.text_bytes / judged.seconds / 1e6:,.1f}"]
        rows.append(row)
    return _rows(headers, {0}, rows)


def _differences(evaluation: Evaluation) -> list[str]:
    first, *others = evaluation.models
    lines = [
        f"macro F1 of {judged.model} less {first.model}: {found.difference:+.3f} "
        f"(95 % interval {found.low:+.3f} to {found.high:+.3f}, {evaluation.replicates:,} paired bootstrap draws)"
        for judged, found in zip(others, evaluation.differences, strict=True)
    ]
    return [*lines, ""] if lines else []


def _languages(evaluation: Evaluation, top: int | None) -> str:
    single = len(evaluation.models) == 1
    headers = ["code", "language", "texts"]
    headers += ["precision", "recall", "F1", "taken for"] if single else [judged.model for judged in evaluation.models]
    rows: list[list[str]] = []
    for code in hardest_first(evaluation.models[0]):
        known = LANGUAGES.get(code.code)
        row = [code.code, known.name if known else "", f"{code.texts:,}"]
        if single:
            row += [f"{code.precision:.3f}", f"{code.recall:.3f}", _f1(code), taken_for(code)]
        else:
            row += [_f1(judged.scores.by_code[code.code]) for judged in evaluation.models]
        rows.append(row)
    lines = _rows(headers, {0, 1, 6} if single else {0, 1}, rows[:top]).splitlines()
    if top is not None and len(rows) > top:
        lines.append(f"... {len(rows) - top} more")
    return "\n".join(lines)


def _f1(code: CodeScore) -> str:
    return f"{code.f1:.3f}" if code.named else "no label"


def _groups(evaluation: Evaluation) -> list[str]:
    groups = evaluation.models[0].scores.groups
    if not groups:
        return []
    headers = ["confusable", "texts"]
    for judged in evaluation.models:
        headers += [f"{judged.model}: in group", "exact"]
    rows: list[list[str]] = []
    for number, group in enumerate(groups):
        row = [" ".join(group.codes), f"{group.texts:,}"]
        for judged in evaluation.models:
            found = judged.scores.groups[number]
            row += [f"{found.within:.3f}", f"{found.exact:.3f}"]
        rows.append(row)
    return [_rows(headers, {0}, rows), ""]


def _confusions(judged: Judged) -> list[str]:
    found = judged.scores.confusions[:CONFUSIONS]
    told = ", ".join(f"{code} as {answer} {count:,}" for code, answer, count in found)
    return [f"most frequent mistakes of {judged.model}: {told or 'none'}"]


def hardest_first(judged: Judged) -> list[CodeScore]:
    """Languages by F1, lowest first."""
    return sorted(judged.scores.codes, key=lambda code: (code.f1, code.code))


def taken_for(code: CodeScore, most: int = _TAKEN_FOR) -> str:
    """The most frequent wrong answers, such as ``ru 41, krc 1``."""
    return ", ".join(f"{answer} {count}" for answer, count in code.taken_for[:most])


def csv_text(evaluation: Evaluation, *, separator: str = ",") -> str:
    """One row a model and language; :data:`COLUMNS` are the columns."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(COLUMNS)
    data = " ".join(source.path.rstrip("/").rpartition("/")[2] for source in evaluation.data.sources)
    for judged in evaluation.models:
        for code in judged.scores.codes:
            rates = (code.precision, code.recall, code.f1, code.false_positive_rate)
            writer.writerow(
                [data, judged.model, code.code, code.texts, code.answered, code.correct]
                + [f"{rate:.4f}" for rate in rates[:3]]
                + [f"{rates[3]:.6f}", "yes" if code.named else "no", taken_for(code, most=_TAKEN_FOR_IN_CSV)]
            )
    return out.getvalue()


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """All figures.

    ``data`` names the sources with their digests; ``models`` holds, per model, the averages, ``codes``, ``groups``,
    ``confusions`` (true, answer, texts) and ``calibration``; ``named_by_all`` the macro F1 of each over the languages
    that every one of them has a label for; ``differences`` are from the first model.
    """
    first, *others = evaluation.models
    return {
        "format": JSON_FORMAT,
        "data": evaluation.data.described()
        | {"min_documents": evaluation.min_documents, "languages_with_fewer": list(first.scores.too_few)},
        "models": [_model(judged) for judged in evaluation.models],
        "named_by_all": {
            "languages": sorted(evaluation.named_by_all),
            "macro_f1": [judged.scores.macro_f1_of(evaluation.named_by_all) for judged in evaluation.models],
        },
        "differences": [
            {"of": judged.model, "from": first.model, "macro_f1": asdict(found), "level": 0.95,
             "replicates": evaluation.replicates, "seed": evaluation.seed}
            for judged, found in zip(others, evaluation.differences, strict=True)
        ],
    }  # fmt: skip


def _model(judged: Judged) -> dict[str, Any]:
    scores = judged.scores
    return {
        "model": judged.model,
        "bytes": judged.bytes,
        "languages": len(scores.codes),
        "languages_named": scores.codes_named,
        "macro_f1": scores.macro_f1,
        "macro_f1_of_named": scores.macro_f1_named,
        "accuracy": scores.accuracy,
        "accuracy_of_named": scores.accuracy_named,
        "group_accuracy": scores.group_accuracy,
        "false_positive_rate_balanced": scores.false_positive_rate,
        "expected_calibration_error": scores.calibration_error,
        "codes": [asdict(code) for code in scores.codes],
        "groups": [asdict(group) for group in scores.groups],
        "confusions": [list(found) for found in scores.confusions],
        "calibration": [asdict(bin) for bin in scores.bins],
    }


def json_text(evaluation: Evaluation) -> str:
    """:func:`to_json` as one document."""
    return json.dumps(to_json(evaluation), ensure_ascii=False, indent=1)
