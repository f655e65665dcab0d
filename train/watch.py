"""What goes wrong in a run and should be seen: losses that are not finite, spikes, experts that no token chooses.

In: what each step saw. Out: why an update should be left out, warnings, counts. All of it is a function of the steps
before, and its state is plain values that a checkpoint keeps.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from train.step import not_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lola_data.train_config import TrainConfig

_HISTORY, _ENOUGH = 100, 20
"""Losses that a spike is measured against, and the fewest that say something."""
COLLAPSED = 0.9
"""Share of a layer's choices with one expert from which its router has collapsed."""


class Watch:
    """Keeps an eye on the steps of a run.

    Args:
        config: ``spike``, ``dead_steps`` and the shape of the model.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.losses: deque[float] = deque(maxlen=_HISTORY)
        self.idle_LE: NDArray[np.int64] = np.zeros((len(config.model.moe_layers), config.model.experts), np.int64)
        """Steps since a token chose each expert."""
        self.collapsed_L: NDArray[np.int64] = np.zeros(len(config.model.moe_layers), np.int64)
        """Steps in a row in which one expert took nearly all."""

    def judge(self, loss: float, norm: float) -> str:
        """Why the update of a step of this loss and gradient norm should be left out; empty if it should not."""
        if said := not_finite(loss, norm):
            return said
        if self.config.spike is None or len(self.losses) < _ENOUGH:
            return ""
        mean, deviation = float(np.mean(self.losses)), float(np.std(self.losses))
        if loss <= mean + self.config.spike * deviation:
            return ""
        return f"loss {loss:.4f} is above {mean:.4f} by more than {self.config.spike:g} x {deviation:.4f}"

    def saw(self, loss: float, load_LE: NDArray[np.float32]) -> list[str]:
        """Take in a step; what a person should be warned of.

        Args:
            loss: of the step, if its update was made.
            load_LE: share of choices by MoE layer and expert.
        """
        if math.isfinite(loss):
            self.losses.append(loss)
        if not load_LE.size or self.config.model.experts == 1:
            return []
        self.idle_LE = np.where(load_LE > 0, 0, self.idle_LE + 1)
        nearly_all = load_LE.max(1) >= COLLAPSED / self.config.model.top_k
        self.collapsed_L = np.where(nearly_all, self.collapsed_L + 1, 0)
        steps, layers = self.config.dead_steps, self.config.model.moe_layers
        if not steps:
            return []
        found = [
            f"block {layers[layer]}: no token has chosen expert {', '.join(map(str, np.flatnonzero(idle == steps)))} "
            f"for {steps:,} steps; raise model.balance_loss or set model.router_bias_rate"
            for layer, idle in enumerate(self.idle_LE)
            if (idle == steps).any()
        ]
        found += [
            f"block {layers[layer]}: the router has collapsed: for {steps:,} steps expert "
            f"{int(load_LE[layer].argmax())} took {load_LE[layer].max():.0%} of all choices; raise model.balance_loss"
            for layer in np.flatnonzero(self.collapsed_L == steps)
        ]
        return found

    def dead(self) -> dict[str, int]:
        """Experts by block that no token has chosen for ``dead_steps`` steps."""
        steps = self.config.dead_steps
        counts = (self.idle_LE >= steps).sum(1) if steps else np.zeros(len(self.idle_LE), np.int64)
        return {str(layer): int(count) for layer, count in zip(self.config.model.moe_layers, counts, strict=True)}

    def state(self) -> dict[str, Any]:
        """Plain values that :meth:`restore` takes back."""
        return {"losses": list(self.losses), "idle": self.idle_LE.tolist(), "collapsed": self.collapsed_L.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the state of a checkpoint."""
        self.losses.extend(state["losses"])
        self.idle_LE = np.array(state["idle"], np.int64).reshape(self.idle_LE.shape)
        self.collapsed_L = np.array(state["collapsed"], np.int64)


def spread_of_load(load_LE: NDArray[np.float32]) -> dict[str, list[float]]:
    """How evenly the experts of each MoE layer are used: ``entropy``, that of the load over log E, 1 at uniform load;
    ``max_load`` and ``min_load``, the largest and the smallest share times E, 1 at uniform load."""
    experts = load_LE.shape[1]
    shares = load_LE.astype(np.float64)
    logs = np.log(np.where(shares > 0, shares, 1.0))
    entropy = -(shares * logs).sum(1) / math.log(experts) if experts > 1 else np.ones(len(shares))
    return {
        "entropy": [round(x, 6) for x in entropy.tolist()],
        "max_load": [round(x, 6) for x in (shares.max(1) * experts).tolist()],
        "min_load": [round(x, 6) for x in (shares.min(1) * experts).tolist()],
    }
