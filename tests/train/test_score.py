from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

from lola_data.errors import LolaError, RecipeError, ShardError, TrainingError
from lola_data.tokens import TokenShard
from tests.train.conftest import documents, write_tree
from train.evaluate import evaluate, make_held_out
from train.generate import LoadedRun
from train.model import Decoder
from train.moe import MixtureOfExperts
from train.score import Document, Score, mean_score, score_documents
from train.score_input import ScoreInput, Skipped
from train.text import encode, load_tokenizer, token_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from lola_data.train_config import TrainConfig

EOD = 1
GERMAN = ["der hund und die katze", "und der hund", "die katze und der hund und die katze"]
FRENCH = ["le chien et le chat", "犬と猫"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import sentencepiece

    prefix = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*GERMAN, *FRENCH] * 20), model_prefix=str(prefix), vocab_size=300, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
        unk_id=0, eos_id=1, bos_id=-1, pad_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return prefix.with_suffix(".model")


@pytest.fixture
def run(tokenizer: Path, tiny: Callable[..., TrainConfig]) -> LoadedRun:
    processor = load_tokenizer(tokenizer)
    model = Decoder(tiny(model={"init_std": 0.3}).model, processor.get_piece_size(), EOD)
    model.initialise(0)
    return LoadedRun(model.eval(), processor, 3, tokenizer, "0" * 64)


def score(run: LoadedRun, *paths: Path, rows: int = 4, **options: Any) -> dict[str, Score]:
    return score_documents(run.model, ScoreInput([str(path) for path in paths], run, **options), rows=rows)


def text_tree(root: Path, **languages: list[bytes | None]) -> Path:
    for lang, texts in languages.items():
        (root / lang).mkdir(parents=True)
        column = pa.array(texts, pa.binary()).view(pa.string())
        pq.write_table(pa.table({"text": column}), root / lang / f"{lang}_part_00000.parquet", row_group_size=2)
    return root


def encoded(*texts: str) -> list[bytes | None]:
    return [text.encode() for text in texts]


@torch.no_grad()
def nll_by_hand(model: Decoder, tokens: list[int]) -> float:
    """Sum of -ln p of all tokens, one forward pass a token."""
    width, total, line = model.config.seq_len, 0.0, [EOD, *tokens]
    for at in range(1, len(line)):
        first = (at - 1) // width * width
        seen = line[first:at]
        logits = model(torch.tensor([seen])).logits_BSV[0, -1]
        total -= F.log_softmax(logits.double(), -1)[line[at]].item()
    return total


def test_formulas_by_hand(run: LoadedRun, tmp_path: Path):
    found = score(run, text_tree(tmp_path / "text", de=encoded(*GERMAN), fr=encoded(*FRENCH)))
    assert list(found) == ["de", "fr"]
    for lang, texts in (("de", GERMAN), ("fr", FRENCH)):
        tokens = [token for text in texts for token in [*run.tokenizer.encode(text), EOD]]
        expected = nll_by_hand(run.model, tokens)
        size = sum(len(text.encode()) for text in texts)
        assert (found[lang].documents, found[lang].tokens, found[lang].bytes) == (len(texts), len(tokens), size)
        assert found[lang].nll == pytest.approx(expected, rel=1e-5)
        assert found[lang].loss == pytest.approx(expected / len(tokens), rel=1e-5)
        assert found[lang].perplexity == pytest.approx(math.exp(expected / len(tokens)), rel=1e-4)
        assert found[lang].bits_per_byte == pytest.approx(expected / math.log(2) / size, rel=1e-5)
    mean = mean_score(found)
    assert mean["loss"] == pytest.approx((found["de"].loss + found["fr"].loss) / 2)
    assert mean["perplexity"] == pytest.approx(math.sqrt(found["de"].perplexity * found["fr"].perplexity))
    assert mean["bits_per_byte"] == pytest.approx((found["de"].bits_per_byte + found["fr"].bits_per_byte) / 2)


