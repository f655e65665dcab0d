"""LOLA's decoder: GPT-2 blocks (pre-LN, learned positions, tanh GELU, biases, tied embeddings), some with experts.

Facts: arXiv 2409.11272 and the public code of its model. Legend: B sequences, S positions, D model width, H heads,
T = B * S tokens, V embedding rows, L MoE layers, E experts.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint

from train.kernels.cross_entropy import linear_cross_entropy
from train.moe import Backend, MixtureOfExperts, RouterStats, local, own_part
from train.permutation import key_of

if TYPE_CHECKING:
    from torch import Tensor

    from lola_data.train_config import ModelConfig

IGNORE = -100
"""Target of a position that is not scored."""


class DecoderOutput(NamedTuple):
    """What one forward pass gives.

    Attributes:
        loss: float32 scalar with gradient, mean negative log likelihood of the targets in nats; None without targets.
        nll_BS: float32[B, S], that of each target, without gradient, 0 where not scored; None without targets.
        logits_BSV: float[B, S, V]; None with targets.
        routing: one record an MoE layer, from the first to the last.
    """

    loss: Tensor | None
    nll_BS: Tensor | None
    logits_BSV: Tensor | None
    routing: list[RouterStats]


class KeyValues:
    """Keys and values of the tokens that an attention layer has seen, float[B, H, S, D / H] each; none at first.

    Room is taken for twice as many as there are, so that a token costs no copy of all before it.
    """

    def __init__(self) -> None:
        self._room: tuple[Tensor, Tensor] | None = None
        self._length = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of further tokens; returns all."""
        if self._room is None:
            self._room = keys, values
        else:
            before, self._length = self._length, self._length + keys.shape[2]
            if self._length > self._room[0].shape[2]:
                shape = (*keys.shape[:2], 2 * self._length, keys.shape[3])
                larger = keys.new_empty(shape), values.new_empty(shape)
                for room, old in zip(larger, self._room, strict=True):
                    room[:, :, :before] = old[:, :, :before]
                self._room = larger
            for room, added in zip(self._room, (keys, values), strict=True):
                room[:, :, before : self._length] = added
            keys, values = (room[:, :, : self._length] for room in self._room)
        self._length = keys.shape[2]
        return keys, values

    def keep(self, rows: Tensor, length: int) -> None:
        """Drop all sequences but ``rows``, int64[B], and all tokens but the last ``length``."""
        if self._room is not None:
            keys, values = (room[rows, :, self._length - length : self._length] for room in self._room)
            self._room, self._length = (keys, values), length

    def __len__(self) -> int:
        return self._length


