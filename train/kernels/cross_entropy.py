"""The output layer and its cross-entropy in one pass over chunks of rows, so that no table of T x V logits is kept.

The gradient of the mean loss is made while a chunk's probabilities are at hand (as in Liger-Kernel, arXiv 2410.10989):
for LOLA's 16,384 tokens and 100,096 rows that saves two float32 tables of 6.6 GB, and on a CPU the chunk stays in the
cache. Legend: T tokens, D model width, V embedding rows, C rows of a chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**28}
"""Logits of a chunk: 4 MB on a CPU, 1 GB on a GPU, as float32."""


def linear_cross_entropy(
    hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, *, ignore: int = -100
) -> tuple[Tensor, Tensor]:
    """Mean over scored tokens and each token's -log softmax(hidden @ weight^T)[target], in nats.

    Args:
        hidden_TD: float[T, D].
        weight_VD: float[V, D].
        targets_T: int64[T]; ``ignore`` is not scored.
        ignore: see there.

    Returns:
        The mean, a scalar with gradient (0 if nothing is scored), and float[T] without one, 0 where not scored. Both
        are float32, or float64 for float64 inputs.
    """
    kind = hidden_TD.device.type
    if torch.is_autocast_enabled(kind):
        hidden_TD = hidden_TD.to(torch.get_autocast_dtype(kind))
    with torch.autocast(kind, enabled=False):
        return _LinearCrossEntropy.apply(hidden_TD, weight_VD, targets_T, ignore)  # type: ignore[return-value]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, ignore: int
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        wide = torch.promote_types(hidden_TD.dtype, torch.float32)
        weight = weight_VD.to(hidden_TD.dtype)
        scored_T = targets_T != ignore
        scale = 1.0 / scored_T.sum().clamp(min=1).to(wide)
        nll_T = hidden_TD.new_zeros(targets_T.shape, dtype=wide)
        grad_hidden = torch.empty_like(hidden_TD) if need_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=wide) if need_weight else None
        rows = max(1, _CHUNK_ELEMENTS.get(hidden_TD.device.type, 2**20) // weight.shape[0])
        for first in range(0, targets_T.numel(), rows):
            chunk = slice(first, first + rows)
            hidden_CD, scored_C = hidden_TD[chunk], scored_T[chunk]
            target_C1 = targets_T[chunk].where(scored_C, 0)[:, None]
            logits_CV = (hidden_CD @ weight.t()).to(wide)
            norm_C1 = logits_CV.logsumexp(-1, keepdim=True)
            nll_T[chunk] = (norm_C1 - logits_CV.gather(1, target_C1)).squeeze(1).where(scored_C, 0.0)
            if not (need_hidden or need_weight):
                continue
            grad_CV = logits_CV.sub_(norm_C1).exp_()
            grad_CV.scatter_add_(1, target_C1, grad_CV.new_full(target_C1.shape, -1.0))
            grad_CV.mul_((scored_C * scale)[:, None])
            grad_CV = grad_CV.to(hidden_TD.dtype)
            if grad_hidden is not None:
                torch.mm(grad_CV, weight, out=grad_hidden[chunk])
            if grad_weight is not None and grad_CV.dtype == wide:
                grad_weight.addmm_(grad_CV.t(), hidden_CD)
            elif grad_weight is not None:
                grad_weight += grad_CV.t() @ hidden_CD
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(nll_T)
        return nll_T.sum() * scale, nll_T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grads[0].to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * grads[0].to(grad_weight.dtype),
            None,
            None,
        )
