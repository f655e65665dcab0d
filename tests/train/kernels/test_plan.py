from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.kernels import checks
from tests.train.kernels.checks import SHIPPED, plan_is_right, tiles_of
from tests.train.kernels.watch import apart, poisoned, watched
from train.kernels.fused import plan


def planned(chosen: list[int], experts: int, rows: int, count: int = 16, scan: int = 2) -> plan.Plan:
    with tiles_of(SHIPPED, count=count, scan=scan), poisoned(), watched():
        return plan.make_plan(apart(torch.tensor(chosen, dtype=torch.int32)), experts, rows)


def test_a_plan_by_hand():
    # Rows: those of expert 0 are choices 1, 4; of expert 2 choices 0, 3, 5; choice 2 is dropped.
    made = planned([2, 0, -1, 2, 0, 2], 3, 2)
    assert made.src_C[:5].tolist() == [1, 4, 0, 3, 5]
    assert made.ends_E.tolist() == [2, 2, 5]
    # Six tiles are never too few for six choices of three experts; three are needed.
    assert made.tile_expert_N.tolist() == [0, 2, 2, -1, -1, -1]
    assert made.tile_row_N.tolist()[:3] == [0, 2, 4]


@settings(max_examples=15)
@given(
    st.integers(1, 40).flatmap(lambda experts: st.tuples(st.just(experts), st.lists(st.integers(-2, experts + 20)))),
    st.sampled_from([1, 4, 16]),
    st.sampled_from([8, 16]),
    st.sampled_from([1, 2, 4]),
)
def test_any_plan(case: tuple[int, list[int]], rows: int, count: int, scan: int):
    experts, chosen = case
    made = planned(chosen, experts, rows, count, scan)
    plan_is_right(made, torch.tensor(chosen, dtype=torch.int32), experts, rows)


@pytest.mark.parametrize("experts", [1, 2, 16, 64])
@pytest.mark.parametrize("shape", ["even", "all to the first", "all to the last", "all dropped", "one", "none"])
def test_plans_of_shipped_blocks(experts: int, shape: str):
    chosen = {
        "even": torch.arange(300) % experts, "all to the first": torch.zeros(300), "one": torch.tensor([experts - 1]),
        "all to the last": torch.full((300,), experts - 1),
        "all dropped": torch.full((300,), -1), "none": torch.zeros(0),
    }[shape].to(torch.int32)  # fmt: skip
    with poisoned(), watched():
        made = plan.make_plan(apart(chosen), experts, 64)
    plan_is_right(made, chosen, experts, 64)


def test_choices_of_no_expert_are_dropped():
    """Of numbers that the kernels have no column for, too, and with the ranks of a router."""
    made, wanted = (planned(chosen, 3, 2) for chosen in ([2, 3, -7, 200, 0, 2], [2, -1, -1, -1, 0, 2]))
    assert made.ends_E.tolist() == [1, 1, 3]
    for a, b in zip(made, wanted, strict=True):
        assert torch.equal(a[:3], b[:3])
    assert made.tile_expert_N.tolist() == [0, 2, -1, -1, -1, -1]


def test_more_blocks_than_a_shipped_scan_takes_at_a_time():
    chosen = torch.randint(0, 3, (plan.SCAN_BLOCKS * 2 + 5,), generator=torch.Generator().manual_seed(0))
    made = planned(chosen.tolist(), 3, 64, count=2, scan=plan.SCAN_BLOCKS)
    plan_is_right(made, chosen.to(torch.int32), 3, 64)


@pytest.mark.parametrize(("tokens", "top_k", "experts"), [(100, 1, 5), (90, 2, 16), (33, 3, 40), (1, 1, 2), (0, 1, 2)])
def test_ranks_of_the_router_give_the_plan_of_bare_choices(tokens: int, top_k: int, experts: int):
    x, w = checks.router_input(tokens, 16, experts)
    with tiles_of(SHIPPED), poisoned(), watched():
        found = SHIPPED.route.route(x, w, None, top_k)
        chosen = found.expert_TK.reshape(-1)
        ranked = plan.make_plan(
            chosen, experts, 16, ranked=(found.rank_TK.reshape(-1), found.counts_BP, 16 * top_k)
        )  # fmt: skip
        bare = plan.make_plan(chosen, experts, 16)
    for a, b in zip(ranked, bare, strict=True):
        assert torch.equal(a, b)
