"""What was seen as JSON: one document for scripts, its values as the shards have them.

A text that is not valid UTF-8 has its bytes as ``\\xff`` and ``valid_utf8`` false, since JSON is made of characters.
Characters that could act on a terminal are written as ``\\u`` escapes, which mean the same to every reader of JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lola_data.inspect.words import compare
from lola_data.shown_text import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.inspect.documents import Seen
    from lola_data.inspect.rows import Row
    from lola_data.inspect.trace import Journey

FORMAT = 1
"""Version of the JSON document."""


def text_json(data: bytes | None, most: int | None = None) -> dict[str, Any]:
    """``text``, ``valid_utf8``, ``characters`` and ``bytes`` of a text; all null where there is none."""
    if data is None:
        return {"text": None, "valid_utf8": None, "characters": None, "bytes": None}
    try:
        text, valid = data.decode(), True
    except UnicodeDecodeError:
        text, valid = data.decode("utf-8", "backslashreplace"), False
    return {"text": cut(text, most)[0], "valid_utf8": valid, "characters": len(text), "bytes": len(data)}


def documents_json(found: Sequence[Seen], total: int, seed: int, most: int | None) -> dict[str, Any]:
    """Drawn documents. Keys: ``format``, ``total`` (documents drawn from), ``seed``, ``documents``."""
    return {
        "format": FORMAT,
        "total": total,
        "seed": seed,
        "documents": [document_json(seen, most) for seen in found],
    }


def document_json(seen: Seen, most: int | None) -> dict[str, Any]:
    """One document: ``tree``, ``file``, ``row``, ``folder`` (language), the columns of its row, its text, and for a
    removed one ``survivor`` (``id``, ``url``, text) and ``alike`` (share of the words that both have)."""
    value: dict[str, Any] = {
        "tree": seen.place.name,
        "file": seen.file,
        "row": seen.row.number,
        "folder": seen.row.lang,
        "id": seen.row.id,
        **seen.row.values,
        **{name: one for name, one in text_json(seen.text, most).items() if one is not None or name == "text"},
    }
    if seen.tokens is not None:
        value |= {"split": seen.tokens.split, "first_token": seen.tokens.first, "token_ids": list(seen.tokens.ids)}
        value["pieces"] = None if seen.pieces is None else list(seen.pieces)
    if seen.survivor is not None:
        value["survivor"] = _survivor(seen.survivor, seen.row.values.get("kept_id"), most)
        value["alike"] = _alike(seen.text, seen.survivor)
    return value


def journey_json(journey: Journey, most: int | None) -> dict[str, Any]:
    """One document's way. Keys: ``format``, ``id``, ``folder``, ``steps`` (``stage``, ``verdict``, ``file``, ``row``,
    ``group``, ``facts``), the text, ``survivor_id``, ``survivor``, ``similarity``, ``alike``, ``favoured``,
    ``token_ids``, ``pieces``."""
    return {
        "format": FORMAT,
        "id": journey.id,
        "folder": journey.lang,
        "steps": [
            {
                "stage": step.stage,
                "verdict": step.verdict,
                "file": step.file,
                "row": step.row,
                "group": step.group,
                "facts": step.facts,
            }
            for step in journey.steps
        ],
        **text_json(journey.text, most),
        "survivor_id": journey.survivor_id,
        "survivor": None if journey.survivor is None else _survivor(journey.survivor, journey.survivor_id, most),
        "similarity": journey.similarity,
        "alike": None if journey.survivor is None else _alike(journey.text, journey.survivor),
        "favoured": [
            {"id": name, "reason": reason, "similarity": similarity} for name, reason, similarity in journey.favoured
        ],
        "token_ids": None if journey.tokens is None else list(journey.tokens.ids),
        "pieces": None if journey.pieces is None else list(journey.pieces),
    }


def _survivor(row: Row, name: str | None, most: int | None) -> dict[str, Any]:
    return {"id": name, "file": row.path, "row": row.number, "url": row.values.get("url"), **text_json(row.text, most)}


def _alike(text: bytes | None, survivor: Row) -> float | None:
    if text is None or survivor.text is None:
        return None
    return compare(text.decode("utf-8", "replace"), survivor.text.decode("utf-8", "replace")).alike
