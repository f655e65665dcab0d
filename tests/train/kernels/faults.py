"""Deliberate faults of the kernels, and the check that fails for each.

What no check can notice is not here, as nothing comes of it: the masks of rows past an expert's end where x and g are
read (row 0 is read instead, and what is made of it is not stored), the masks of these rows where the weight of a
choice is read in ``_down_fwd`` and for the bias in ``_weight_grad`` (``prob_ptr + choice``: that of choice 0 is read
instead, which there is, and multiplies what is not stored, or zeros), the zeros of tokens that are none in the router's
gradient, and the side from which ties are broken (Triton's interpreter always takes the lowest index).
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A change of one place in one function.

    Attributes:
        function: where; its module is that which defines it.
        old, new: what is there, and what is put in its place wherever it is.
        check: the one that fails, of :data:`tests.train.kernels.checks.CHECKS` or its wide fellow.
        what: in words.
    """

    function: str
    old: str
    new: str
    check: str
    what: str


PLAN, TILES, DROPS = "plan", "plan of many tiles", "experts with drops"
ROUTE, ROUTE_BACK, WIDE_ROUTE = "route forward", "route backward", "wide router"
FORWARD, BACKWARD, WIDE_ROWS = "experts forward", "experts backward", "wide rows"
LAST = "an empty last expert"
WIDE_UP, WIDE_DOWN = "wide weights of up", "wide weights of down"
WIDE_DOWN_GRAD, WIDE_UP_GRAD = "wide weights of the gradient of h", "wide weights of the gradient of x"
WIDE_WEIGHTS = "wide gradients of weights"

