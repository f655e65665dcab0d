"""Faults that other trainers of mixtures of experts are known for, brought to this one, with the right outcome.

The numbers are those of :data:`tests.train.test_known_faults_list.KNOWN`, which names the source of each and the tests
that hold it. Here are those, or parts of them, that no other test has:

- 1, 2 memory that nothing was written to; 4, 5, 6 sizes beyond 2^31; 7 strides; 11 a resume in a later pass
- 13, 14 capacity in both orders, and above the number of tokens; 3, 15, 25 evaluation, alone and by two processes
- 18, 19 the gradient against the formula; 20 what runs between two steps; 21, 23 the router

Nothing here is for the fused kernels, which are tested where they are: 8 and 24, and 4 to 6 on a GPU.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lola_data.train_config import PRESETS, ModelConfig, TrainConfig
from tests.train.parallel_worker import exchange, results_of
from tests.train.test_exchange import by_hand
from train.checkpoint import newest_checkpoint
from train.evaluate import HeldOut, HeldOutLoss, evaluate
from train.kernels import cross_entropy, grouped
from train.kernels.cross_entropy import linear_cross_entropy
from train.kernels.dispatch import make_plan
from train.loop import train
from train.metrics import MACHINE, read_metrics
from train.model import Block, Decoder, DecoderOutput
from train.moe import Backend, MixtureOfExperts, RouterStats, Weights, expert_capacity, moe_experts
from train.optimizer import make_optimizer
from train.parallel import spread
from train.ranks import ALONE, Ranks, joined
from train.step import StepResult, train_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

VOCAB, EOD = 50, 1
BACKENDS: list[Backend] = ["reference", "grouped"]


def model_of(config: ModelConfig, backend: Backend = "auto") -> Decoder:
    model = Decoder(config, VOCAB, EOD, backend)
    model.initialise(0)
    return model


def batch_of(step: int, rows: int = 8) -> Tensor:
    return torch.randint(0, VOCAB, (rows, 17), generator=torch.Generator().manual_seed(step))


def moe_of(**changes: Any) -> MixtureOfExperts:
    """A layer whose router is decided."""
    layer = MixtureOfExperts(ModelConfig(d_model=8, heads=2, experts=4, **changes), "reference")
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return layer


def experts_of(experts: int = 5, width: int = 8, hidden: int = 16) -> Weights:
    generator = torch.Generator().manual_seed(0)
    shapes = ((experts, width, hidden), (experts, hidden), (experts, hidden, width), (experts, width))
    return Weights(*(torch.randn(shape, generator=generator).requires_grad_() for shape in shapes))


# Memory that nothing was written to

CHOICES = {
    "first empty": [[1], [2], [4], [3], [3], [1]],
    "middle empty": [[0], [4], [1], [0], [3], [1]],
    "last empty": [[0], [2], [1], [2], [3], [0]],
    "all but the first empty": [[0], [0], [0]],
    "all but the middle one empty": [[2], [2], [2]],
    "all but the last empty": [[4], [4], [4]],
    "two of each": [[0, 1], [3, 0], [1, 3]],
    "some dropped": [[0, -1], [-1, -1], [1, 3], [-1, 3]],
    "all dropped": [[-1], [-1]],
}


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """All memory that torch hands out holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CHOICES)
@pytest.mark.usefixtures("poisoned_memory")
def test_01_02_gradients_of_empty_experts_are_zeros_that_were_written(case: str, backend: Backend):
    choices = torch.tensor(CHOICES[case])
    tensors = experts_of()
    x = torch.randn(len(choices), 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    prob = torch.full(choices.shape, 0.5, requires_grad=True)
    y = moe_experts(x, *tensors, choices, prob, backend=backend, may_drop="dropped" in case)
    y.square().sum().backward()
    idle = [expert for expert in range(5) if not (choices == expert).any()]
    for tensor in (y, x.grad, prob.grad, *(tensor.grad for tensor in tensors)):
        assert tensor is not None
        assert tensor.isfinite().all()
    for tensor in tensors:
        assert tensor.grad is not None
        moved = (tensor.grad.flatten(1) != 0).any(1)
        assert [expert for expert in range(5) if not moved[expert]] == idle
    assert (y[(choices < 0).all(1)] == 0).all()


def some_steps(config: TrainConfig, between: Callable[[Decoder, int], None] | None = None) -> tuple[Any, Decoder]:
    """What two steps saw, and the model after them; ``between`` is called after each."""
    model = model_of(config.model, config.moe_backend).train()
    if config.recompute:
        for block in model.blocks:
            assert isinstance(block, Block)
            block.recompute_activations()
    optimizer = make_optimizer(model, config)
    seen: list[StepResult] = []
    for step in range(2):
        seen.append(train_step(model, optimizer, batch_of(step), config, step=step, autocast=None))
        if between is not None:
            between(model, step)
    return [(one.loss, one.grad_norm, one.balance, one.dropped, one.fault) for one in seen], model


def assert_same_model(found: Decoder, expected: Decoder) -> None:
    for (name, x), y in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_02_steps_in_poisoned_memory_are_the_same(
    tiny: Callable[..., TrainConfig], backend: Backend, request: pytest.FixtureRequest
):
    """With an expert that no token reaches, tokens that are dropped, micro-batches and recomputed activations."""
    model = {"experts": 64, "top_k": 2, "capacity_factor": 1.0, "min_capacity": 0, "z_loss": 0.1, "init_std": 0.3}
    config = tiny(batch_size=8, micro_batch=4, recompute=True, moe_backend=backend, model=model)
    expected, clean = some_steps(config)
    assert all(dropped > 0 for *_, dropped, _ in expected)
    request.getfixturevalue("poisoned_memory")
    found, poisoned = some_steps(config)
    assert found == expected
    assert all(fault == "" for *_, fault in found)
    assert_same_model(poisoned, clean)


# Sizes beyond 2^31


def test_04_rows_are_numbered_in_64_bits():
    """Shapes and dtypes alone, on the meta device. The one product that counts rows in 32 bits is not given more."""
    choices = torch.empty(2**30 + 8, 2, dtype=torch.int64, device="meta")
    plan = make_plan(choices, 4, may_drop=False)
    assert plan.token_R.shape == plan.expert_R.shape == (2**31 + 16,)
    assert all(tensor.dtype == torch.int64 for tensor in plan)
    w_up, w_down = (torch.empty(4, *shape, device="meta") for shape in ((8, 16), (16, 8)))
    assert grouped.unsupported(torch.empty(2**31 - 1, 8, device="meta"), w_up, w_down) is None
    said = grouped.unsupported(torch.empty(2**31, 8, device="meta"), w_up, w_down)
    assert said == "2,147,483,648 rows; grouped_mm counts them in 32 bits"


@pytest.mark.parametrize("backend", BACKENDS)
def test_05_an_expert_that_begins_beyond_2_to_the_31_elements(tmp_path: Path, backend: Backend):
    """Two experts so far from one another in a file that is nearly all hole."""
    away, up, down = 2**31, 8 * 16, 16 * 8
    with (tmp_path / "weights").open("wb") as stream:
        os.truncate(stream.fileno(), 4 * (away + up + down))
    memory = torch.from_file(str(tmp_path / "weights"), shared=True, size=away + up + down, dtype=torch.float32)
    near = experts_of(experts=2)
    far_up = memory.as_strided((2, 8, 16), (away, 16, 1))
    far_down = memory.as_strided((2, 16, 8), (away, 8, 1), up)
    with torch.no_grad():
        far_up.copy_(near.w_up_EDF)
        far_down.copy_(near.w_down_EFD)
    far = near._replace(w_up_EDF=far_up.requires_grad_(), w_down_EFD=far_down.requires_grad_())
    assert grouped.unsupported(torch.empty(4, 8), far_up, far_down) is None
    found = []
    for tensors in (near, far):
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = moe_experts(x, *tensors, torch.tensor([[1], [0], [1], [1]]), torch.ones(4, 1), backend=backend)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *tensors))))
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, rtol=1e-6, atol=1e-6)


