"""The MoE layers that :mod:`benchmarks.moe_layer` puts side by side, and the loads they are given.

In: the tensors of a layer. Out: y. All of them do the whole of it, from the router's product to the weighted sum: one
expert a token, softmax in float32, tanh GELU, biases. The router's losses are left out, for every contender.

Legend: T tokens, D model width, F hidden width, E experts, K = 1 experts a token is sent to, C capacity of an expert.
"""

from __future__ import annotations

import math
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from lola_data.train_config import ModelConfig
from train.kernels import grouped
from train.moe import MixtureOfExperts, drop_over_capacity, expert_capacity, moe_experts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from train.moe import Backend

MARGIN = 2.0
"""Logit by which the expert of a token is ahead of the others, whose logits lie in [0, 0.3)."""


class Shape(NamedTuple):
    """Of a layer."""

    tokens: int
    width: int
    hidden: int
    experts: int


class Layer(NamedTuple):
    """Leaves of the graph: what goes in, and the parameters. The router's weight is of the type of its sums."""

    x_TD: Tensor
    w_router_ED: Tensor
    w_up_EDF: Tensor
    b_up_EF: Tensor
    w_down_EFD: Tensor
    b_down_ED: Tensor

    def to(self, dtype: torch.dtype, *, biases: bool = True) -> Layer:
        """New leaves of ``dtype``, biases zero if there are to be none."""
        copies = [tensor.detach().to(dtype, copy=True) for tensor in self]
        if not biases:
            copies[3].zero_()
            copies[5].zero_()
        return Layer(*(tensor.requires_grad_() for tensor in copies))


class Contender(NamedTuple):
    """A way to compute a layer.

    Attributes:
        forward: Layer -> y_TD.
        ours: whether the command fails if it cannot run.
        written_here: whether the command fails if it is wrong.
        biases: whether it has them; one without is compared with the reference at biases of zero.
        absent: why it cannot run here, or None.
        note: what a reader of its figures must know.
        capacity: most tokens of an expert, beyond which the others are dropped; None: all are kept.
        kept: type in which x and the weights are kept, where that is not the type of the layer.
    """

    name: str
    forward: Callable[[Layer], Tensor]
    ours: bool = False
    written_here: bool = False
    biases: bool = True
    absent: str | None = None
    note: str = ""
    capacity: int | None = None
    kept: torch.dtype | None = None


AUTOCAST = "fused, under autocast"
"""The row of :func:`trained`."""
LOADS = ("balanced", "zipf", "one empty")


