"""What the operators refuse: any tensor of another shape, type or device than the kernels are launched for, really and
where shapes alone are traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.runtime import interpreter

from lola_data.errors import TrainingError
from tests.train.kernels.checks import SHIPPED, tiles_of
from tests.train.kernels.operators import NAMES, layer, operators
from train.kernels.fused import checks, ops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "longer": lambda t: t.new_zeros(*t.shape[:-1], t.shape[-1] + 1) if t.dim() else t.new_zeros(1),
    "shorter": lambda t: t.new_zeros(*t.shape[:-1], t.shape[-1] - 1) if t.dim() else t.new_zeros(2),
    "one more first": lambda t: t.new_zeros(t.shape[0] + 1, *t.shape[1:]) if t.dim() else t.new_zeros(1, 1),
    "one first, which would be spread": lambda t: t.new_zeros(1, *t.shape[1:]) if t.dim() else t.new_zeros(1),
    "turned": lambda t: t.mT if t.dim() > 1 else t[..., None],
    "a dimension more": lambda t: t[None],
    "another type": lambda t: t.to(torch.int64 if t.dtype != torch.int64 else torch.int32),
    "elsewhere": lambda t: t.to("meta"),
}
"""Of a tensor, to one that must not be taken."""

FREE = {("plan", 0), ("route", 0), ("route with a bias", 0), ("route", 1)}
"""Operators and arguments whose first dimension alone says how many choices, tokens or experts there are."""


@pytest.fixture(autouse=True)
def _small_tiles() -> Iterator[None]:
    with tiles_of(SHIPPED):
        yield


def arguments_of(name: str) -> tuple[Any, ...]:
    return tuple(t.detach() if isinstance(t, Tensor) else t for t in operators()[name][1])


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_of_an_operator_can_be_another(name: str, monkeypatch: pytest.MonkeyPatch):
    op, given = operators()[name][0], arguments_of(name)
    op(*given)

    def launch(*_: Any, **__: Any) -> None:
        raise AssertionError("a kernel was launched")

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", launch)
    tried = 0
    for place, argument in enumerate(given):
        if not isinstance(argument, Tensor):
            continue
        for what, change in CHANGES.items():
            changed = change(argument)
            if changed.shape == argument.shape and what not in ("another type", "elsewhere"):
                continue
            if name == "plan" and what == "elsewhere":
                continue  # it has no other tensor to differ from
            same_kind = changed.dtype == argument.dtype and not changed.is_meta
            if (name, place) in FREE and same_kind and changed.shape[1:] == argument.shape[1:]:
                continue
            wrong = (*given[:place], changed, *given[place + 1 :])
            with pytest.raises(TrainingError):
                op(*wrong)
            tried += 1
            if what == "elsewhere":
                continue
            with FakeTensorMode() as fake:
                traced = [fake.from_tensor(t) if isinstance(t, Tensor) else t for t in wrong]
                with pytest.raises(TrainingError):
                    op(*traced)
    assert tried >= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": (4, 24)}, r"w_router has the shape \[3, 16\]; expected \[3, 24\], experts x width of x"),
        ({"bias": (2,)}, r"bias has the shape \[2\]; expected \[3\], one for each expert"),
        ({"top_k": 4}, "top_k is 4; expected 1 to 3, the experts"),
        ({"top_k": 0}, "top_k is 0; expected 1 to 3, the experts"),
        ({"w": (65, 16)}, r"w_router has the shape \[65, 16\]; expected 1 to 64 experts"),
        ({"w": (0, 16)}, r"w_router has the shape \[0, 16\]; expected 1 to 64 experts"),
    ],
)
def test_the_router_says_what_it_wants(change: dict[str, Any], message: str):
    given = {"x": (4, 16), "w": (3, 16), "bias": (3,), "top_k": 2} | change
    x, w, bias = (torch.zeros(given[name]) for name in ("x", "w", "bias"))
    with pytest.raises(TrainingError, match=f"^{message}$"):
        ops.choose(x, w, bias, given["top_k"])


def test_parameters_are_of_one_type_and_no_narrower_than_what_is_multiplied():
    x, _, *weights = (t.detach() for t in layer(torch.float32, 4))
    expert, prob = torch.zeros(4, 1, dtype=torch.int64), torch.ones(4, 1)

    def moe(dtype: torch.dtype, x: Tensor, w_up: Tensor, b_up: Tensor, w_down: Tensor, b_down: Tensor) -> Tensor:
        return ops.moe(x, w_up, b_up, w_down, b_down, expert, prob, dtype=dtype)

    w_up, b_up, w_down, b_down = weights
    with pytest.raises(TrainingError, match=r"^w_up is torch\.bfloat16; expected torch\.float32$"):
        moe(torch.float32, x, w_up.bfloat16(), b_up, w_down, b_down)
    with pytest.raises(TrainingError, match=r"^x is torch\.float16; expected torch\.bfloat16 or torch\.float32$"):
        moe(torch.bfloat16, x.half(), w_up, b_up, w_down, b_down)
    with pytest.raises(TrainingError, match=r"b_up torch\.bfloat16, .* expected one type"):
        moe(torch.bfloat16, x, w_up, b_up.bfloat16(), w_down, b_down)
    with pytest.raises(TrainingError, match=r"^dtype is torch\.int64"):
        moe(torch.int64, x, w_up, b_up, w_down, b_down)
    assert moe(torch.bfloat16, x, w_up, b_up, w_down, b_down).dtype == torch.bfloat16


@pytest.mark.parametrize(("shape", "choices"), [((16, 32, 64), checks.MOST_CHOICES), ((16, 32, 64), 0)])
def test_as_many_choices_as_numbers_of_32_bits_are_taken(shape: tuple[int, int, int], choices: int):
    """None beyond; the last block counts on for 64 tokens of 64 choices at most, and a tile for 128 rows."""
    assert checks.limits(*shape, choices) is None
    assert choices + 64 * 64 + 128 < 2**31
    over = checks.MOST_CHOICES + 1
    assert f"{over} choices" in str(checks.limits(*shape, over))
    assert f"{over} choices" in str(
        ops.unsupported(torch.zeros(1, 16), torch.zeros(3, 16, 32), choices=over)
    )  # fmt: skip
    with FakeTensorMode(), pytest.raises(TrainingError, match=f"{(over + 63) // 64 * 64} choices"):
        ops.choose(torch.empty((over + 63) // 64, 16), torch.empty(64, 16), None, 64)


@pytest.mark.parametrize("may_drop", [False, True])
def test_an_expert_that_there_is_not_is_refused_on_the_cpu(may_drop: bool):
    x, _, *weights = (t.detach() for t in layer(torch.float32, 4))
    w_up, b_up, w_down, b_down = weights
    for wrong in (3, 7, 200, -2, *(() if may_drop else (-1,))):
        expert = torch.tensor([[0], [wrong], [2], [0]])
        with pytest.raises(TrainingError, match=f"^expert holds {wrong}; expected 0 to 2"):
            ops.moe(x, w_up, b_up, w_down, b_down, expert, torch.ones(4, 1), may_drop=may_drop)


def test_choices_that_are_not_the_routers_are_refused():
    x, w, *weights = (t.detach() for t in layer(torch.float32, 4))
    w_up, b_up, w_down, b_down = weights
    routed = ops.choose(x, w, None, 2)
    with pytest.raises(
        TrainingError, match=r"^prob has the shape \[4, 1\]; expected \[4, 2\], a weight for each choice"
    ):
        ops.moe(x, w_up, b_up, w_down, b_down, routed.expert_TK[:, :1], routed.prob_TK[:, :1], routed=routed)