class _Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operator gave."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


def test_06_no_table_of_2_to_the_31_logits_is_made(monkeypatch: pytest.MonkeyPatch):
    """32,768 tokens by LOLA's 100,096 rows are 3.3 x 10^9."""
    monkeypatch.setitem(cross_entropy._CHUNK_ELEMENTS, "cpu", cross_entropy._CHUNK_ELEMENTS["cuda"])
    # Shapes without memory behind them.
    with FakeTensorMode(), _Largest() as seen:
        hidden = torch.empty(32_768, 8, requires_grad=True)
        weight = torch.empty(100_096, 8, requires_grad=True)
        loss, _ = linear_cross_entropy(hidden, weight, torch.zeros(32_768, dtype=torch.int64))
        loss.backward()
    assert hidden.numel() < seen.elements <= 2**28


# Strides


def strided(tensor: Tensor, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Tensor:
    """The values of ``tensor`` in memory laid out otherwise."""
    size = offset + 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
    view = torch.zeros(size).as_strided(shape, stride, offset)
    return view.copy_(tensor.detach()).requires_grad_()


LAYOUTS: dict[str, tuple[tuple[int, ...], int, str]] = {
    "transposed": ((128, 1, 8), 0, "not contiguous"),
    "rows with a gap": ((8 * 20, 20, 1), 0, "not contiguous"),
    "matrices with a gap": ((132, 16, 1), 0, ""),
    "matrices with a gap that is no multiple": ((129, 16, 1), 0, "multiple of 16 bytes"),
    "begun at an odd place": ((128, 16, 1), 1, "multiple of 16 bytes"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_07_weights_laid_out_otherwise_give_the_same(layout: str, recwarn: pytest.WarningsRecorder):
    stride, offset, reason = LAYOUTS[layout]
    plain = experts_of()
    other_way = plain._replace(w_up_EDF=strided(plain.w_up_EDF, (5, 8, 16), stride, offset))
    choices, prob = torch.tensor([[1], [0], [4], [1]]), torch.ones(4, 1)
    found = []
    ways: list[tuple[Weights, Backend]] = [(plain, "reference"), (other_way, "grouped")]
    for weights, backend in ways:
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = moe_experts(x, *weights, choices, prob, backend=backend)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *weights))))
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-4)
    said = [str(one.message) for one in recwarn if "falls back" in str(one.message)]
    assert len(said) == bool(reason)
    assert all(f"w_up {'has' if 'multiple' in reason else 'is'}" in one and reason in one for one in said)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("of", ["x transposed", "x with a gap", "gradient of stride 0", "gradient transposed"])
