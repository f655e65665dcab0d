"""The sections of a data card that are made of numbers: how a corpus was made, what it is made of, what was removed.

In: the facts of its manifests. Out: lines of Markdown; none where nothing is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lola_data.lid.weak import WEAK_BELOW, weak_codes
from lola_data.report.text import visible
from pipelines.card_text import code, count, public, setting, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.card_facts import Corpus

LARGEST_LOSSES = 5
"""Languages named as those that lost most."""
_WARNINGS_SHOWN = 20
_DID = {
    "download": "brought the raw shards in and decoded every row group",
    "identify": "identified the language of every document",
    "dedup": "removed exact copies, second texts of one URL, and near-duplicates",
    "sample": "chose how much of each language goes on",
    "tokenizer": "trained, or took over, a SentencePiece tokenizer",
    "tokenize": "turned the text into token shards",
}


def how_lines(corpus: Corpus) -> Iterator[str]:
    yield from table(
        ["stage", "what it did", "documents in", "documents out"],
        [
            [code(stage, in_table=True), _DID[stage], *_flow(manifest)]
            for stage, manifest in corpus.manifests.items()
            if stage in _DID
        ],
        text_columns=2,
    )
    yield "Settings that decided the result, as recorded:"
    yield ""
    for stage, manifest in corpus.manifests.items():
        if stage not in _DID:
            continue
        output_format = manifest["fingerprint"].get("format")
        yield f"- **{stage}**" + (f" (output format {output_format})" if output_format is not None else "")
        yield from (f"  - {setting(name, value)}" for name, value in sorted(corpus.settings(stage).items()))
    yield ""
    recall = corpus.manifests.get("dedup", {}).get("recall")
    if recall:
        planted, found = (sum(one[key] for one in recall.values()) for key in ("planted", "found"))
        if planted:
            yield (
                f"Edited copies were planted to measure the search for near-duplicates: {found:,} of {planted:,} were "
                f"found ({found / planted:.1%})."
            )
            yield ""
    tokens = corpus.manifests.get("tokenize")
    if tokens:
        made = tokens["tokenizer"]
        made_with = "".join(f", {name} {code(value)}" for name, value in _versions(corpus).items())
        yield (
            f"Tokens are those of a SentencePiece model of {made['vocab_size']:,} pieces{made_with}; its SHA-256 is "
            f"{code(made['sha256'])}."
        )
        yield ""


def _flow(manifest: dict[str, Any]) -> list[str]:
    totals = manifest.get("totals")
    return ["", ""] if totals is None else [count(totals[side]["documents"]) for side in ("in", "out")]


def _versions(corpus: Corpus) -> dict[str, str]:
    return dict(sorted((corpus.tokenizer or {}).get("versions", {}).items()))


def composition_lines(corpus: Corpus) -> list[str]:
    if not corpus.sizes:
        return []
    unit = "tokens" if corpus.tokens is not None else "bytes" if corpus.bytes is not None else "documents"
    whole = sum(getattr(one, unit) for one in corpus.sizes)
    plan = corpus.manifests.get("sample", {}).get("plan", {}).get("languages", {})
    scripts = _measured_scripts(corpus)
    heads = ["folder", "language", "script", "family", "documents"]
    heads += ["bytes"] if corpus.bytes is not None else ["bytes on disk"]
    heads += ["tokens"] if corpus.tokens is not None else []
    heads += [f"share of {unit}", *(["planned share"] if plan else [])]
    rows: list[list[str]] = []
    for one in corpus.sizes:
        known = one.known
        row = [
            code(one.code, in_table=True),
            known.name if known else "",
            scripts.get(one.code) or (known.script if known and not scripts else ""),
            known.family if known else "",
            count(one.documents),
            count(one.bytes if corpus.bytes is not None else one.file_bytes),
        ]
        row += [count(one.tokens)] if corpus.tokens is not None else []
        row.append(f"{getattr(one, unit) / whole:.2%}" if whole else "")
        row += [f"{plan[one.code]['share']:.2%}" if one.code in plan else ""] if plan else []
        rows.append(row)
    notes = [
        "`bytes` are those of the texts in UTF-8." if corpus.bytes is not None else "",
        "Scripts (ISO 15924) are those measured, the most frequent first."
        if scripts
        else "Scripts (ISO 15924) are those the languages are mostly written in on the web; they were not measured.",
        "Families are Glottolog's.",
        "Each document lies in the files once; `planned share` is what the sampling plan gives the language in "
        "training, with repetitions."
        if plan
        else "",
    ]
    return [*table(heads, rows, text_columns=4), " ".join(filter(None, notes)), ""]


def _measured_scripts(corpus: Corpus) -> dict[str, str]:
    """Language -> its scripts, most documents first, where the balance report has counted them."""
    found: dict[str, list[tuple[int, str]]] = {}
    for row in (corpus.report or {}).get("scripts", []):
        found.setdefault(str(row["lang"]), []).append((-int(row["documents"]), str(row["script"])))
    return {lang: " ".join(visible(script) for _, script in sorted(rows)[:3]) for lang, rows in found.items()}


def removed_lines(corpus: Corpus) -> list[str]:
    rows: list[list[str]] = []
    for stage, manifest in corpus.manifests.items():
        for reason, gone in manifest.get("totals", {}).get("removed", {}).items():
            taken = manifest["totals"]["in"]["documents"]
            share = f"{gone['documents'] / taken:.2%}" if taken else ""
            rows.append([stage, code(reason, in_table=True), count(gone["documents"]), count(gone["bytes"]), share])
    stages = [stage for stage in ("identify", "dedup", "sample") if stage in corpus.manifests]
    if not stages:
        return []
    if not rows:
        return [f"Nothing: {' and '.join(stages)} kept every document.", ""]
    lines = table(["stage", "reason", "documents", "bytes", "share of what the stage read"], rows, text_columns=2)
    losses = language_losses(corpus)[:LARGEST_LOSSES]
    if losses:
        lines += [
            "The languages that lost most, by share of their documents (without what sampling left out):",
            "",
            *table(
                ["folder", "reasons", "removed", "of", "share"],
                [
                    [
                        code(lang, in_table=True),
                        ", ".join(f"{code(reason, in_table=True)} {number:,}" for reason, number in reasons),
                        count(gone),
                        count(given),
                        f"{gone / given:.2%}",
                    ]
                    for lang, gone, given, reasons in losses
                ],
                text_columns=2,
            ),
        ]
    return lines


def language_losses(corpus: Corpus) -> list[tuple[str, int, int, list[tuple[str, int]]]]:
    """Of each language that lost documents to identify or dedup, the largest share first.

    Returns:
        (folder, documents removed, documents that lay in the folder, removals by reason, most first). What identify
        moved into a folder from others counts as lying in it.
    """
    found: list[tuple[str, int, int, list[tuple[str, int]]]] = []
    manifests = [corpus.manifests[stage] for stage in ("identify", "dedup") if stage in corpus.manifests]
    for lang, first in (manifests[0]["languages"] if manifests else {}).items():
        given = first["in"]["documents"] + first.get("relabelled_in", {}).get("documents", 0)
        reasons: dict[str, int] = {}
        for manifest in manifests:
            for reason, gone in manifest["languages"].get(lang, {}).get("removed", {}).items():
                reasons[reason] = reasons.get(reason, 0) + gone["documents"]
        gone = sum(reasons.values())
        if gone and given:
            found.append((lang, gone, given, sorted(reasons.items(), key=lambda item: (-item[1], item[0]))))
    return sorted(found, key=lambda loss: (-loss[1] / loss[2], -loss[1], loss[0]))


def limit_lines(corpus: Corpus) -> Iterator[str]:
    yield "- No stage of lola-data judges quality or looks for personal data or harmful content; text is as published."
    if "identify" not in corpus.manifests:
        yield "- Languages are those that the source claims; no record says that they were checked."
    else:
        yield from _identification_limits(corpus)
    if "dedup" not in corpus.manifests:
        yield "- No record says that duplicates were removed."
    else:
        yield "- Duplicates were looked for within each language, not across languages, and not against any benchmark."
    warnings = (corpus.report or {}).get("warnings", [])
    if warnings:
        yield f"- The balance report warns of {len(warnings)} things:"
        for one in warnings[:_WARNINGS_SHOWN]:
            detail = f": {code(one['detail'])}" if one.get("detail") else ""
            yield f"  - {code(one['lang'])}, {str(one['kind']).replace('_', ' ')}{detail}"
        if len(warnings) > _WARNINGS_SHOWN:
            yield f"  - and {len(warnings) - _WARNINGS_SHOWN} more"


def _identification_limits(corpus: Corpus) -> Iterator[str]:
    settings = corpus.settings("identify")
    model = str(settings.get("model", ""))
    languages = corpus.manifests["identify"]["languages"]
    shown = code(public(model, "model"))
    weak = weak_codes(model, languages) if model else []
    if not weak:
        yield f"- Languages were identified by {shown}, which errs as all such models do, most on short text."
        return
    yield (
        f"- Languages were identified by {shown}. It is known to be weak (F1 below {WEAK_BELOW:g} on labelled text) on "
        "these, which may have lost true text or kept foreign text:"
    )
    for one in weak:
        taken = ", ".join(f"{answer} {number}" for answer, number in one.taken_for[:2])
        taken = f"; of {one.texts} texts taken for: {taken}" if taken else ""
        yield f"  - {code(one.code)}: F1 {one.f1:.2f}, recall {one.recall:.2f}{taken}"
