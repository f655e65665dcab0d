"""Training: every byte reaches the trainer, the model does not depend on how the text lies, refusals say what fits."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece

from lola_data.errors import RecipeError, ShardError, StageError
from lola_data.sample_corpus import sample_root
from tokenizer.card import read_card
from tokenizer.encode import Encoder
from tokenizer.formats import PieceType, read_model
from tokenizer.sample import DOCUMENT, Size, tree_source
from tokenizer.train import BASE_MB, adopt_tokenizer, memory_estimate_mb, train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


def documents(texts: dict[str, list[str]], *, batch: int = 100) -> dict[str, Callable[[], Iterable[pa.RecordBatch]]]:
    """A source of texts by language, ids ``<lang>/t/<row>``."""

    def reader(lang: str, rows: list[str]) -> Callable[[], Iterable[pa.RecordBatch]]:
        table = pa.table({"id": [f"{lang}/t/{row}" for row in range(len(rows))], "text": rows}, schema=DOCUMENT)
        return lambda: table.to_batches(max_chunksize=batch)

    return {lang: reader(lang, rows) for lang, rows in texts.items()}


ENGLISH = [
    f"the {a} {b} jumps over document number {i}" for i, (a, b) in enumerate([("quick", "fox"), ("lazy", "dog")] * 200)
]


def han_corpus() -> dict[str, list[str]]:
    """200 copies of one line of 2,000 random Han characters, and 2,000 short English lines."""
    rng = random.Random(0)
    line = "".join(chr(0x4E00 + rng.randrange(3_000)) for _ in range(2_000))
    assert len(line.encode()) == 6_000
    return {"zh": [line] * 200, "en": [f"a short line number {i} of plain words" for i in range(2_000)]}


def test_lines_of_6000_bytes_are_not_dropped(tmp_path: Path) -> None:
    corpus = han_corpus()
    card = train_tokenizer(
        documents(corpus),
        tmp_path,
        vocab_size=4_000,
        train_bytes=2_000_000,
        character_coverage=1.0,
        max_line_bytes=4096,
    )
    pieces = [piece.text for piece in read_model(tmp_path / "tokenizer.model").pieces]
    assert set(corpus["zh"][0]) <= set(pieces), "every Han character has a piece"
    assert any(len(piece) > 1 and all("\u4e00" <= char <= "\u9fff" for char in piece) for piece in pieces)
    assert {lang: part.bytes_dropped for lang, part in card.languages.items()} == {"en": 0, "zh": 0}
    assert card.languages["zh"].used_bytes == 1_200_000
    assert card.languages["zh"].lines == 400
    assert card.languages["zh"].cut_lines == 200
    ids, _ = Encoder(tmp_path / "tokenizer.model").encode(pa.array(corpus["zh"][:1]))
    assert len(ids) <= 2_000

    # What happens without the cut, so that the test above means something: the trainer drops the lines.
    writer: Any = tmp_path / "plain"
    trainer: Any = sentencepiece.SentencePieceTrainer
    lines = corpus["zh"] + corpus["en"]
    trainer.train(
        sentence_iterator=iter(lines), model_prefix=str(writer), vocab_size=100, hard_vocab_limit=False, minloglevel=2
    )
    plain = [piece.text for piece in read_model(f"{writer}.model").pieces]
    assert not any("\u4e00" <= char <= "\u9fff" for piece in plain for char in piece)


def test_reserved_and_control_characters_do_not_stop_training(tmp_path: Path) -> None:
    texts = {
        "en": [f"nul\0 tab\t block \u2585 mark \u2581 next\x0bline {text} </s> <s> <unk>\r\n{text}" for text in ENGLISH]
    }
    card = train_tokenizer(documents(texts), tmp_path, vocab_size=400, train_bytes=100_000)
    part = card.languages["en"]
    assert part.bytes_dropped == 0
    assert part.reserved_characters >= 2 * (part.used_documents - 1) > 100
    for piece in read_model(tmp_path / "tokenizer.model").pieces:
        if piece.type == PieceType.NORMAL:
            assert not set(piece.text) & {"\0", "\t", "\n", "\r", "\x0b", "\u2585"}, piece


def test_what_a_model_is(model_dir: Path) -> None:
    model = read_model(model_dir / "tokenizer.model")
    assert model.losses() == []
    assert [piece.text for piece in model.pieces[:4]] == ["<unk>", "<s>", "</s>", "<pad>"]
    assert [piece.type for piece in model.pieces[:4]] == [PieceType.UNKNOWN, *[PieceType.CONTROL] * 3]
    assert [piece.text for piece in model.pieces[4:260]] == [f"<0x{byte:02X}>" for byte in range(256)]
    for piece in model.pieces[260:]:
        assert len(piece.text) == 1 or not re.search(r"[0-9]", piece.text), "digits stand alone"


def test_the_vocabulary_file_is_the_model_in_text(model_dir: Path) -> None:
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=str(model_dir / "tokenizer.model"))
    lines = (model_dir / "tokenizer.vocab").read_text("utf-8").removesuffix("\n").split("\n")
    assert len(lines) == processor.vocab_size() == 6_000
    for token, line in enumerate(lines):
        piece, score = line.rsplit("\t", 1)
        assert piece == processor.id_to_piece(token)
        assert float(score) == processor.get_score(token)


def rewrite(source: Path, target: Path, *, rows_per_shard: int, seed: int) -> None:
    """The same documents under the same ids, shuffled and in other shards."""
    for lang, read in tree_source(str(source), ["en", "sw", "th", "fa"]).items():
        rows = [row for batch in read() for row in batch.to_pylist()]
        random.Random(seed).shuffle(rows)
        (target / lang).mkdir(parents=True)
        for number, at in enumerate(range(0, len(rows), rows_per_shard)):
            table = pa.Table.from_pylist(rows[at : at + rows_per_shard], schema=DOCUMENT)
            pq.write_table(table, target / lang / f"{number:03d}.parquet", row_group_size=17)


def test_same_bytes_whatever_the_shards_the_order_and_the_threads(tmp_path: Path) -> None:
    results: list[dict[str, bytes]] = []
    for number, (rows_per_shard, threads) in enumerate([(10_000, 1), (13, 3)]):
        tree, out = tmp_path / f"tree{number}", tmp_path / f"out{number}"
        rewrite(sample_root(), tree, rows_per_shard=rows_per_shard, seed=number)
        train_tokenizer(str(tree), out, vocab_size=1_500, train_bytes=200_000, threads=threads, seed=9)
        results.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert sorted(results[0]) == ["card.json", "card.md", "tokenizer.model", "tokenizer.vocab"]
    assert results[0] == results[1]


def test_the_card_says_what_it_was_trained_on(model_dir: Path) -> None:
    card = read_card(str(model_dir))
    sizes = json.loads((model_dir / "card.json").read_text("utf-8"))
    assert sizes["format"] == 1
    assert card.sha256 == read_model(model_dir / "tokenizer.model").sha256
    assert card.control == {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}
    assert len(card.languages) >= 60
    used = sum(part.used_bytes for part in card.languages.values())
    assert 1_999_000 < used <= 2_000_000
    assert card.bytes_dropped == 0
    big = {lang: part for lang, part in card.languages.items() if part.used_bytes < part.bytes}
    assert len(big) >= 8
    ratios = [part.used_bytes / part.bytes**0.3 for part in big.values()]
    assert max(ratios) / min(ratios) < 1.001, "shares follow bytes ** alpha"
    page = (model_dir / "card.md").read_text("utf-8")
    assert "**bytes dropped: 0**" in page
    assert card.sha256 in page
    assert "/" not in json.dumps(card.settings), "no path of this machine"


def test_too_much_text_for_the_memory_names_what_fits(tmp_path: Path) -> None:
    sizes = {"en": Size(1, 10**9), "zh": Size(1, 10**9)}
    options: dict[str, Any] = {"sizes": sizes, "memory_limit_mb": 4_000, "alpha": 1.0}
    source = documents({"en": ENGLISH, "zh": ENGLISH})
    with pytest.raises(RecipeError, match=r"Set train_bytes to ([\d,]+), which fits") as caught:
        train_tokenizer(source, tmp_path, train_bytes=2 * 10**9, **options)
    found = re.search(r"Set train_bytes to ([\d,]+)", str(caught.value))
    assert found is not None
    fits = int(found[1].replace(",", ""))
    assert memory_estimate_mb({"en": fits // 2, "zh": fits // 2}) <= 4_000
    assert memory_estimate_mb({"en": int(fits * 0.55), "zh": int(fits * 0.55)}) > 4_000
    with pytest.raises(RecipeError, match=r"memory_limit_mb: 100 MB are too few"):
        train_tokenizer(source, tmp_path, train_bytes=2 * 10**9, **{**options, "memory_limit_mb": 100})
    assert list(tmp_path.iterdir()) == []


def test_text_without_spaces_is_expected_to_cost_more() -> None:
    size = 100 * 2**20
    assert memory_estimate_mb({}) == BASE_MB
    assert memory_estimate_mb({"en": size}) == BASE_MB + 12 * 100
    assert memory_estimate_mb({"zh": size}) == memory_estimate_mb({"unheard-of": size}) == BASE_MB + 45 * 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 300_000}, r"vocab_size: 300,000 pieces are more .* at most [\d,]+, or train on more text"),
        ({"vocab_size": 265}, r"vocab_size: 265 pieces are fewer than the 2\d\d"),
        ({"character_coverage": 0.95}, r"character_coverage: 0.95 is not in \[0.98, 1\]"),
    ],
)
def test_settings_the_text_cannot_meet(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        train_tokenizer(documents({"en": ENGLISH}), tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_size_named_as_possible_is_possible(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        train_tokenizer(documents({"en": ENGLISH}), tmp_path, vocab_size=300_000)
    found = re.search(r"at most ([\d,]+)", str(caught.value))
    assert found is not None
    fits = int(found[1].replace(",", ""))
    assert train_tokenizer(documents({"en": ENGLISH}), tmp_path, vocab_size=fits).vocab_size == fits


def test_a_fault_while_reading_comes_through(tmp_path: Path) -> None:
    def broken() -> Iterable[pa.RecordBatch]:
        yield from documents({"en": ENGLISH})["en"]()
        raise ShardError("en/x.parquet: cut off; fetch it again")

    with pytest.raises(ShardError, match="cut off; fetch it again"):
        train_tokenizer({"en": broken}, tmp_path, vocab_size=400, sizes={"en": Size(400, 20_000)})
    assert list(tmp_path.iterdir()) == []


def test_no_text_at_all(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="every document is empty"):
        train_tokenizer(documents({"en": ["", ""]}), tmp_path, vocab_size=400)


def test_a_model_made_elsewhere_is_adopted(tmp_path: Path, model_dir: Path) -> None:
    card = adopt_tokenizer(model_dir / "tokenizer.model", tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == (model_dir / "tokenizer.model").read_bytes()
    assert card.origin == "adopted"
    assert card == read_card(str(tmp_path))
    assert (card.vocab_size, card.eod_id) == (6_000, 2)


def test_a_card_that_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"card\.json: .*train the tokenizer first"):
        read_card(str(tmp_path))
    (tmp_path / "card.json").write_text('{"format": 1, "languages": {}}', "utf-8")
    with pytest.raises(ShardError, match="not a tokenizer card"):
        read_card(str(tmp_path))
