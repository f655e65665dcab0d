from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lola_data.train_config import PRESETS, ModelConfig, TrainConfig
from train.model import Decoder, count_parameters, decays
from train.optimizer import make_optimizer

EOD = 1


def decoder(**changes: Any) -> Decoder:
    values: dict[str, Any] = {"layers": 2, "d_model": 16, "heads": 2, "seq_len": 16, "experts": 4, "init_std": 0.2}
    model = Decoder(ModelConfig(**(values | changes)), vocab_size=50, eod_id=EOD)
    model.initialise(0)
    return model.eval()


def logits(model: Decoder, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found = model(torch.tensor([tokens])).logits_BSV
    assert found is not None
    return found[0]


def test_lola_has_the_published_number_of_parameters():
    # 7.46 billion on Hugging Face, and from the shape by hand: see the counts in the paper's public code.
    assert count_parameters(PRESETS["lola-1b"].model, 100_096) == (7_459_827_712, 1_418_186_752)
    # 100,000 pieces round up to the same 100,096 rows.
    assert count_parameters(PRESETS["lola-1b"].model, 100_000)[0] == 7_459_827_712


def test_parameters_of_a_dense_model_by_the_formula():
    d, layers, vocab, seq = 64, 3, 256, 32
    config = ModelConfig(layers=layers, d_model=d, heads=4, seq_len=seq, moe_every=0)
    expected = vocab * d + seq * d + layers * (12 * d * d + 13 * d) + 2 * d
    assert count_parameters(config, vocab) == (expected, expected)


@pytest.mark.parametrize("reset", [True, False])
def test_the_future_does_not_reach_the_past(reset: bool):
    model = decoder(reset_at_eod=reset)
    tokens = [EOD, 5, 6, 7, EOD, 8, 9, 10, 11, 12]
    before = logits(model, tokens)
    for place in range(1, 10):
        changed = tokens[:place] + [20 if token != 20 else 21 for token in tokens[place:]]
        torch.testing.assert_close(logits(model, changed)[:place], before[:place], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(logits(model, changed)[place], before[place])


def test_documents_do_not_see_each_other():
    model = decoder()
    second = [EOD, 8, 9, 10]
    alone = logits(model, second)
    for first in ([EOD, 5, 6, 7], [EOD, 30, 31], [17] * 12, [40]):
        torch.testing.assert_close(logits(model, first + second)[len(first) :], alone, rtol=1e-5, atol=1e-5)


def test_documents_see_each_other_as_in_lola_where_asked():
    model = decoder(reset_at_eod=False)
    a, b = (logits(model, [EOD, first, 6, EOD, 8, 9])[3:] for first in (5, 30))
    assert not torch.allclose(a, b)


def test_without_an_eod_both_ways_are_the_same():
    tokens = [5, 6, 7, 8, 9]
    torch.testing.assert_close(
        logits(decoder(), tokens), logits(decoder(reset_at_eod=False), tokens), rtol=1e-5, atol=1e-5
    )


def test_loss_is_the_cross_entropy_of_the_logits():
    model = decoder()
    tokens = torch.randint(2, 50, (3, 12), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(-1, 1)
    output = model(tokens, targets)
    expected = torch.nn.functional.cross_entropy(model(tokens).logits_BSV.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.nll_BS.mean(), expected)


def test_backends_give_the_same_model():
    tokens = torch.randint(2, 50, (3, 12), generator=torch.Generator().manual_seed(0))
    found = []
    for backend in ("reference", "grouped"):
        model = Decoder(ModelConfig(layers=2, d_model=16, heads=2, seq_len=16, experts=4), 50, EOD, backend)
        model.initialise(3)
        model(tokens, tokens).loss.backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], rtol=1e-4, atol=1e-6)


def test_every_parameter_gets_a_gradient():
    model = decoder()
    tokens = torch.randint(0, 50, (4, 16), generator=torch.Generator().manual_seed(0))
    output = model(tokens, tokens)
    (output.loss + sum(stats.balance for stats in output.routing)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_initial_weights_follow_the_seed_and_the_stated_deviations():
    config = ModelConfig(layers=8, d_model=64, heads=4, init_std=0.01)
    a, b, c = (Decoder(config, 5000, EOD) for _ in range(3))
    for model, seed in ((a, 1), (b, 1), (c, 2)):
        model.initialise(seed)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.tokens.weight, c.tokens.weight)
    for name, parameter in a.named_parameters():
        if name.endswith(("qkv.weight", "tokens.weight", "w_up", "up.weight")):
            assert parameter.std().item() == pytest.approx(0.01, rel=0.05)
        elif name.endswith(("proj.weight", "down.weight", "w_down")):
            assert parameter.std().item() == pytest.approx(0.01 / math.sqrt(16), rel=0.05)
        elif name.endswith(("bias", "b_up", "b_down")):
            assert not parameter.any()


def test_a_new_model_is_as_unsure_as_can_be():
    model = decoder(init_std=0.01)
    tokens = torch.randint(0, 50, (2, 16), generator=torch.Generator().manual_seed(0))
    # 128 embedding rows (50 pieces rounded up).
    assert model(tokens, tokens.roll(-1, 1)).loss.item() == pytest.approx(math.log(128), rel=0.02)


def test_decay_groups():
    model = decoder()
    kept = {name for name, _ in model.named_parameters() if not decays(name)}
    norms_and_biases = {name for name in kept if "norm" in name or name.endswith("bias")}
    assert kept - norms_and_biases == {"blocks.1.feed_forward.experts.b_up", "blocks.1.feed_forward.experts.b_down"}
    decayed = {name for name, _ in model.named_parameters()} - kept
    assert {"tokens.weight", "positions.weight", "blocks.1.feed_forward.router.weight"} < decayed
    groups = make_optimizer(model, TrainConfig(weight_decay=0.3)).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(len(decayed), 0.3), (len(kept), 0)]


def test_dropout_is_off_in_evaluation():
    model = decoder(dropout=0.5)
    tokens = [EOD, 4, 5, 6]
    torch.testing.assert_close(logits(model, tokens), logits(model, tokens), rtol=0, atol=0)
    model.train()
    assert not torch.equal(logits(model, tokens), logits(model, tokens))


def test_double_precision_runs_through():
    model = decoder().double()
    tokens = torch.tensor([[EOD, 4, 5, 6]])
    assert model(tokens, tokens).loss.dtype == torch.float64


def _with_flex(model: Decoder, flex: bool) -> Decoder:
    model.flex = flex
    return model


def test_flex_attention_sees_what_the_mask_lets_it_see():
    config = ModelConfig(layers=2, d_model=32, heads=2, seq_len=32, experts=4)
    model = Decoder(config, 60, 1)
    model.initialise(0)
    tokens = torch.randint(2, 60, (3, 32), generator=torch.Generator().manual_seed(0))
    tokens[0, 0] = tokens[0, 7] = tokens[1, 20] = tokens[1, 21] = tokens[2, 31] = 1
    # The backward pass of flex attention is there on a GPU alone.
    with torch.no_grad():
        found = [_with_flex(model, flex)(tokens[:, :-1], tokens[:, 1:]).nll_BS for flex in (False, True)]
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    # And both keep documents apart: what comes before an end of document does not matter after it.
    changed = tokens.clone()
    changed[0, 1:7] = 5
    for flex in (False, True):
        with torch.no_grad():
            a, b = _with_flex(model, flex)(tokens).logits_BSV, model(changed).logits_BSV
        torch.testing.assert_close(a[0, 7:], b[0, 7:], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(a[0, 6], b[0, 6])