FAULTS = [
    Fault("rank_in_block", " - onehot_TP", "", PLAN, "a choice counts itself in its rank"),
    Fault("_count", "choice < C, other=-1", "choice < C, other=0", PLAN, "choices that are none go to expert 0"),
    Fault("_count", "expert_ptr + choice, mask=choice < C, other=-1", "expert_ptr + choice", PLAN, "no mask: read"),
    Fault("_count", "rank, mask=choice < C", "rank", PLAN, "no mask: ranks are written past the end"),
    Fault("_count", " & (expert < E)[:, None]", "", PLAN, "choices of no expert are counted"),
    Fault("_count", "block * P + column", "block * P + column + 1", PLAN, "counts moved by one expert"),
    Fault("_count", "block * P + column", "column", PLAN, "counts of all blocks in one place"),
    Fault(
        "_scan",
        "mask=block[:, None] < B, other=0)\n        total",
        "mask=block[:, None] >= 0, other=0)\n        total",
        PLAN,
        "no mask: counts of blocks that are none",
    ),
    Fault("_scan", "ends - total\n", "ends\n", PLAN, "an expert begins where it ends"),
    Fault("_scan", "ends, mask=column < E", "ends", PLAN, "no mask: ends of experts that are none"),
    Fault("_scan", "running += tl.sum(counts, axis=0)", "running += 0", PLAN, "a step of the scan forgets the last"),
    Fault("_scan", "tl.cumsum(counts, axis=0) - counts", "tl.cumsum(counts, axis=0)", PLAN, "a block counts itself"),
    Fault("_scan", "(total + M - 1) // M", "total // M", PLAN, "no tile for the last rows of an expert"),
    Fault("_scan", "tile_ends[None, :] <= tile", "tile_ends[None, :] < tile", PLAN, "a tile goes to the expert before"),
    Fault("_scan", "needed, expert, -1", "needed | True, expert, -1", PLAN, "tiles that are not needed have an expert"),
    Fault("_scan", "tile_ends - tiles", "tile_ends", PLAN, "rows of a tile moved by its expert's tiles"),
    Fault(
        "_scan", "first + tl.arange(0, TILES)", "tl.arange(0, TILES)", TILES, "tiles beyond the first step not written"
    ),
    Fault("_scan", "expert, -1), mask=tile < N", "expert, -1)", PLAN, "no mask: experts of tiles past the end"),
    Fault("_place", "base + rank, choice", "base + rank + 1, choice", PLAN, "rows moved by one"),
    Fault(
        "_place",
        "mask=(inner < BLOCK) & (choice < C), other",
        "mask=inner < BLOCK, other",
        PLAN,
        "no mask: read past the end",
    ),
    Fault(
        "_place",
        "mask=(inner < BLOCK) & (choice < C), other",
        "mask=choice < C, other",
        ROUTE,
        "no mask: the next block's choices are read",
    ),
    Fault("_place", "(expert >= 0) & (expert < E)", "(choice < C) & (expert < E)", PLAN, "dropped choices get a row"),
    Fault("_place", " & (expert < E)", "", PLAN, "choices of no expert get a row"),
    Fault("_place", "block * P + expert", "expert", PLAN, "all blocks begin where the first does"),
    Fault("_logits", "(token < T)[:, None] & ", "", ROUTE, "no mask: tokens past the end are read"),
    Fault(
        "_logits",
        "mask=inside(column, E, P)[None, :] & inside(d, D, BK)[:, None]",
        "mask=(column >= 0)[None, :] & inside(d, D, BK)[:, None]",
        ROUTE,
        "no mask: weights of experts that are none are read",
    ),
    Fault("_logits", "range(0, D, BK)", "range(0, D - BK, BK)", ROUTE, "the last step is left out"),
    Fault(
        "_logits",
        'tl.where(inside(column, E, P)[None, :], acc, float("-inf"))',
        "acc",
        ROUTE,
        "experts that are none have a share",
    ),
    Fault("_logits", "token.to(tl.int64)[:, None]", "token[:, None]", WIDE_ROUTE, "32-bit offset of a token"),
    Fault("_route_fwd", "lse, mask=there", "lse", ROUTE, "no mask: written past the end"),
    Fault(
        "_route_fwd", "tl.where(there[:, None], probs, 0.0)", "probs", ROUTE, "tokens that are none count in the mean"
    ),
    Fault("_route_fwd", "if BIASED:", "if K == 0:", ROUTE, "the bias is left out"),
    Fault(
        "_route_fwd",
        "tl.where(mark, probs, 0.0)",
        "tl.where(mark, scores, 0.0)",
        ROUTE,
        "the weight has the bias in it",
    ),
    Fault("_route_fwd", "(mark & there[:, None]).to", "mark.to", ROUTE, "tokens that are none are counted"),
    Fault(
        "_route_fwd", "token * K + k, expert", "token * K, expert", ROUTE, "the second choice in the first one's place"
    ),
    Fault("_route_fwd", "tl.where(mark, rank, 0)", "tl.where(mark, rank + 1, 0)", ROUTE, "ranks begin at one"),
    Fault("_route_fwd", "block * M + tl.arange(0, M)", "block * M + 1 + tl.arange(0, M)", ROUTE, "tokens moved by one"),
    Fault(
        "_route_bwd",
        " - tl.sum(probs * importance[None, :], axis=1)[:, None]",
        "",
        ROUTE_BACK,
        "the softmax of the mean is left out",
    ),
    Fault("_route_bwd", "2.0 * z", "z", ROUTE_BACK, "half of the gradient of lse"),
    Fault("_route_bwd", "mark - probs", "mark", ROUTE_BACK, "the softmax of the choice is left out"),
    Fault(
        "_route_bwd",
        "mask=column < E, other=0.0",
        "mask=column >= 0, other=0.0",
        ROUTE_BACK,
        "no mask: read past the last expert",
    ),
    Fault(
        "_route_bwd",
        "weight = tl.load(prob_ptr + token * K + k, mask=there, other=0.0)",
        "weight = tl.where(there, 1.0, 0.0).to(WIDE)",
        ROUTE_BACK,
        "the choice's probability is missing",
    ),
    Fault(
        "_route_bwd",
        "x_grad.to(x_grad_ptr.dtype.element_ty), mask=there[:, None] & seen",
        "x_grad.to(x_grad_ptr.dtype.element_ty), mask=(token >= 0)[:, None] & seen",
        ROUTE_BACK,
        "no mask: written past the last token",
    ),
    Fault(
        "_route_bwd",
        "(block.to(tl.int64) * P + column[:, None])",
        "column[:, None]",
        ROUTE_BACK,
        "all blocks write one place",
    ),
    Fault(
        "_route_bwd", "at = token.to(tl.int64)[:, None]", "at = token[:, None]", WIDE_ROUTE, "32-bit offset of a token"
    ),
    Fault(
        "grouped_tile", "min(N_TILES - first, GROUP)", "GROUP", FORWARD, "the last group of tiles taken for a whole one"
    ),
    Fault("grouped_tile", "inside // size", "inside // GROUP", FORWARD, "columns of the last group are not written"),
    Fault("_up_fwd", "row < end", "row <= end", FORWARD, "one row past the expert's end"),
    Fault("_up_fwd", "mask=there, other=0) // K", "mask=there, other=0)", FORWARD, "a choice taken for its token"),
    Fault("_up_fwd", "src_ptr + row", "src_ptr + row + 1", FORWARD, "the row after"),
    Fault(
        "_up_fwd",
        "w_ptr + expert.to(tl.int64)",
        "w_ptr + (expert + 1).to(tl.int64)",
        FORWARD,
        "weights of the next expert",
    ),
    Fault("_up_fwd", "b_ptr + expert.to(tl.int64) * F + f", "b_ptr + f", FORWARD, "the first expert's bias"),
    Fault("_up_fwd", "acc += tl.load(b_ptr", "acc += 0.0 * tl.load(b_ptr", FORWARD, "the bias is missing"),
    Fault(
        "_up_fwd",
        "there[:, None] & inside(d, D, BK)[None, :]",
        "there[:, None] & (d >= 0)[None, :]",
        FORWARD,
        "no mask: x is read past its width",
    ),
    Fault(
        "_up_fwd",
        "inside(d, D, BK)[:, None] & seen[None, :]",
        "(d >= 0)[:, None] & seen[None, :]",
        FORWARD,
        "no mask: the next expert's weights are read",
    ),
    Fault(
        "_up_fwd",
        "mask = there[:, None] & seen[None, :]",
        "mask = (row >= 0)[:, None] & seen[None, :]",
        FORWARD,
        "no mask: rows past the expert's end are written",
    ),
    Fault(
        "_up_fwd",
        "mask = there[:, None] & seen[None, :]",
        "mask = there[:, None] & (f >= 0)[None, :]",
        FORWARD,
        "no mask: columns past the end are written",
    ),
    Fault(
        "_up_fwd",
        "x_ptr + token.to(tl.int64)[:, None]",
        "x_ptr + token[:, None]",
        WIDE_ROWS,
        "32-bit offset of a token",
    ),
    Fault("_up_fwd", "at = row.to(tl.int64)[:, None]", "at = row[:, None]", WIDE_ROWS, "32-bit offset of a row"),
    Fault("_up_fwd", "w_ptr + expert.to(tl.int64)", "w_ptr + expert", WIDE_UP, "32-bit offset of an expert"),
    Fault("_down_fwd", "row < end", "row <= end", FORWARD, "one row past the expert's end"),
    Fault("_down_fwd", "w_ptr + expert.to(tl.int64) * D * F", "w_ptr", FORWARD, "the first expert's weights"),
    Fault("_down_fwd", "acc += tl.load(b_ptr", "acc += 0.0 * tl.load(b_ptr", FORWARD, "the bias is missing"),
    Fault(
        "_down_fwd", "acc *= tl.load(prob_ptr", "acc += 0.0 * tl.load(prob_ptr", FORWARD, "the probability is missing"
    ),
    Fault("_down_fwd", "prob_ptr + choice", "prob_ptr + row", FORWARD, "the probability of another choice"),
    Fault("_down_fwd", "at = choice.to", "at = row.to", FORWARD, "rows are not scattered"),
    Fault(
        "_down_fwd",
        "there[:, None] & inside(f, F, BK)[None, :]",
        "(row >= 0)[:, None] & inside(f, F, BK)[None, :]",
        FORWARD,
        "no mask: rows past the last are read",
    ),
    Fault("_down_fwd", "range(0, F, BK)", "range(0, F - BK, BK)", FORWARD, "the last step is left out"),
    Fault(
        "_down_fwd",
        "mask=there[:, None] & seen[None, :])",
        "mask=there[:, None] & (d >= 0)[None, :])",
        FORWARD,
        "no mask: columns past the end are written",
    ),
    Fault(
        "_down_fwd", "h_ptr + row.to(tl.int64)[:, None]", "h_ptr + row[:, None]", WIDE_ROWS, "32-bit offset of a row"
    ),
    Fault(
        "_down_fwd", "at = choice.to(tl.int64)[:, None]", "at = choice[:, None]", WIDE_ROWS, "32-bit offset of a choice"
    ),
    Fault("_down_fwd", "w_ptr + expert.to(tl.int64)", "w_ptr + expert", WIDE_DOWN, "32-bit offset of an expert"),
    Fault("_down_bwd", "row < end", "row <= end", BACKWARD, "one row past the expert's end"),
    Fault("_down_bwd", "(choice // K).to", "choice.to", BACKWARD, "a choice taken for its token"),
    Fault("_down_bwd", "w_ptr + expert.to(tl.int64) * D * F", "w_ptr", BACKWARD, "the first expert's weights"),
    Fault(
        "_down_bwd",
        "if column_tile == 0:",
        "if column_tile >= 0:",
        BACKWARD,
        "the bias's share is counted for each tile",
    ),
    Fault("_down_bwd", "g.to(WIDE) * b.to", "0.0 * g.to(WIDE) * b.to", BACKWARD, "the bias's share is missing"),
    Fault("_down_bwd", "a * slope", "a", BACKWARD, "the slope is missing"),
    Fault("_down_bwd", "(prob[:, None] * h)", "h", BACKWARD, "the probability is missing"),
    Fault("_down_bwd", " + quarter * (BN // 4)", "", BACKWARD, "all quarters in the first one's columns"),
    Fault("_down_bwd", "* S + column_tile", "* S", BACKWARD, "shares of all column tiles in one place"),
    Fault(
        "_down_bwd",
        "mask = there[:, None] & inside(f, F, BN)[None, :]",
        "mask = there[:, None] & (f >= 0)[None, :]",
        BACKWARD,
        "no mask: columns past the end",
    ),
    Fault(
        "_down_bwd",
        "g_ptr + (choice // K).to(tl.int64)",
        "g_ptr + (choice // K)",
        WIDE_ROWS,
        "32-bit offset of a token",
    ),
    Fault("_down_bwd", "at = row.to(tl.int64)", "at = row", WIDE_ROWS, "32-bit offset of a row"),
    Fault("_down_bwd", "w_ptr + expert.to(tl.int64)", "w_ptr + expert", WIDE_DOWN_GRAD, "32-bit offset of an expert"),
    Fault("_up_bwd", "row < end", "row <= end", BACKWARD, "one row past the expert's end"),
    Fault("_up_bwd", "w_ptr + expert.to(tl.int64) * D * F", "w_ptr", BACKWARD, "the first expert's weights"),
    Fault("_up_bwd", "at = choice.to", "at = row.to", BACKWARD, "rows are not scattered"),
    Fault("_up_bwd", "range(0, F, BK)", "range(BK, F, BK)", BACKWARD, "the first step is left out"),
    Fault(
        "_up_bwd",
        "mask=inside(f, F, BK)[:, None] & seen[None, :]",
        "mask=inside(f, F, BK)[:, None] & (d >= 0)[None, :]",
        BACKWARD,
        "no mask: weights are read past the last row",
    ),
    Fault(
        "_up_bwd", "dz_ptr + row.to(tl.int64)[:, None]", "dz_ptr + row[:, None]", WIDE_ROWS, "32-bit offset of a row"
    ),
    Fault(
        "_up_bwd", "at = choice.to(tl.int64)[:, None]", "at = choice[:, None]", WIDE_ROWS, "32-bit offset of a choice"
    ),
    Fault("_up_bwd", "w_ptr + expert.to(tl.int64)", "w_ptr + expert", WIDE_UP_GRAD, "32-bit offset of an expert"),
    Fault("_weight_grad", "row < end", "row <= end", BACKWARD, "one row past the expert's end"),
    Fault(
        "_weight_grad",
        "expert - 1, mask=expert > 0, other=0",
        "expert - 1",
        BACKWARD,
        "no mask: read before the first end",
    ),
    Fault("_weight_grad", "ends_ptr + expert - 1", "ends_ptr + expert", BACKWARD, "an expert begins where it ends"),
    Fault(
        "_weight_grad",
        "range(begin, end, BK)",
        "range(begin, end - BK + 1, BK)",
        BACKWARD,
        "the last rows are left out",
    ),
    Fault(
        "_weight_grad",
        "if not LEFT_BY_TOKEN:",
        "if BM == 0:",
        BACKWARD,
        "the probability is missing in the bias's gradient",
    ),
    Fault(
        "_weight_grad",
        "mask=seen_u[:, None] & seen_v[None, :])",
        "mask=seen_u[:, None] & (v >= 0)[None, :])",
        BACKWARD,
        "no mask: columns past the end are written",
    ),
    Fault(
        "_weight_grad",
        "token = (choice // K).to(tl.int64)",
        "token = choice // K",
        WIDE_ROWS,
        "32-bit offset of a token",
    ),
    Fault(
        "_weight_grad",
        "left_row = token if LEFT_BY_TOKEN else row.to(tl.int64)",
        "left_row = token if LEFT_BY_TOKEN else row",
        WIDE_ROWS,
        "32-bit offset of a row",
    ),
    Fault("_weight_grad", "at = (expert.to(tl.int64)", "at = (expert", WIDE_WEIGHTS, "32-bit offset of an expert"),
    Fault(
        "up_and_down",
        "x_TD.new_zeros if may_drop",
        "x_TD.new_empty if may_drop",
        DROPS,
        "a dropped choice's output is not written",
    ),
    Fault(
        "gradients",
        "x_TD.new_zeros if may_drop",
        "x_TD.new_empty if may_drop",
        DROPS,
        "a dropped choice's gradient is not written",
    ),
    Fault("_weight_grad", "token = (choice // K)", "token = choice", BACKWARD, "a choice taken for its token"),
    Fault("_weight_grad", "else (choice // K)", "else choice", BACKWARD, "the same in the bias's gradient"),
    Fault("_weight_grad", "if u_tile == 0:", "if u_tile >= 0:", BACKWARD, "the bias's gradient written by all tiles"),
    Fault(
        "_weight_grad",
        "& seen_u[:, None], other",
        "& (u >= 0)[:, None], other",
        BACKWARD,
        "no mask: columns past the end are read",
    ),
    Fault(
        "_weight_grad",
        "mask=seen_u[:, None] & seen_v",
        "mask=(u >= 0)[:, None] & seen_v",
        BACKWARD,
        "no mask: rows past the end are written",
    ),
    Fault(
        "_weight_grad",
        "src_ptr + row + BK, mask=row + BK < end",
        "src_ptr + row, mask=row < end",
        BACKWARD,
        "a step has the rows of the last one",
    ),
    Fault("_weight_grad", "mask=row + BK < end", "mask=row + BK >= 0", BACKWARD, "no mask: read past the last row"),
    Fault(
        "_weight_grad",
        "mask=begin + inner < end",
        "mask=begin + inner >= 0",
        LAST,
        "no mask: an expert without a row reads past the last one",
    ),
]
"""At least three in each kernel."""