class Attention(nn.Module):
    """Causal self-attention, through :func:`torch.nn.functional.scaled_dot_product_attention`, or flex attention where
    documents part it on a GPU: that skips the blocks of a mask in which nothing is looked at."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, x_BSD: Tensor, mask: Tensor | BlockMask | None, seen: KeyValues | None = None) -> Tensor:
        """``mask``: bool[B, 1, S, S], true where a query may look, or the same for
        :func:`torch.nn.attention.flex_attention.flex_attention`; None is plain causal attention. With ``seen`` the
        tokens before are looked at too (the last axis of ``mask`` has them first), and S is 1 unless there are none;
        these are added to it."""
        q, k, v = (
            part.view(*part.shape[:2], self.heads, -1).transpose(1, 2)
            for part in self.qkv(x_BSD).split(x_BSD.shape[-1], dim=-1)
        )
        if seen is not None:
            k, v = seen.extend(k, v)
        if isinstance(mask, BlockMask):
            y = (flex_attention if x_BSD.device.type == "cpu" else _compiled_flex())(q, k, v, block_mask=mask)
            assert isinstance(y, torch.Tensor)
            return self.proj(y.transpose(1, 2).reshape(x_BSD.shape))
        dropout = self.dropout if self.training else 0.0
        causal = mask is None and q.shape[2] > 1  # one token may look at all there are
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.proj(y.transpose(1, 2).reshape(x_BSD.shape))


class FeedForward(nn.Module):
    """The dense block: two linear layers around a tanh GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.hidden)
        self.down = nn.Linear(config.hidden, config.d_model)

    def forward(self, x_BSD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BSD), approximate="tanh"))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward or experts(norm(x))."""

    def __init__(self, config: ModelConfig, *, experts: bool, backend: Backend) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.feed_forward = MixtureOfExperts(config, backend) if experts else FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)
        self.recompute = False

    def forward(
        self,
        x_BSD: Tensor,
        mask: Tensor | BlockMask | None,
        load_E: Tensor | None = None,
        seen: KeyValues | None = None,
        key: Tensor | None = None,
    ) -> tuple[Tensor, RouterStats | None]:
        recompute = self.recompute and torch.is_grad_enabled()
        x_BSD = x_BSD + self.dropout(
            checkpoint(self._attend, x_BSD, mask, use_reentrant=False) if recompute else self._attend(x_BSD, mask, seen)
        )
        normed = self.norm2(x_BSD)
        if isinstance(self.feed_forward, MixtureOfExperts):
            y_TD, stats = self.feed_forward(normed.view(-1, normed.shape[-1]), load_E, key)
            return x_BSD + self.dropout(y_TD.view_as(x_BSD)), stats
        y_BSD = checkpoint(self.feed_forward, normed, use_reentrant=False) if recompute else self.feed_forward(normed)
        return x_BSD + self.dropout(y_BSD), None

    def _attend(self, x_BSD: Tensor, mask: Tensor | BlockMask | None, seen: KeyValues | None = None) -> Tensor:
        return self.attention(self.norm1(x_BSD), mask, seen)

    def recompute_activations(self) -> None:
        """Keep what enters attention and feed-forward, and make the rest again in the backward pass. The router's
        choice is kept, since one made again could be another (a tie, another rounding)."""
        self.recompute = True
        if isinstance(self.feed_forward, MixtureOfExperts):
            self.feed_forward.recompute = True


class Decoder(nn.Module):
    """The language model.

    Args:
        config: its shape.
        vocab_size: pieces of the tokenizer; the embedding has ``config.vocab_rows(vocab_size)`` rows.
        eod_id: id of the end-of-document token, which opens a new document where ``config.reset_at_eod``.
        backend: how experts are computed.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, eod_id: int, backend: Backend = "auto") -> None:
        super().__init__()
        self.config, self.vocab_size, self.eod_id = config, vocab_size, eod_id
        self.flex: bool | None = None
        """Whether documents are kept apart by flex attention or by a mask; None: flex on a GPU without dropout."""
        self.tokens = nn.Embedding(config.vocab_rows(vocab_size), config.d_model)
        self.positions = nn.Embedding(config.seq_len, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config, experts=layer in config.moe_layers, backend=backend) for layer in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.d_model)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fill all weights from ``seed``: normal with ``init_std``, projections into the residual stream divided by
        sqrt(2 * layers) as in GPT-2 and Megatron, biases 0, norms 1. Of a model that is spread over processes each
        fills its part, and no more than one parameter is whole at a time."""
        generator = torch.Generator().manual_seed(seed)
        for buffer in self.buffers():
            buffer.zero_()
        for name, parameter in self.named_parameters():
            if "norm" in name:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif is_bias(name):
                parameter.zero_()
            else:
                residual = name.endswith(("proj.weight", "down.weight", "w_down"))
                std = self.config.init_std / (math.sqrt(2 * self.config.layers) if residual else 1.0)
                # Drawn on the CPU so that the same seed gives the same weights on every device.
                drawn = torch.empty(parameter.shape, device="cpu").normal_(0.0, std, generator=generator)
                local(parameter).copy_(own_part(drawn, parameter))

    def forward(
        self,
        tokens_BS: Tensor,
        targets_BS: Tensor | None = None,
        load_LE: Tensor | None = None,
        *,
        key: int | None = None,
        routing_only: bool = False,
    ) -> DecoderOutput:
        """Logits of the next token, or with targets the negative log likelihood of each.

        Args:
            tokens_BS: int64[B, S], S at most ``config.seq_len``.
            targets_BS: int64[B, S]; -100 is not scored.
            load_LE: float[L, E], share of choices by MoE layer and expert for the balance loss; None: these tokens'.
            key: what the random order of dropped tokens hangs on.
            routing_only: give the routing and nothing else.
        """
        hidden_BSD, routing = self.trunk(tokens_BS, load_LE, key)
        if routing_only:
            return DecoderOutput(None, None, None, routing)
        if targets_BS is None:
            return DecoderOutput(None, None, F.linear(hidden_BSD, self.tokens.weight), routing)
        loss, nll_T = linear_cross_entropy(
            hidden_BSD.flatten(0, 1), self.tokens.weight, targets_BS.flatten(), ignore=IGNORE
        )
        return DecoderOutput(loss, nll_T.view_as(targets_BS), None, routing)

    def trunk(
        self, tokens_BS: Tensor, load_LE: Tensor | None = None, key: int | None = None
    ) -> tuple[Tensor, list[RouterStats]]:
        """All but the output layer: normed hidden states float[B, S, D], and the routing. Arguments as ``forward``."""
        positions, mask = self.document_layout(tokens_BS)
        x_BSD = self.dropout(self.tokens(tokens_BS) + self.positions(positions))
        routing: list[RouterStats] = []
        for block in self.blocks:
            load_E = load_LE[len(routing)] if load_LE is not None and len(routing) < len(load_LE) else None
            key_of_layer = None
            if key is not None and self.config.capacity_order == "random":
                key_of_layer = torch.tensor(key_of("drop", key, len(routing)) >> 1, device=tokens_BS.device)
            x_BSD, stats = block(x_BSD, mask, load_E, None, key_of_layer)
            if stats is not None:
                routing.append(stats)
        return self.norm(x_BSD), routing

    def next_logits(self, tokens_BS: Tensor, seen: list[KeyValues], lengths_B: Tensor | None = None) -> Tensor:
        """Logits of the token after ``tokens_BS``, float[B, V]: the last of :meth:`forward`, up to rounding.

        Args:
            tokens_BS: int64[B, S], one document or its beginning in each row; S is 1 once ``seen`` holds tokens.
            seen: one a block; the tokens before these, to which these are added. At most ``config.seq_len`` in all.
            lengths_B: int64[B], tokens of each row, those in ``seen`` among them, where they differ: a shorter row
                stands at the right, behind ids that are not looked at. None: all rows are full.
        """
        before, added = len(seen[0]), tokens_BS.shape[1]
        assert added == 1 or not before
        index_S = torch.arange(before, before + added, device=tokens_BS.device)
        if lengths_B is None:
            positions, mask = index_S, None
        else:
            fill_B1 = (before + added - lengths_B)[:, None]
            positions = (index_S - fill_B1).clamp(min=0)
            keys_K = torch.arange(before + added, device=tokens_BS.device)
            # What fills a row looks at itself: at nothing at all would be 0 / 0, which no mask takes back.
            own_SK, back_SK = index_S[:, None] == keys_K, index_S[:, None] >= keys_K
            mask = (own_SK | (back_SK & (keys_K >= fill_B1[:, :, None])))[:, None]
        x_BSD = self.tokens(tokens_BS) + self.positions(positions)
        for block, keys_and_values in zip(self.blocks, seen, strict=True):
            x_BSD, _ = block(x_BSD, mask, None, keys_and_values)
        return F.linear(self.norm(x_BSD[:, -1]), self.tokens.weight)

    def document_layout(self, tokens_BS: Tensor) -> tuple[Tensor, Tensor | BlockMask | None]:
        """Positions int64[B or 1, S] and attention mask bool[B, 1, S, S], or a block mask of it (None: plain causal).

        With ``reset_at_eod`` an EOD token belongs to the document that it opens: there it stands at position 0 and is
        what the first token is predicted from, so nothing of one document reaches another.
        """
        length = tokens_BS.shape[1]
        index_S = torch.arange(length, device=tokens_BS.device)
        if not self.config.reset_at_eod:
            return index_S[None], None
        opens_BS = tokens_BS == self.eod_id
        start_BS = torch.where(opens_BS, index_S, 0).cummax(1).values
        document_BS = opens_BS.cumsum(1)
        if self.flex is None:
            # Flex attention has no dropout of its own.
            flex = tokens_BS.is_cuda and not (self.training and self.config.dropout)
        else:
            flex = self.flex
        if flex:

            def within(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                return (document_BS[b, q] == document_BS[b, k]) & (q >= k)

            mask = create_block_mask(within, len(tokens_BS), None, length, length, device=tokens_BS.device.type)
            return index_S - start_BS, mask
        same = document_BS[:, None, :, None] == document_BS[:, None, None, :]
        return index_S - start_BS, same & (index_S[:, None] >= index_S)


@lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    """Without compilation flex attention would make the whole table of scores."""
    return torch.compile(flex_attention)


def is_bias(name: str) -> bool:
    """Whether the parameter ``name`` of a :class:`Decoder` is a bias (those of experts are matrices, one row each)."""
    return name.endswith(("bias", "b_up", "b_down"))


def decays(name: str) -> bool:
    """Whether weight decay applies: to weight matrices and embeddings, not to biases and norms (as in Megatron)."""
    return not is_bias(name) and "norm" not in name


def count_parameters(config: ModelConfig, vocab_size: int) -> tuple[int, int]:
    """Parameters in all, and those that work on one token (``top_k`` of the experts), tied embeddings counted once."""
    with torch.device("meta"):
        model = Decoder(config, vocab_size, eod_id=0)
    total = sum(parameter.numel() for parameter in model.parameters())
    experts = sum(p.numel() for name, p in model.named_parameters() if name.rpartition(".")[2] in _EXPERT_WEIGHTS)
    return total, total - experts + experts * config.top_k // config.experts


_EXPERT_WEIGHTS = ("w_up", "b_up", "w_down", "b_down")