def test_07_tokens_and_gradients_laid_out_otherwise_give_the_same(of: str, backend: Backend):
    """``grouped_mm`` itself refuses a gradient of stride 0 in its backward pass, which is what a sum hands down."""
    # Sorted, and of weight 1: on the way home there is nothing to do but to hand the rows on.
    choices, prob, found = torch.tensor([[0], [1], [1], [4]]), torch.ones(4, 1), []
    for plain in (True, False):
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
        grad = torch.ones(4, 8) if "stride 0" in of else torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
        if not plain:
            x = strided(x, (4, 8), (1, 4)) if of == "x transposed" else x
            x = strided(x, (4, 8), (9, 1)) if of == "x with a gap" else x
            grad = torch.ones(1).expand(4, 8) if "stride 0" in of else grad
            grad = grad.t().contiguous().t() if of == "gradient transposed" else grad
        x, weights = x.detach().requires_grad_(), experts_of()
        y = moe_experts(x, *weights, choices, prob, backend="reference" if plain else backend)
        found.append((y, *torch.autograd.grad(y, (x, *weights), grad)))
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-4)


# Resume


def test_11_a_run_that_goes_on_in_a_later_pass_has_that_passes_order(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]
):
    config = tiny(tokens=30 * 64, eval_every=0, checkpoint_every=0)
    assert train(config, tree, tmp_path / "whole").finished
    train(config, tree, tmp_path / "cut", max_steps_this_run=26)
    assert train(config, tree, tmp_path / "cut").finished
    records = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    # Both languages have begun a further pass when the run is cut.
    at_the_cut = next(one for one in records[0] if one["kind"] == "train" and one["step"] == 26)
    assert min(at_the_cut["epochs"].values()) > 1
    whole, cut = ([{k: v for k, v in one.items() if k not in MACHINE} for one in run] for run in records)
    assert cut == whole
    tensors = []
    for name in ("whole", "cut"):
        found = newest_checkpoint(tmp_path / name / "checkpoints")
        assert found is not None
        tensors.append(found.part("model"))
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


