from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lola_data.tokens import TokenShard, TokenShardWriter
from train.evaluate import evaluate, make_held_out, token_counts, unigram_loss
from train.model import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.train_config import TrainConfig

EOD, VOCAB = 1, 50


def shard_of(folder: Path, name: str, docs: list[list[int]]) -> TokenShard:
    with TokenShardWriter(folder / name, np.uint16) as writer:
        writer.add_documents(
            np.array(list(chain.from_iterable(docs)), np.int64), np.array([len(doc) for doc in docs], np.int64)
        )
    return TokenShard(folder / name)


def test_unigram_loss_by_hand():
    # Vocabulary of 4 with counts 3, 1, 0, 0. With a = 1: (4, 2, 1, 1) / 8; on the tokens 0, 1, 2 that is
    # -(ln 1/2 + ln 1/4 + ln 1/8) / 3 = 2 ln 2. The best pseudo-count of the grid is taken.
    counts, tokens = np.array([3, 1, 0, 0]), np.array([0, 1, 2])
    by_hand = {
        a: -sum(math.log((counts[t] + a) / (4 + 4 * a)) for t in tokens) / 3 for a in (1.0, 0.3, 0.1, 0.03, 0.01)
    }
    assert by_hand[1.0] == pytest.approx(2 * math.log(2))
    assert unigram_loss(counts, tokens) == pytest.approx(min(by_hand.values()))
    assert math.isnan(unigram_loss(np.zeros(4, np.int64), tokens))


def test_tokens_are_counted_over_all_shards(tmp_path: Path):
    shards = [shard_of(tmp_path, "a", [[2, 2, EOD]]), shard_of(tmp_path, "b", [[3, EOD], [2, EOD]])]
    counts = token_counts(shards, 5)
    assert counts.tolist() == [0, 3, 3, 1, 0]


def held_out_of(tmp_path: Path, max_tokens: int = 1000):
    valid = {
        "aa": [shard_of(tmp_path, "a", [list(range(2, 22)), [5, EOD]]), shard_of(tmp_path, "a2", [[6, 7, EOD]])],
        "bb": [shard_of(tmp_path, "b", [[9, EOD]])],
        "cc": [shard_of(tmp_path, "c", [])],
    }
    train = {"aa": [shard_of(tmp_path, "t", [[2, 3, EOD]])]}
    return make_held_out(
        valid, train, seq_len=16, eod_id=EOD, vocab_size=VOCAB, max_tokens=max_tokens,
        token_bytes=np.full(VOCAB, 2),
    )  # fmt: skip


def test_every_held_out_token_is_scored_once(tmp_path: Path):
    held_out = held_out_of(tmp_path)
    assert held_out.languages == ["aa", "bb"]
    assert held_out.tokens.tolist() == [25, 2]
    scored = held_out.targets[held_out.owner == 0]
    assert scored[scored != -100].tolist() == [*range(2, 22), 5, EOD, 6, 7, EOD]
    assert held_out.inputs[0].tolist() == [EOD, *range(2, 17)]
    assert held_out.inputs[1].tolist()[:9] == [17, 18, 19, 20, 21, 5, EOD, 6, 7]
    assert held_out.inputs[2].tolist()[:2] == [EOD, 9]
    assert held_out.bytes is not None
    assert held_out.bytes.tolist() == [50, 4]
    assert math.isnan(held_out.unigram[1])


def test_the_cap_takes_the_first_tokens(tmp_path: Path):
    held_out = held_out_of(tmp_path, max_tokens=21)
    assert held_out.tokens.tolist() == [21, 2]
    scored = held_out.targets[held_out.owner == 0]
    assert scored[scored != -100].tolist() == [*range(2, 22), 5]


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_loss_of_a_language_is_the_mean_over_its_tokens(tmp_path: Path, tiny: Callable[..., TrainConfig], rows: int):
    held_out = held_out_of(tmp_path)
    model = Decoder(tiny(model={"init_std": 0.3}).model, VOCAB, EOD)
    model.initialise(0)
    model.train()
    found = evaluate(model, held_out, rows=rows, device=torch.device("cpu"), autocast=None)
    assert model.training
    model.eval()
    logits = model(torch.tensor([[EOD]])).logits_BSV[0, 0]
    second = model(torch.tensor([[EOD, 9]])).logits_BSV[0, 1]
    expected = F.cross_entropy(torch.stack([logits, second]), torch.tensor([9, EOD])).item()
    assert found.loss["bb"] == pytest.approx(expected, rel=1e-5)
    assert found.bits_per_byte["bb"] == pytest.approx(expected / math.log(2) / 2, rel=1e-5)
    assert found.mean == pytest.approx((found.loss["aa"] + found.loss["bb"]) / 2)
    again = evaluate(model, held_out, rows=rows, device=torch.device("cpu"), autocast=None)
    assert again == found


def test_no_held_out_token_at_all(tmp_path: Path, tiny: Callable[..., TrainConfig]):
    held_out = make_held_out({}, {}, seq_len=16, eod_id=EOD, vocab_size=VOCAB, max_tokens=10)
    model = Decoder(tiny().model, VOCAB, EOD)
    model.initialise(0)
    found = evaluate(model, held_out, rows=4, device=torch.device("cpu"), autocast=None)
    assert found.loss == {}
    assert math.isnan(found.mean)
