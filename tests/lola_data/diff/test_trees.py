"""Two trees compared, against counting their documents in Python."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lola_data.diff.trees import Changes, compare_trees
from lola_data.errors import ShardError
from lola_data.inspect.places import find_places
from lola_data.schemas import IDENTIFIED, RAW
from tests.lola_data.balance.trees import write_rows

if TYPE_CHECKING:
    from pathlib import Path

Tree = dict[str, list[dict[str, Any]]]


def write_tree(root: Path, tree: Tree, *, schema: Any = IDENTIFIED) -> None:
    """A tree, the rows of each language in files of five."""
    for lang, rows in tree.items():
        for number in range(0, len(rows), 5):
            write_rows(root / lang / f"{lang}_{number}.parquet", schema, rows[number : number + 5])


def brute(first: Tree, second: Tree) -> tuple[dict[str, Changes], Counter[tuple[str, str]]]:
    """Counts by language of trees whose ids are unique in each."""
    sides: list[dict[str, tuple[str, str]]] = [
        {row["id"]: (lang, row["text"]) for lang, rows in tree.items() for row in rows} for tree in (first, second)
    ]
    found: dict[str, Changes] = defaultdict(Changes)
    moves: Counter[tuple[str, str]] = Counter()
    for name, (lang, text) in sides[0].items():
        found[lang].first += 1
        if name not in sides[1]:
            found[lang].went += 1
        elif sides[1][name][0] != lang:
            found[lang].moved_out += 1
            moves[lang, sides[1][name][0]] += 1
        elif sides[1][name][1] == text:
            found[lang].same += 1
        else:
            found[lang].changed += 1
    for name, (lang, _) in sides[1].items():
        found[lang].second += 1
        found[lang].came += name not in sides[0]
        found[lang].moved_in += name in sides[0] and sides[0][name][0] != lang
    return dict(found), moves


places = st.sampled_from(["de", "yo", "ar", "", ""])  # no folder: not in the tree
corpora = st.lists(st.tuples(places, places, st.integers(0, 1), st.integers(0, 1)), min_size=3, max_size=40)


texts = st.lists(st.tuples(places, st.integers(0, 6)), max_size=30)


def trees(corpus: list[tuple[str, str, int, int]]) -> tuple[Tree, Tree]:
    """Two trees of the documents 0, 1, ...: folder in each, text in each."""
    found: tuple[Tree, Tree] = (defaultdict(list), defaultdict(list))
    for number, one in enumerate(corpus):
        for side in (0, 1):
            if one[side]:
                row = {"id": f"x/s/{number}", "text": f"t{one[2 + side]}", "source": f"s{number % 3}"}
                found[side][str(one[side])].append(row)
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(corpora)
def test_by_id_as_counted_by_hand(tmp_path_factory: pytest.TempPathFactory, corpus: Any) -> None:
    first, second = trees(corpus)
    if not first or not second:
        return
    root = tmp_path_factory.mktemp("t")
    write_tree(root / "a", first)
    write_tree(root / "b", second)
    (a,), (b,) = find_places(str(root / "a")), find_places(str(root / "b"))
    changes, moves = brute(first, second)
    for memory in (2**30, 2000):
        found = compare_trees(a, b, match_by="id", memory_bytes=memory)
        assert found.by("language") == dict(sorted(changes.items()))
        assert found.moves == moves
    by_source = found.by("source")
    for source, one in by_source.items():
        assert one.first == sum(row["source"] == source for rows in first.values() for row in rows)
        assert one.first == one.same + one.changed + one.moved_out + one.went
        assert one.second == one.same + one.changed + one.moved_in + one.came
    assert found.totals == sum_of(changes)


def sum_of(changes: dict[str, Changes]) -> Changes:
    total = Changes()
    for one in changes.values():
        total += one
    return total


@settings(max_examples=25, deadline=None)
@given(texts, texts)
def test_by_text_as_multisets(tmp_path_factory: pytest.TempPathFactory, ours: Any, theirs: Any) -> None:
    root = tmp_path_factory.mktemp("t")
    sides: list[Counter[tuple[str, str]]] = []
    for name, given_rows in (("a", ours), ("b", theirs)):
        tree: Tree = defaultdict(list)
        for lang, text in given_rows:
            if lang:
                tree[lang].append({"text": f"text {text}"})
        if not tree:
            return
        write_tree(root / name, tree, schema=RAW)
        sides.append(Counter((lang, row["text"]) for lang, rows in tree.items() for row in rows))
    (a,), (b,) = find_places(str(root / "a")), find_places(str(root / "b"))
    found = compare_trees(a, b, match_by="text").totals
    alone: list[Counter[str]] = [Counter() for _ in sides]
    for count, side in zip(alone, sides, strict=True):
        for (_, text), number in side.items():
            count[text] += number
    same = sum((sides[0] & sides[1]).values())
    shared = sum((alone[0] & alone[1]).values())
    assert (found.same, found.changed, found.moved_out) == (same, 0, shared - same)
    assert (found.went, found.came) == (sum(alone[0].values()) - shared, sum(alone[1].values()) - shared)


def test_samples_are_of_as_many_languages_as_there_are_and_have_their_texts(tmp_path: Path) -> None:
    def rows(lang: str, count: int, text: str = "t") -> list[dict[str, Any]]:
        return [{"id": f"{lang}/s/{n}", "text": f"{text} {lang} {n}"} for n in range(count)]

    first = {"de": rows("de", 40), "yo": rows("yo", 2), "ar": rows("ar", 4)}
    second = {"de": rows("de", 2), "yo": rows("ar", 1), "zh": rows("zh", 3), "ar": rows("ar", 4, "other")[1:]}
    write_tree(tmp_path / "a", first)
    write_tree(tmp_path / "b", second)
    (a,), (b,) = find_places(str(tmp_path / "a")), find_places(str(tmp_path / "b"))
    found = compare_trees(a, b, match_by="id", samples=3, seed=4)
    by_kind: dict[str, list[Any]] = defaultdict(list)
    for sample in found.samples:
        by_kind[sample.kind].append(sample)
    assert Counter(sample.row.lang for sample in by_kind["went"]) == {"de": 2, "yo": 1} or Counter(
        sample.row.lang for sample in by_kind["went"]
    ) == {"de": 1, "yo": 2}
    assert [sample.row.lang for sample in by_kind["came"]] == ["zh"] * 3
    assert [(s.first.text, s.second.text) for s in by_kind["moved"]] == [(b"t ar 0", b"t ar 0")]
    assert {(s.first.text, s.second.text) for s in by_kind["changed"]} == {
        (f"t ar {n}".encode(), f"other ar {n}".encode()) for n in (1, 2, 3)
    }
    assert compare_trees(a, b, match_by="id", samples=3, seed=4, memory_bytes=3000).samples == found.samples
    others = {compare_trees(a, b, match_by="id", samples=1, seed=n).samples[0].row.id for n in range(8)}
    assert len(others) > 2


def test_texts_that_are_not_compared(tmp_path: Path) -> None:
    write_tree(tmp_path / "a", {"de": [{"id": "x", "text": "a"}]})
    write_tree(tmp_path / "b", {"de": [{"id": "x", "text": "b"}]})
    (a,), (b,) = find_places(str(tmp_path / "a")), find_places(str(tmp_path / "b"))
    assert compare_trees(a, b, match_by="id").totals.changed == 1
    found = compare_trees(a, b, match_by="id", with_text=False)
    assert (found.totals.changed, found.totals.same, found.with_text) == (0, 1, False)


def test_documents_without_an_id_are_refused_by_name(tmp_path: Path) -> None:
    write_tree(tmp_path / "a", {"de": [{"id": None, "text": "a"}]})
    (a,) = find_places(str(tmp_path / "a"))
    with pytest.raises(ShardError, match=r"de_0.parquet: documents without `id`"):
        compare_trees(a, a, match_by="id")


def test_progress_ends_with_all_shards(tmp_path: Path) -> None:
    write_tree(tmp_path / "a", {"de": [{"id": str(n), "text": "a"} for n in range(12)]})
    (a,) = find_places(str(tmp_path / "a"))
    told: list[tuple[int, int]] = []
    compare_trees(a, a, match_by="id", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6)
    assert told == sorted(told)