# Capacity


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("order", ["position", "random"])
def test_13_no_expert_takes_more_than_its_capacity_in_either_order(order: str, top_k: int):
    layer = moe_of(capacity_factor=0.5, min_capacity=0, capacity_order=order, top_k=top_k).train()
    given: list[Tensor] = []
    layer.experts.register_forward_pre_hook(lambda _, arguments: given.append(arguments[1]))
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    seen: list[RouterStats] = [layer(x, None, torch.tensor(key))[1] for key in (1, 1, 2)]
    capacity = 5 * top_k
    over = (seen[0].counts_E - capacity).clamp(min=0).sum()
    assert over > 0
    for kept, stats in zip(given, seen, strict=True):
        counts = torch.bincount(kept[kept >= 0], minlength=4)
        assert torch.equal(counts, stats.counts_E.clamp(max=capacity))
        assert stats.dropped == over
        assert torch.equal(kept[kept >= 0], stats.expert_TK[kept >= 0])
    assert torch.equal(given[0], given[1])
    assert torch.equal(given[0], given[2]) == (order == "position")


@pytest.mark.parametrize("order", ["position", "random"])
def test_14_a_capacity_above_the_tokens_drops_none(order: str):
    assert expert_capacity(3, 4, 1000.0, 64) == 3
    layer = moe_of(capacity_factor=1000.0, min_capacity=64, capacity_order=order).train()
    for tokens in (0, 1, 3):
        x = torch.randn(tokens, 8, generator=torch.Generator().manual_seed(1))
        y, stats = layer(x, None, torch.tensor(5))
        assert stats.dropped == 0
        assert torch.equal(y, moe_of()(x)[0])


# Evaluation

UNEVEN = {"dropout": 0.3, "capacity_factor": 0.25, "min_capacity": 0, "capacity_order": "random", "init_std": 0.3}
"""With this an evaluation in training mode would drop and draw."""


def held_out() -> HeldOut:
    """Three windows, so that with two processes and a window each the second has nothing at last."""
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(0, VOCAB, (3, 16)).astype(np.int32) for _ in range(2))
    targets[1, 9:] = -100
    tokens = np.array([25, 16], np.int64)
    return HeldOut(["aa", "bb"], inputs, targets, np.array([0, 0, 1]), tokens, None, np.full(2, np.nan))


def evaluated(model: Decoder, held: HeldOut, rows: int, ranks: Ranks = ALONE) -> HeldOutLoss:
    return evaluate(model, held, rows=rows, device=torch.device("cpu"), autocast=None, ranks=ranks)


def test_25_two_evaluations_are_equal_and_a_window_has_the_loss_that_it_has_alone(tiny: Callable[..., TrainConfig]):
    model, held = model_of(tiny(model=UNEVEN).model).train(), held_out()
    torch.manual_seed(1)
    first = evaluated(model, held, 3)
    torch.manual_seed(2)
    assert evaluated(model, held, 3) == first
    assert model.training
    sums = dict.fromkeys(held.languages, 0.0)
    for row, owner in enumerate(held.owner):
        own = slice(row, row + 1)
        alone = HeldOut(["it"], held.inputs[own], held.targets[own], np.zeros(1, np.int64),
                        np.ones(1, np.int64), None, np.full(1, np.nan))  # fmt: skip
        sums[held.languages[owner]] += evaluated(model, alone, 1).loss["it"]
    means = {name: total / count for (name, total), count in zip(sums.items(), held.tokens, strict=True)}
    for rows in (1, 2, 3):
        assert evaluated(model, held, rows).loss == pytest.approx(means, rel=1e-6)


