"""A document's way: compared, for every document of a run, with what is known of it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sentencepiece

from lola_data.errors import RecipeError, ShardError
from lola_data.inspect.documents import sample_documents
from lola_data.inspect.places import find_places
from lola_data.inspect.trace import ABSENT, KEPT, NOT_RUN, REMOVED_HERE, trace
from lola_data.layout import Layout
from lola_data.tokens import TokenShard
from tests.lola_data.inspect.test_rows import damage_all_but
from tests.lola_data.inspect.trees import Truth, write_small_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Truth]]:
    root = tmp_path_factory.mktemp("run") / "work"
    return root, write_small_run(root)


def test_every_document_s_way(run: tuple[Path, list[Truth]]) -> None:
    root, truth = run
    model = sentencepiece.SentencePieceProcessor(model_file=str(root / "tokenizer/tokenizer.model"))
    for one in truth:
        found = trace(Layout(str(root)), one.id)
        steps = {step.stage: step for step in found.steps}
        name, row = one.id.rsplit("/", 1)
        assert (steps["download"].file, steps["download"].row) == (f"raw/{name}.parquet", int(row))
        assert steps["download"].facts["origin"] == f"hub/{name}.parquet"
        assert (steps["download"].facts["commit"], steps["download"].facts["source"]) == ("abc", one.source)
        assert found.text == one.text.encode()
        if one.removed_at:
            last = found.steps[-1]
            assert (last.stage, last.verdict) == (one.removed_at, REMOVED_HERE)
            assert last.facts["reason"] == one.end
            assert (found.survivor_id, found.similarity) == (one.kept_id, one.similarity)
            kept = next((other for other in truth if other.id == one.kept_id), None)
            assert (found.survivor and found.survivor.text) == (kept and kept.text.encode())
            continue
        assert steps["identify"].facts["lang"] == one.lang == found.lang
        assert steps["identify"].facts["claimed_lang"] == one.claimed
        assert steps["dedup"].facts["cluster_size"] == one.cluster_size
        for_it = {(o.id, o.end, o.similarity) for o in truth if o.kept_id == one.id}
        assert set(found.favoured) == for_it
        if one.end:
            assert (found.steps[-1].stage, found.steps[-1].verdict) == ("sample", ABSENT)
            assert found.tokens is None
            continue
        assert steps["sample"].verdict == KEPT
        assert found.tokens is not None
        shard = TokenShard(root / one.place[0])
        assert (found.tokens.split, found.tokens.number) == (one.split, one.place[1])
        assert found.tokens.shard == str(root / one.place[0])
        assert found.tokens.first == int(np.sum(shard.lengths[: one.place[1]]))
        assert list(found.tokens.ids) == [*model.encode(one.text), 2]
        assert found.pieces == tuple(model.id_to_piece(token).replace("▁", " ") for token in found.tokens.ids)


def test_tokens_are_drawn_and_spelled(run: tuple[Path, list[Truth]]) -> None:
    root, truth = run
    found, total = sample_documents(find_places(str(root / "tokens")), 100, 2)
    sampled = {one.id: one for one in truth if not one.end}
    assert total == len(sampled)
    assert {one.row.id: one.text for one in found} == {name: one.text.encode() for name, one in sampled.items()}


def test_only_row_groups_that_may_hold_the_document_are_read(tmp_path: Path) -> None:
    write_small_run(tmp_path, model=False)
    wanted = "de/de_part_00000/6"
    for tree, group in (("raw", 2), ("identified", 1)):
        damage_all_but(tmp_path / tree / "de/de_part_00000.parquet", group)
    found = trace(Layout(str(tmp_path)), wanted)
    assert [step.group for step in found.steps[:2]] == [2, 1]
    # Shards of other names are not even opened.
    for path in tmp_path.rglob("*.parquet"):
        if not path.name.startswith("de_") and "removed" not in path.parts:
            path.write_bytes(b"")
    assert trace(Layout(str(tmp_path)), wanted).text == found.text


def test_stages_that_were_not_run_to_their_end(tmp_path: Path) -> None:
    write_small_run(tmp_path, model=False)
    for stage in ("dedup", "sample", "tokenize"):
        (tmp_path / f"state/{stage}/complete.json").unlink()
    for tree in ("deduped", "removed/dedup", "sampled", "tokens"):
        shutil.rmtree(tmp_path / tree)
    steps = trace(Layout(str(tmp_path)), "yo/yo_part_00000/1").steps
    assert [(step.stage, step.verdict) for step in steps] == [
        ("download", KEPT), ("identify", KEPT), ("dedup", NOT_RUN), ("sample", NOT_RUN),
    ]  # fmt: skip


def test_raw_shards_that_are_not_at_hand(tmp_path: Path) -> None:
    truth = {one.id: one for one in write_small_run(tmp_path / "w", model=False)}
    shutil.move(tmp_path / "w/raw", tmp_path / "raw")
    kept, gone = "yo/yo_part_00000/1", "yo/yo_part_00000/5"
    found = trace(Layout(str(tmp_path / "w")), kept)
    assert (found.steps[0].verdict, found.text) == (ABSENT, truth[kept].text.encode())
    assert trace(Layout(str(tmp_path / "w")), gone).text is None
    there = trace(Layout(str(tmp_path / "w"), {"download": str(tmp_path / "raw")}), gone)
    assert there.text == truth[gone].text.encode()


def test_a_plan_that_is_gone_and_a_tokenizer_that_is_gone(tmp_path: Path) -> None:
    truth = {one.id: one for one in write_small_run(tmp_path, model=False)}
    shutil.rmtree(tmp_path / "state/tokenize/main")
    found = trace(Layout(str(tmp_path)), "ar/ar_part_00000/3")
    assert found.tokens is not None
    assert (found.tokens.split, found.tokens.number) == (truth[found.id].split, truth[found.id].place[1])
    assert found.pieces is None


@pytest.mark.parametrize(
    ("name", "told"),
    [("de/de_part_00000/13", "has 13 rows"), ("de/de_part_00007/1", "nearest of its 2 is `de_part_0000"),
     ("dd/de_part_00000/1", "the nearest is `de`")],
)  # fmt: skip
def test_documents_that_are_not_there(run: tuple[Path, list[Truth]], name: str, told: str) -> None:
    with pytest.raises(ShardError, match=told):
        trace(Layout(str(run[0])), name)


def test_what_is_not_an_id(run: tuple[Path, list[Truth]]) -> None:
    with pytest.raises(RecipeError, match="not an id"):
        trace(Layout(str(run[0])), "de/de_part_00000")