def load_of(kind: str, tokens: int, experts: int) -> list[int]:
    """Tokens of each expert; they sum to ``tokens``.

    ``balanced``: as even as can be. ``zipf``: in proportion to 1 / rank, by largest remainders. ``one empty``: the
    middle expert has none, the others are even.
    """
    ranks = range(1, experts + 1)
    if kind == "balanced":
        shares = [1.0] * experts
    elif kind == "zipf":
        shares = [1 / rank for rank in ranks]
    elif kind == "one empty":
        shares = [0.0 if expert == experts // 2 else 1.0 for expert in range(experts)]
    else:
        raise ValueError(f"{kind} is none of {', '.join(LOADS)}")
    exact = [tokens * share / sum(shares) for share in shares]
    counts = [math.floor(value) for value in exact]
    # An expert of share 0 comes last, so it gets nothing of what is left: that is less than the experts with a share.
    order = sorted(range(experts), key=lambda expert: (shares[expert] == 0, counts[expert] - exact[expert]))
    for expert in order[: tokens - sum(counts)]:
        counts[expert] += 1
    return counts


def make_layer(shape: Shape, counts: Sequence[int], dtype: torch.dtype, device: str, seed: int = 0) -> Layer:
    """Random tensors whose router sends ``counts[e]`` tokens, in random order, to expert e.

    The router's rows are orthonormal, and x is random across them and has the wanted logits along them; so it takes
    D >= E.
    """
    if shape.width < shape.experts:
        raise ValueError(f"a width of {shape.width} is less than {shape.experts} experts")
    generator = torch.Generator(device).manual_seed(seed)

    def normal(scale: float, *size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device) * scale

    expert_T = torch.repeat_interleave(torch.arange(shape.experts), torch.tensor(list(counts))).to(device)
    expert_T = expert_T[torch.randperm(shape.tokens, generator=generator, device=device)]
    rows_ED = torch.linalg.qr(normal(1, shape.width, shape.experts)).Q.t().contiguous()
    x_TD = normal(1, shape.tokens, shape.width)
    logits_TE = MARGIN * F.one_hot(expert_T, shape.experts)
    logits_TE = logits_TE + 0.3 * torch.rand(shape.tokens, shape.experts, generator=generator, device=device)
    x_TD += (logits_TE - x_TD @ rows_ED.t()) @ rows_ED
    layer = Layer(
        x_TD,
        rows_ED,
        normal(shape.width**-0.5, shape.experts, shape.width, shape.hidden),
        normal(0.1, shape.experts, shape.hidden),
        normal(shape.hidden**-0.5, shape.experts, shape.hidden, shape.width),
        normal(0.1, shape.experts, shape.width),
    ).to(dtype)
    router = layer.w_router_ED.detach().to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    return layer._replace(w_router_ED=router)


def route(layer: Layer) -> tuple[Tensor, Tensor]:
    """Logits' softmax, [T, E], and the expert of each token, int64[T, 1], as :class:`train.moe.MixtureOfExperts`."""
    probs_TE = F.linear(layer.x_TD.to(layer.w_router_ED.dtype), layer.w_router_ED).softmax(-1)
    # The first of equal ones.
    return probs_TE, probs_TE.argmax(dim=-1, keepdim=True)


def by_backend(layer: Layer, backend: Backend, capacity: int | None = None) -> Tensor:
    """What a model runs with ``moe_backend``. An expert takes its first ``capacity`` tokens, the others get zeros."""
    probs_TE, expert_TK = route(layer)
    prob_TK = probs_TE.gather(1, expert_TK)
    if capacity is not None:
        expert_TK = drop_over_capacity(expert_TK, probs_TE.shape[1], capacity)
    x_TD, _, *weights = layer
    w_up, b_up, w_down, b_down = weights
    return moe_experts(
        x_TD, w_up, b_up, w_down, b_down, expert_TK, prob_TK, backend=backend, may_drop=capacity is not None
    )


def fused(layer: Layer) -> Tensor:
    """The Triton kernels, router included."""
    from train.kernels.fused import ops

    x_TD, w_router_ED, *weights = layer
    w_up, b_up, w_down, b_down = weights
    routed = ops.choose(x_TD, w_router_ED, None, 1)
    return ops.moe(x_TD, w_up, b_up, w_down, b_down, routed.expert_TK, routed.prob_TK, routed=routed)


def trained(layer: Layer, dtype: torch.dtype) -> Tensor:
    """The layer as the trainer runs it: :class:`train.moe.MixtureOfExperts` with ``fused``, in training, parameters and
    x of float32, under autocast to ``dtype``. Its counts and losses are made too, and not used."""
    experts, width, hidden = layer.w_up_EDF.shape
    config = ModelConfig(d_model=width, heads=1, experts=experts, d_ff=hidden)
    with torch.device("meta"):
        module = MixtureOfExperts(config, "fused")
    names = ("router.weight", "experts.w_up", "experts.b_up", "experts.w_down", "experts.b_down")
    parameters: dict[str, Tensor] = dict(zip(names, layer[1:], strict=True))
    with torch.autocast(layer.x_TD.device.type, dtype):
        y_TD, _ = torch.func.functional_call(module, parameters, (layer.x_TD,))
    return y_TD


def einsum_dispatch(layer: Layer, capacity: int) -> Tensor:
    """Dispatch and combine as products with a mask [T, E, C], as GShard (arXiv 2006.16668, algorithm 1) and the
    DeepSpeed that LOLA trained with. An expert takes its first ``capacity`` tokens, the others get zeros."""
    x_TD = layer.x_TD
    probs_TE, expert_T1 = route(layer)
    chosen_TE = F.one_hot(expert_T1[:, 0], probs_TE.shape[1])
    place_T = ((chosen_TE.cumsum(0) - 1) * chosen_TE).sum(1)
    kept_TE = chosen_TE * (place_T < capacity)[:, None]
    place_TC = F.one_hot(place_T.clamp(max=capacity - 1), capacity).to(probs_TE.dtype)
    combine_TEC = torch.einsum("te,tc->tec", probs_TE * kept_TE, place_TC)
    dispatch_TEC = (combine_TEC > 0).to(x_TD.dtype)
    sent_ECD = torch.einsum("tec,td->ecd", dispatch_TEC, x_TD)
    hidden_ECF = F.gelu(torch.baddbmm(layer.b_up_EF[:, None], sent_ECD, layer.w_up_EDF), approximate="tanh")
    out_ECD = torch.baddbmm(layer.b_down_ED[:, None], hidden_ECF, layer.w_down_EFD)
    return torch.einsum("tec,ecd->td", combine_TEC.to(x_TD.dtype), out_ECD)


def scattermoe(layer: Layer) -> Tensor:
    """shawntan/scattermoe: gather and scatter inside its grouped products, activation and weights outside."""
    from scattermoe.parallel_experts import flatten_sort_count, parallel_linear  # pyright: ignore[reportMissingImports]

    x_TD = layer.x_TD
    probs_TE, expert_TK = route(layer)
    order = flatten_sort_count(expert_TK, probs_TE.shape[1])
    h = parallel_linear(x_TD, layer.w_up_EDF, 1, *order, expert_biases=layer.b_up_EF, grouped_out=True)
    return parallel_linear(
        F.gelu(h, approximate="tanh"), layer.w_down_EFD, 1, *order, expert_biases=layer.b_down_ED,
        gates=probs_TE.gather(1, expert_TK).to(x_TD.dtype), grouped_in=True,
    )  # fmt: skip


def megablocks(layer: Layer) -> Tensor:
    """databricks/megablocks, the way of its ``mlp_impl="grouped"``: sort, gather, grouped_gemm, scatter; no biases."""
    from megablocks import grouped_gemm_util as grouped_gemm  # pyright: ignore[reportMissingImports]
    from megablocks import ops  # pyright: ignore[reportMissingImports]

    probs_TE, expert_TK = route(layer)
    experts = probs_TE.shape[1]
    chosen: Any = expert_TK.flatten().int()
    bin_ids, indices = ops.sort(chosen, max(1, math.ceil(math.log2(experts))))
    counts = ops.histogram(chosen, experts)
    bins = ops.inclusive_cumsum(counts, 0)
    sizes = counts.cpu().long()
    rows = ops.gather(layer.x_TD, indices, bin_ids, bins, 1)
    h = F.gelu(grouped_gemm.ops.gmm(rows, layer.w_up_EDF, sizes), approximate="tanh")
    y = grouped_gemm.ops.gmm(h, layer.w_down_EFD, sizes)
    weights = probs_TE.gather(1, expert_TK).flatten().to(y.dtype)
    return ops.scatter(y, indices, bin_ids, weights, bins, 1)


def contenders(layer: Layer, counts: Sequence[int]) -> list[Contender]:
    """All of them; those that cannot run with these tensors say why."""
    tokens, experts = layer.x_TD.shape[0], layer.w_up_EDF.shape[0]
    capacity, most = lola_capacity(tokens, experts), max(1, *counts)
    dropped = sum(max(0, count - capacity) for count in counts)
    device, dtype = layer.x_TD.device.type, layer.x_TD.dtype

    def peer(name: str) -> str | None:
        if find_spec(name) is None:
            return "not installed"
        return None if device == "cuda" else "needs a GPU"

    rows_x = layer.x_TD.detach()
    return [
        Contender(
            "reference", partial(by_backend, backend="reference"), ours=True, written_here=True,
            note="a loop; the host waits",
        ),
        Contender(
            "grouped",
            partial(by_backend, backend="grouped"),
            ours=True,
            written_here=True,
            absent=grouped.unsupported(rows_x, layer.w_up_EDF, layer.w_down_EFD),
        ),
        Contender("fused", fused, ours=True, written_here=True, absent=fused_absent(layer)),
        Contender(
            AUTOCAST, partial(trained, dtype=dtype), ours=True, written_here=True, kept=torch.float32,
            absent=fused_absent(layer) or (None if dtype.itemsize == 2 else f"no autocast to {name_of(dtype)}"),
            note="the whole layer with float32 parameters under autocast; gradients of float32",
        ),
        Contender(
            "einsum dispatch", partial(einsum_dispatch, capacity=capacity), written_here=True, capacity=capacity,
            note=f"capacity factor 1.0 as LOLA: {capacity:,} tokens an expert, {dropped:,} of {tokens:,} dropped",
        ),
        Contender(
            "einsum, dropless", partial(einsum_dispatch, capacity=most), written_here=True,
            note=f"capacity {most:,}, nothing dropped",
        ),
        Contender("scattermoe", scattermoe, absent=peer("scattermoe")),
        Contender("megablocks", megablocks, biases=False, absent=peer("megablocks"), note="no biases; the host waits"),
    ]  # fmt: skip


def lola_capacity(tokens: int, experts: int) -> int:
    """Most tokens of an expert where LOLA was trained: capacity factor 1.0, four at least."""
    return expert_capacity(tokens, experts, 1.0, 4)


def name_of(dtype: torch.dtype) -> str:
    """Its name without ``torch.``."""
    return str(dtype).removeprefix("torch.")


def fused_absent(layer: Layer) -> str | None:
    """Why the fused kernels cannot run here, or None."""
    if find_spec("triton") is None:
        return "triton is not installed"
    from train.kernels.fused import ops

    return ops.unsupported(layer.x_TD, layer.w_up_EDF)