def test_15_evaluation_drops_no_token(tiny: Callable[..., TrainConfig]):
    config = tiny(model=UNEVEN).model
    free = replace(config, capacity_factor=None)
    assert evaluated(model_of(config).train(), held_out(), 2) == evaluated(model_of(free).train(), held_out(), 2)


IDLE_ROWS: list[list[list[float]]] = [[], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]
IDLE_COUNTS = [[0, 0, 0, 0], [0, 0, 1, 2]]
"""The first of two processes has no row to send, and none comes to it."""


def work_together(settings: dict[str, Any]) -> tuple[HeldOutLoss, dict[str, Any]]:
    """What a process of a group that shares the experts finds in an evaluation and in an exchange."""
    config = TrainConfig.from_dict(settings)
    with joined("cpu") as ranks:
        model = model_of(config.model).train()
        spread(model, config, ranks, "cpu")
        return evaluated(model, held_out(), 1, ranks), exchange(IDLE_ROWS, IDLE_COUNTS)


def test_03_15_processes_that_share_experts_evaluate_as_one(tiny: Callable[..., TrainConfig]):
    """In the last round the second process has no window, and goes along all the same; so does the first one where it
    has nothing to send and nothing to receive."""
    config = tiny(expert_parallel=2, model=UNEVEN)
    expected = evaluated(model_of(replace(config.model, capacity_factor=None)), held_out(), 1)
    homes = by_hand(IDLE_ROWS, IDLE_COUNTS)
    for (found, exchanged), home in zip(results_of(2, work_together, config.to_dict()), homes, strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)
        assert exchanged == home


# The gradient of the losses of the router


def by_formula(config: TrainConfig, tokens: Tensor) -> dict[str, Tensor]:
    """Gradient of mean -ln p(target) + balance_loss * sum_l E sum_e f_e P_e + z_loss * sum_l mean(lse^2), the batch
    whole; the terms of the router are made from what enters it."""
    model = model_of(config.model, "reference").eval()
    entered: list[tuple[MixtureOfExperts, Tensor]] = []
    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            module.register_forward_pre_hook(lambda layer, given: entered.append((layer, given[0])))  # type: ignore[arg-type]
    logits = model(tokens[:, :-1]).logits_BSV
    total = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    experts = config.model.experts
    for layer, x_TD in entered:
        scores = x_TD @ layer.router.weight.t()
        probs = scores.exp() / scores.exp().sum(-1, keepdim=True)
        chosen = probs.argsort(-1, descending=True)[:, : config.model.top_k]
        share = torch.tensor([(chosen == expert).sum() / chosen.numel() for expert in range(experts)])
        total = total + config.model.balance_loss * experts * (share * probs.mean(0)).sum()
        total = total + config.model.z_loss * scores.exp().sum(-1).log().square().mean()
    assert len(entered) == len(config.model.moe_layers) == 2
    total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(("micro_batch", "top_k", "recompute"), [(8, 1, False), (2, 1, False), (1, 2, True)])