def test_scores_in_bf16_are_close_and_the_router_stays_fp32(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = ScoreInput([str(text_tree(tmp_path / "text", de=encoded(*GERMAN), fr=encoded(*FRENCH)))], run)
    seen: dict[str, set[torch.dtype]] = {"router": set(), "attention": set()}
    route = MixtureOfExperts.route

    def watched(self: MixtureOfExperts, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        made = route(self, x_TD)
        seen["router"].update(tensor.dtype for tensor in made)
        return made

    monkeypatch.setattr(MixtureOfExperts, "route", watched)
    for name, module in run.model.named_modules():
        if name.endswith("attention"):
            module.register_forward_hook(lambda _, given, made: seen["attention"].add(made.dtype))
    full = score_documents(run.model, source, rows=4)
    assert seen == {"router": {torch.float32}, "attention": {torch.float32}}
    half = score_documents(run.model, source, rows=4, autocast=torch.bfloat16)
    assert seen == {"router": {torch.float32}, "attention": {torch.float32, torch.bfloat16}}
    for lang, score_ in full.items():
        assert half[lang].loss == pytest.approx(score_.loss, rel=0.02)
        assert half[lang].loss != score_.loss
        assert (half[lang].tokens, half[lang].bytes) == (score_.tokens, score_.bytes)


def test_what_was_read_is_told(run: LoadedRun):
    told: list[tuple[str, int, int]] = []
    documents = [
        Document("de", np.arange(5, 8), 3), Document("fr", np.arange(5, 9), 4), Document("de", np.array([EOD]), 0, 0),
    ]  # fmt: skip
    score_documents(
        run.model, documents, rows=2, told=lambda lang, so_far: told.append((lang, so_far.documents, so_far.tokens))
    )
    assert told == [("de", 1, 3), ("fr", 1, 4), ("de", 1, 4)]


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity(run: LoadedRun):
    with torch.no_grad():
        run.model.tokens.weight.zero_()
    rows = run.model.tokens.weight.shape[0]
    found = score_documents(run.model, [Document("de", np.array([5, 6, 7, EOD]), 8)], rows=2)["de"]
    assert found.perplexity == pytest.approx(rows, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(4 * math.log2(rows) / 8, rel=1e-5)


@pytest.mark.parametrize("max_tokens", [1000, 45])
def test_token_shards_score_as_in_training(run: LoadedRun, tmp_path: Path, max_tokens: int):
    facts = {"vocab_size": run.model.vocab_size, "eod_id": EOD, "sha256": "0" * 64, "path": ""}
    splits = {
        "train": {"aa": [documents(1, 3, 2, 200)]},
        "valid": {"aa": [documents(4, 4, 2, 200), documents(6, 2, 2, 200)], "bb": [documents(5, 3, 2, 200)]},
    }
    tree = write_tree(tmp_path / "tokens", splits, tokenizer=facts)
    valid = {
        "aa": [TokenShard(tree / "valid" / f"aa_{number:05d}") for number in (0, 1)],
        "bb": [TokenShard(tree / "valid" / "bb_00000")],
    }
    held_out = make_held_out(
        valid, {}, seq_len=16, eod_id=EOD, vocab_size=run.model.vocab_size, max_tokens=max_tokens,
        token_bytes=token_bytes(run.tokenizer, run.model.vocab_size),
    )  # fmt: skip
    expected = evaluate(run.model, held_out, rows=4, device=torch.device("cpu"), autocast=None)
    found = score(run, tree, max_tokens=max_tokens)
    assert [found[lang].tokens for lang in ("aa", "bb")] == held_out.tokens.tolist()
    assert {lang: value.loss for lang, value in found.items()} == pytest.approx(expected.loss, rel=1e-5)
    assert {lang: value.bits_per_byte for lang, value in found.items()} == pytest.approx(
        expected.bits_per_byte, rel=1e-5
    )
    if max_tokens == 1000:
        assert (found["aa"].documents, found["bb"].documents) == (6, 3)
        assert score(run, tree, documents=4)["aa"].tokens == valid["aa"][0].num_tokens
        assert score(run, tree, split="train")["aa"].tokens == sum(map(len, documents(1, 3, 2, 200)))
        assert score(run, tree / "valid" / "bb_00000.idx")["bb"] == found["bb"]


def test_text_and_tokens_of_the_same_documents_score_the_same(run: LoadedRun, tmp_path: Path):
    ids = [[*encode(run.tokenizer, text), EOD] for text in GERMAN]
    facts = {"vocab_size": run.model.vocab_size, "eod_id": EOD, "sha256": "0" * 64, "path": ""}
    tree = write_tree(tmp_path / "tokens", {"valid": {"de": [ids]}}, tokenizer=facts)
    text = text_tree(tmp_path / "text", de=encoded(*GERMAN))
    assert score(run, tree) == score(run, text)
    assert score(run, tree, max_tokens=20) == score(run, text, max_tokens=20)


def test_all_kinds_of_text_files_score_the_same(run: LoadedRun, tmp_path: Path):
    expected = score(run, text_tree(tmp_path / "text", de=encoded(*GERMAN)))
    lines, objects = tmp_path / "de.txt", tmp_path / "de.jsonl"
    lines.write_text("\n".join(GERMAN) + "\n")
    objects.write_text("".join(json.dumps({"text": text}) + "\n" for text in GERMAN))
    mixed = tmp_path / "mixed.jsonl"
    rows = [{"text": text, "lang": "de"} for text in GERMAN]
    rows.insert(1, {"text": FRENCH[0], "lang": "fr"})
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert score(run, lines, per_line=True) == expected
    assert score(run, objects) == expected
    assert score(run, tmp_path / "text" / "de" / "de_part_00000.parquet") == expected
    found = score(run, mixed)
    assert found["de"].nll == pytest.approx(expected["de"].nll, rel=1e-5)
    assert found["fr"].documents == 1
    assert list(score(run, mixed, languages=["fr"])) == ["fr"]
    whole = score(run, lines)["de"]
    assert (whole.documents, whole.bytes) == (1, lines.stat().st_size)


def test_two_evaluations_are_equal_and_the_batch_size_is_no_matter(run: LoadedRun, tmp_path: Path):
    tree = text_tree(tmp_path / "text", de=encoded(*GERMAN * 5), fr=encoded(*FRENCH * 5))
    assert score(run, tree, rows=3) == score(run, tree, rows=3)
    one = score(run, tree, rows=1)
    for rows in (2, 7, 100):
        other = score(run, tree, rows=rows)
        assert {lang: value.loss for lang, value in other.items()} == pytest.approx(
            {lang: value.loss for lang, value in one.items()}, abs=1e-5
        )


def test_limits_count_in_each_language(run: LoadedRun, tmp_path: Path):
    tree = text_tree(tmp_path / "text", de=encoded(*GERMAN), fr=encoded(*FRENCH))
    found = score(run, tree, documents=1)
    assert {lang: value.bytes for lang, value in found.items()} == {"de": len(GERMAN[0]), "fr": len(FRENCH[0])}
    cut = score(run, tree, max_tokens=5)["de"]
    first = run.tokenizer.encode(GERMAN[0])[:5]
    assert (cut.tokens, cut.documents, cut.bytes) == (5, 1, len(run.tokenizer.decode(first)))
    assert list(score(run, tree, languages=["fr"])) == ["fr"]


def test_documents_that_cannot_be_scored_are_counted(run: LoadedRun, tmp_path: Path):
    tree = text_tree(tmp_path / "text", de=[b"der hund", b"der \xff", None, b"", b"die katze"])
    source = ScoreInput([str(tree)], run)
    found = score_documents(run.model, source, rows=2)
    assert found["de"].documents == 2
    assert source.skipped == {"de": Skipped(invalid=1, empty=2)}
    assert str(source.skipped["de"]) == "1 not valid UTF-8, 2 empty"


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("nowhere", ShardError, "nowhere"),
        ("nowhere.txt", ShardError, r"nowhere\.txt: No such file"),
        ("nowhere.jsonl", ShardError, r"nowhere\.jsonl: no such file"),
        ("language", RecipeError, r"--lang dee: .* nearest of its 1 languages is 'de'"),
        ("split", RecipeError, "--split test: .* has valid"),
        ("other size", TrainingError, "a tokenizer of 7 pieces"),
        ("other tokenizer", TrainingError, "another tokenizer"),
        ("ids", TrainingError, r"de_00000\.bin: token id 60000 is beyond"),
        ("cut", ShardError, r"truncated"),
    ],
)
def test_faults_are_named(run: LoadedRun, tmp_path: Path, fault: str, kind: type[LolaError], message: str):
    facts = {"vocab_size": run.model.vocab_size, "eod_id": EOD, "sha256": "0" * 64, "path": ""}
    options: dict[str, Any] = {}
    ids = [[5, 6, 60000 if fault == "ids" else 7, EOD]]
    if fault == "other size":
        facts["vocab_size"] = 7
    if fault == "other tokenizer":
        facts["sha256"] = "1" * 64
    path = write_tree(tmp_path / "tokens", {"valid": {"de": [ids]}}, tokenizer=facts)
    if fault.startswith("nowhere"):
        path = tmp_path / fault
    if fault == "language":
        options["languages"] = ["dee"]
    if fault == "split":
        options["split"] = "test"
    if fault == "cut":
        (path / "valid" / "de_00000.bin").write_bytes(b"\0\0")
    with pytest.raises(kind, match=message):
        score(run, path, **options)
