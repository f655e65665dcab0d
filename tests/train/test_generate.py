from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from lola_data.errors import TrainingError
from tests.train.conftest import write_tree
from train.generate import generate_text, generate_tokens, load_run
from train.loop import train
from train.model import Decoder
from train.text import load_tokenizer, token_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.train_config import TrainConfig

EOD = 1


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of 300 pieces, 1 being the end of a document."""
    import sentencepiece

    prefix = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    text = ["der hund und die katze", "le chien et le chat", "собака и кошка", "犬と猫"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(prefix), vocab_size=300, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False, unk_id=0, eos_id=1,
        bos_id=-1, pad_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return prefix.with_suffix(".model")


@pytest.fixture
def run(tokenizer: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]) -> Path:
    """A run that has learnt two sentences by heart."""
    processor = load_tokenizer(tokenizer)
    docs = [[*processor.encode(text), EOD] for text in ("der hund und die katze", "le chien et le chat")]
    facts = {
        "path": "tokenizer.model",
        "sha256": "0",
        "vocab_size": processor.get_piece_size(),
        "eod_id": EOD,
    }
    root = write_tree(tmp_path / "tokens", {"train": {"de": [docs[:1]], "fr": [docs[1:]]}}, tokenizer=facts)
    (root / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    train(tiny(tokens=150 * 64, learning_rate=0.01, log_every=50), root, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_continues_what_it_has_learnt(run: Path):
    loaded = load_run(run)
    assert loaded.step == 150
    assert generate_text(loaded, "der hund", temperature=0) == " und die katze"
    assert generate_text(loaded, "le chien et", temperature=0) == " le chat"


def test_the_same_seed_gives_the_same_text(run: Path):
    loaded = load_run(run)
    texts = [generate_text(loaded, "", max_tokens=20, temperature=3.0, seed=seed) for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("fault", ["no run", "no checkpoint", "bad settings", "other tokenizer", "no tokenizer"])
def test_what_cannot_be_loaded_is_refused(run: Path, tmp_path: Path, fault: str):
    import shutil

    tokenizer: Path | None = None
    if fault == "no run":
        run, message = tmp_path / "nowhere", "name the directory of a run"
    elif fault == "no checkpoint":
        shutil.rmtree(run / "checkpoints")
        message = "no whole checkpoint"
    elif fault == "bad settings":
        (run / "config.json").write_text('{"config": {"sed": 1}, "tokenizer": {}}')
        message = "did you mean 'seed'"
    elif fault == "no tokenizer":
        (run / "tokenizer.model").unlink()
        message = "name one with --tokenizer"
    else:
        settings = json.loads((run / "config.json").read_text())
        settings["tokenizer"]["vocab_size"] += 1
        (run / "config.json").write_text(json.dumps(settings))
        message = "pieces, but the run was trained"
    with pytest.raises(TrainingError, match=message):
        load_run(run, tokenizer=tokenizer)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path):
    (tmp_path / "x.model").write_bytes(b"nothing of the kind")
    with pytest.raises(TrainingError, match=r"x\.model: not a SentencePiece model"):
        load_tokenizer(tmp_path / "x.model")


def test_bytes_of_the_pieces_add_up_to_the_text(tokenizer: Path):
    processor = load_tokenizer(tokenizer)
    sizes = token_bytes(processor, processor.get_piece_size())
    for text in ("der hund", "собака и кошка", "犬 猿 ✓", "a  b\tc"):
        assert sizes[processor.encode(text)].sum() == len(text.encode())
    assert sizes[EOD] == 0


def model_of(tiny: Callable[..., TrainConfig], **changes: Any) -> Decoder:
    model = Decoder(tiny(model={"init_std": 0.5, **changes}).model, 50, EOD)
    model.initialise(1)
    return model.eval()


def test_greedy_takes_the_likeliest_token(tiny: Callable[..., TrainConfig]):
    model = model_of(tiny)
    ids = [EOD, 5, 6]
    for token in generate_tokens(model, ids, max_tokens=10, temperature=0):
        logits = model(torch.tensor([ids])).logits_BSV[0, -1, :50]
        assert int(logits.argmax()) == token
        ids.append(token)


def test_top_k_of_one_is_greedy_and_long_texts_slide(tiny: Callable[..., TrainConfig]):
    model = model_of(tiny)
    greedy = generate_tokens(model, [EOD, 7], max_tokens=40, temperature=0)
    assert generate_tokens(model, [EOD, 7], max_tokens=40, temperature=5.0, top_k=1, seed=9) == greedy


def test_rows_beyond_the_vocabulary_are_never_drawn(tiny: Callable[..., TrainConfig]):
    model = Decoder(tiny(model={"vocab_multiple": 128}).model, 50, EOD)
    model.initialise(0)
    with torch.no_grad():
        model.tokens.weight[50:] = 100.0
    found = generate_tokens(model.eval(), [EOD], max_tokens=200, temperature=10.0)
    assert found
    assert max(found) < 50


def test_bad_arguments(tiny: Callable[..., TrainConfig]):
    model = model_of(tiny)
    with pytest.raises(ValueError, match="prompt"):
        generate_tokens(model, [], max_tokens=1)
    with pytest.raises(ValueError, match="top_k"):
        generate_tokens(model, [EOD], max_tokens=1, top_k=0)
