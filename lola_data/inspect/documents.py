"""The drawn documents with all that is to be seen of them: places of rows in, :class:`Seen` out, in the order drawn.

Of each file the row groups that hold a drawn row are read once. A removed row gets its text back, and that of the
document it was removed for; a document of a token shard its pieces and the text they spell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lola_data import storage
from lola_data.balance.trees import IDS_SUFFIX
from lola_data.errors import ShardError
from lola_data.inspect.draw import draw, located
from lola_data.inspect.places import shown_path
from lola_data.inspect.removed import Spot, draw_removed, draw_rows
from lola_data.inspect.rows import Row, columns_of, read_rows
from lola_data.inspect.texts import texts_of
from lola_data.inspect.tokens import documents_of, tokenised, vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lola_data.inspect.places import Place
    from lola_data.inspect.tokens import TokenisedDocument, Vocabulary
    from lola_data.layout import Layout


@dataclass(frozen=True)
class Seen:
    """A drawn document.

    Attributes:
        place: the tree it was drawn from.
        row: its row there.
        original: row of an earlier tree that has the text of a removed document; None if none at hand has it.
        survivor: the same of the document it was removed for.
        tokens: of a document of a token shard.
        pieces: of the vocabulary, for its tokens, if the tokenizer is at hand.
    """

    place: Place
    row: Row
    original: Row | None = None
    survivor: Row | None = None
    tokens: TokenisedDocument | None = None
    pieces: tuple[str, ...] | None = None

    @property
    def text(self) -> bytes | None:
        """Its text, as far as it is at hand."""
        return self.row.text if self.original is None else self.original.text

    @property
    def file(self) -> str:
        """The file of its row, as a reader knows it."""
        return shown_path(self.place, self.row.path)


def sample_documents(
    places: Sequence[Place], count: int, seed: int, *, reasons: Sequence[str] = (), raw: str | None = None
) -> tuple[list[Seen], int]:
    """Random documents of the places (all of one kind), each as likely as any other, and of how many they were drawn.

    Args:
        places: as from :func:`lola_data.inspect.places.find_places`.
        count: documents to draw.
        seed: decides which.
        reasons: of removed rows, only those removed for one of these.
        raw: tree of the raw shards, where they do not lie in the work folder.

    Raises:
        ShardError: a shard that is drawn from cannot be read.
        RecipeError: a reason for which nothing was removed.
    """
    if places[0].kind == "tokens":
        return _token_documents(places[0], count, seed)
    if places[0].kind == "text":
        spots, total = draw_rows(places, count, seed)
        return [Seen(spot.place, row) for spot, row in _read(spots)], total
    spots, total = draw_removed(places, reasons, count, seed)
    return with_texts([Seen(spot.place, row) for spot, row in _read(spots)], raw), total


def _read(spots: Sequence[Spot]) -> list[tuple[Spot, Row]]:
    by_file: dict[str, list[Spot]] = {}
    for spot in spots:
        by_file.setdefault(spot.shard.path, []).append(spot)
    for path, own in by_file.items():
        if own[0].place.kind == "text" and "text" not in (names := columns_of(path)):
            raise ShardError(
                f"{path}: no column `text`, so there is nothing to read; its columns are {', '.join(names) or 'none'}. "
                f"Rename one, or name files that have it"
            )
    rows = {path: read_rows(path, own[0].shard.lang, [spot.number for spot in own]) for path, own in by_file.items()}
    return [(spot, rows[spot.shard.path][spot.number]) for spot in spots]


def with_texts(removed: Sequence[Seen], raw: str | None = None) -> list[Seen]:
    """Removed rows with their texts and those of the documents they were removed for, where these are at hand."""
    found: list[Seen] = []
    texts: dict[str, dict[str, Row]] = {}
    for workdir in {seen.place.workdir for seen in removed if seen.place.workdir}:
        own = [seen.row.values for seen in removed if seen.place.workdir == workdir]
        ids: dict[str, int | None] = {one["kept_id"]: None for one in own if one.get("kept_id")}
        ids |= {one["id"]: one.get("bytes") for one in own if one.get("id")}
        texts[workdir] = texts_of(run_layout(workdir, raw), ids)
    for seen in removed:
        known = texts.get(seen.place.workdir or "", {})
        found.append(
            replace(
                seen,
                original=known.get(seen.row.values.get("id", "")),
                survivor=known.get(seen.row.values.get("kept_id") or ""),
            )
        )
    return found


def run_layout(workdir: str, raw: str | None) -> Layout:
    """Paths of a run, of which the raw shards may lie elsewhere."""
    from lola_data.layout import Layout

    return Layout(workdir, {"download": raw} if raw else {})


def _token_documents(place: Place, count: int, seed: int) -> tuple[list[Seen], int]:
    prefixes = [shard.path.removesuffix(".idx") for shard in place.shards]
    sizes = [documents_of(prefix) for prefix in prefixes]
    model = _vocabulary_of(place)
    found: list[Seen] = []
    for part, number in located(draw(sum(sizes), count, seed), sizes):
        shard, prefix = place.shards[part], prefixes[part]
        document = tokenised(prefix, shard.split, number)
        ids = f"{prefix}{IDS_SUFFIX}"
        named = read_rows(ids, shard.lang, [number]).get(number) if storage.exists(ids) else None
        text = None if model is None else model.text(document.ids).encode()
        pieces = None if model is None else tuple(model.pieces(document.ids))
        row = Row(f"{prefix}.bin", shard.lang, number, 0, text, {} if named is None else named.values)
        found.append(Seen(place, row, tokens=document, pieces=pieces))
    return found, sum(sizes)


def _vocabulary_of(place: Place) -> Vocabulary | None:
    if place.layout is None:
        return None
    return vocabulary(storage.join(place.layout.tree("tokenizer"), "tokenizer.model"))
