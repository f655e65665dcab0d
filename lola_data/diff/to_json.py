"""A comparison as one JSON document for scripts; every number in it is a plain count or a share in [0, 1]."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lola_data.inspect.to_json import document_json, text_json

if TYPE_CHECKING:
    from lola_data.diff.audit import Audit
    from lola_data.diff.runs import RunDiff
    from lola_data.diff.trees import Sample, TreeDiff
    from lola_data.inspect.rows import Row

FORMAT = 1
"""Version of the JSON document."""


def tree_json(diff: TreeDiff, first: str, second: str) -> dict[str, Any]:
    """Two trees. Keys: ``format``, ``first`` and ``second`` (paths), and those of :func:`_changes_json`."""
    return {"format": FORMAT, "first": first, "second": second, **_changes_json(diff)}


def run_json(diff: RunDiff, first: str, second: str) -> dict[str, Any]:
    """Two runs. Keys: ``format``, ``first`` and ``second`` (paths), ``settings`` (stage, key, first, second; values as
    JSON text), ``raw`` (shards), ``subject`` (stage), ``stages`` (stage -> see :func:`_changes_json`), ``removed`` (the
    audits of both, see :func:`audit_json`)."""
    return {
        "format": FORMAT,
        "first": first,
        "second": second,
        "settings": [asdict(one) for one in diff.settings],
        "raw": None if diff.raw is None else asdict(diff.raw),
        "subject": diff.subject,
        "stages": {stage: _changes_json(one) for stage, one in diff.stages.items()},
        "removed": {name: _audit(one) for name, one in zip(("first", "second"), diff.audits, strict=True)},
    }


def _changes_json(diff: TreeDiff) -> dict[str, Any]:
    """``match``, ``with_text``, ``totals``, ``rows`` (lang, source and counts), ``moves`` (from, to, documents) and
    ``samples``."""
    return {
        "match": diff.match,
        "with_text": diff.with_text,
        "totals": asdict(diff.totals),
        "rows": [{"lang": lang, "source": source, **asdict(one)} for (lang, source), one in diff.changes.items()],
        "moves": [
            {"from": left, "to": entered, "documents": count} for (left, entered), count in sorted(diff.moves.items())
        ],
        "samples": [_sample(sample) for sample in diff.samples],
    }


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "kind": sample.kind,
        "why": sample.why or None,
        "first": None if sample.first is None else _row(sample.first),
        "second": None if sample.second is None else _row(sample.second),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "file": row.path,
        "row": row.number,
        "folder": row.lang,
        "source": row.values.get("source"),
        "url": row.values.get("url"),
        **text_json(row.text),
    }


def audit_json(audit: Audit, path: str) -> dict[str, Any]:
    """What a run removed. Keys: ``format``, ``workdir``, ``stages``, ``rows`` (stage, lang, source, reason, documents,
    bytes, given, share of the documents given), ``languages`` (stage, lang, given, given_bytes, and by reason documents
    and bytes), ``relabelled`` (from, to, documents) and ``samples`` (see
    :func:`lola_data.inspect.to_json.document_json`)."""
    return {"format": FORMAT, "workdir": path, **_audit(audit)}


def _audit(audit: Audit) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for (stage, lang, source), reasons in sorted(audit.removed.items()):
        given = audit.given[stage, lang, source]
        for reason, removal in sorted(reasons.items()):
            share = removal.documents / given if given else 0.0
            rows.append({"stage": stage, "lang": lang, "source": source, "reason": reason, **asdict(removal),
                         "given": given, "share": share})  # fmt: skip
    languages = [
        {
            "stage": stage,
            "lang": row.group,
            "given": row.given,
            "given_bytes": audit.given_bytes.get((stage, row.group)),
            "removed": {reason: asdict(removal) for reason, removal in sorted(row.removed.items())},
        }
        for stage in audit.stages
        for row in audit.rows("language", stage)
    ]
    return {
        "stages": audit.stages,
        "rows": rows,
        "languages": languages,
        "relabelled": [
            {"from": left, "to": entered, "documents": count}
            for (left, entered), count in sorted(audit.relabelled.items())
        ],
        "samples": [document_json(seen, None) for seen in audit.samples],
    }