def test_18_19_the_gradient_of_a_step_is_that_of_the_formula(
    tiny: Callable[..., TrainConfig], micro_batch: int, top_k: int, recompute: bool
):
    """Two layers with experts, and coefficients that count, each another."""
    shape = {"layers": 4, "balance_loss": 0.7, "z_loss": 0.3, "init_std": 0.3, "top_k": top_k}
    config = tiny(batch_size=8, micro_batch=micro_batch, recompute=recompute, model=shape)
    expected = by_formula(config, batch_of(0))
    model = model_of(config.model).train()
    for block in model.blocks:
        assert isinstance(block, Block)
        if recompute:
            block.recompute_activations()
    found: dict[str, Tensor] = {}

    def judge(loss: float, norm: float) -> str:
        found.update((name, p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None)
        return "looked at"

    train_step(model, make_optimizer(model, config), batch_of(0), config, step=0, autocast=None, judge=judge)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_18_the_load_in_the_loss_is_that_of_the_step_itself(tiny: Callable[..., TrainConfig]):
    """It is counted in a pass of its own, which has to drop what the other one drops."""
    config = tiny(batch_size=8, micro_batch=2, model={**UNEVEN, "layers": 4})
    model = model_of(config.model).train()
    real, given = model.forward, []

    def forward(*arguments: Any, **others: Any) -> DecoderOutput:
        if len(arguments) == 3:
            given.append(arguments[2])
        return real(*arguments, **others)

    model.forward = forward
    result = train_step(model, make_optimizer(model, config), batch_of(0), config, step=3, autocast=None)
    assert len(given) == 4
    for load_LE in given:
        assert torch.equal(load_LE.float(), result.load_LE)


@pytest.mark.parametrize("recompute", [False, True])
def test_20_what_runs_between_two_steps_leaves_them_alone(tiny: Callable[..., TrainConfig], recompute: bool):
    """An evaluation, a pass without a backward one, another model: no loss of theirs is in the next step's."""
    config = tiny(batch_size=8, micro_batch=4, recompute=recompute, model={"balance_loss": 1.0, "z_loss": 0.1})
    other, held = model_of(config.model).train(), held_out()

    def between(model: Decoder, step: int) -> None:
        evaluated(model, held, 2)
        model(batch_of(10)[:, :-1], batch_of(10)[:, 1:])
        other(batch_of(11)[:, :-1], batch_of(11)[:, 1:]).loss.backward()

    expected, undisturbed = some_steps(config)
    found, disturbed = some_steps(config, between)
    assert found == expected
    assert_same_model(disturbed, undisturbed)


# The router


def test_21_the_balance_loss_and_the_warnings_are_on_where_nothing_is_said():
    for config in (TrainConfig(), *PRESETS.values()):
        assert config.model.balance_loss == 0.01  # LOLA's
        assert config.dead_steps > 0


def test_23_pushing_all_logits_down_gains_the_router_nothing():
    """A gate of sigmoids over their sum plus an epsilon falls to 0 there, and its balance loss with it."""
    layer = moe_of()
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    x[:, -1] = 1.0
    expected = layer(x)[1]
    with torch.no_grad():
        layer.router.weight[:, -1] -= 300.0
    found = layer(x)[1]
    assert torch.equal(found.counts_E, expected.counts_E)
    assert found.importance_E.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert found.balance.item() == pytest.approx(expected.balance.item(), rel=1e-3)
    # Nor is there a way down: to add the same to all logits of a token changes nothing.
    (grad,) = torch.autograd.grad(found.balance, layer.router.weight)
    assert grad[:, -1].sum().item() == pytest.approx(0.0, abs=1e-6)
    assert grad[:, -1].abs().max() > 1e-3


def test_21_23_balance_and_load_of_each_step_are_in_the_records(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
):
    import train.loop as loop

    real, seen = loop.train_step, []
    monkeypatch.setattr(loop, "train_step", lambda *given, **others: seen.append(real(*given, **others)) or seen[-1])
    train(tiny(tokens=3 * 64, eval_every=0), tree, tmp_path / "run")
    records = [one for one in read_metrics(tmp_path / "run" / "metrics.jsonl") if one["kind"] == "train"]
    assert [one["balance"] for one in records] == [result.balance for result in seen]
    assert [one["load"]["1"] for one in records] == [pytest.approx(one.load_LE[0].tolist(), abs=1e-6) for one in seen]
    assert len(records) == 3
