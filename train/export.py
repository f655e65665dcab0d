"""A trained run as files for other programs: safetensors weights, ``config.json``, the tokenizer, how to load them.

Names and shapes of tensors are those of LOLA's model class for Hugging Face transformers (``LOLALMHeadModel``, model
type ``lola_v1``, of dice-group/LOLA ``lola_ws/lola_hf_model``), which is GPT-2's but for the blocks with experts:

    transformer.wte.weight [V, D]   transformer.wpe.weight [S, D]   transformer.ln_f.{weight,bias} [D]
    transformer.h.N.ln_1.{weight,bias}, transformer.h.N.ln_2.{weight,bias}
    transformer.h.N.attn.c_attn.{weight [D, 3 D], bias}, transformer.h.N.attn.c_proj.{weight [D, D], bias}
    transformer.h.N.mlp.c_fc.{weight [D, F], bias}, transformer.h.N.mlp.c_proj.{weight [F, D], bias}
    transformer.h.N.moe.gate.weight [E, D], transformer.h.N.moe.experts.K.c_fc and .c_proj as those of mlp

Weights of linear layers other than the gate stand with the input axis first, as GPT-2's do: y = x W + b. The output
layer is ``transformer.wte`` and not stored again. V is the number of pieces: the rows that fill the embedding table up
to a round size stand for no token and stay behind.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lola_data.errors import TrainingError
from lola_data.storage import sync_folder
from train.model import Block, FeedForward
from train.moe import MixtureOfExperts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from train.generate import LoadedRun

Dtype = Literal["float32", "bfloat16"]

SHARD_BYTES = 5_000_000_000
"""Most bytes of one file of weights, as is usual on the Hugging Face hub; a larger tensor has a file of its own."""
_MODEL_TYPE = "lola_v1"


@dataclass(frozen=True)
class _Exported:
    """A tensor to store: made when its file is written, so that no second copy of all weights is held."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def export_run(
    run: LoadedRun, out: str | Path, *, dtype: Dtype = "float32", force: bool = False, shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Write the export; the folder is there whole, or as it was before.

    Args:
        run: the weights and the tokenizer.
        out: folder to make.
        dtype: of all weights stored.
        force: replace an export that is there.
        shard_bytes: most bytes of one file of weights.

    Returns:
        The files, sorted.

    Raises:
        TrainingError: ``out`` is there and not to be replaced, or is no export, or the disk cannot be written to.
    """
    out = Path(out)
    _check_target(out, force)
    temporary, old = (out.with_name(f".{out.name}.{ending}") for ending in ("tmp", "old"))
    try:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write_weights(run, temporary, getattr(torch, dtype), shard_bytes)
        for name, value in (("config.json", _config(run, dtype)), ("generation_config.json", _generation(run))):
            (temporary / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
        shutil.copyfile(run.tokenizer_path, temporary / "tokenizer.model")
        (temporary / "README.md").write_text(_readme(run, dtype), "utf-8")
        sync_folder(temporary)
        if out.exists():
            out.rename(old)
        temporary.rename(out)
        sync_folder(out.parent)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not out.exists():
            old.rename(out)
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise TrainingError(
                f"{out}: cannot be written: {error}; free space or fix the rights of the folder"
            ) from error
        raise
    return sorted(path for path in out.iterdir())


def _check_target(out: Path, force: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise TrainingError(f"{out}: something else has that name; name a folder that is not there yet")
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        is_export = json.loads((out / "config.json").read_text("utf-8")).get("model_type") == _MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        is_export = False
    if not is_export:
        raise TrainingError(f"{out}: a folder with other things in it; name one that is not there yet")
    if not force:
        raise TrainingError(f"{out}: there is an export already; give --force to replace it, or name another folder")


def exported_tensors(run: LoadedRun) -> Iterator[_Exported]:
    """All tensors of the export, in the order of the model."""
    model = run.model
    yield _as_it_is("transformer.wte.weight", model.tokens.weight[: model.vocab_size])
    yield _as_it_is("transformer.wpe.weight", model.positions.weight)
    for number, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        start = f"transformer.h.{number}"
        yield from _norm(f"{start}.ln_1", block.norm1)
        yield from _linear(f"{start}.attn.c_attn", block.attention.qkv)
        yield from _linear(f"{start}.attn.c_proj", block.attention.proj)
        yield from _norm(f"{start}.ln_2", block.norm2)
        layer = block.feed_forward
        if isinstance(layer, FeedForward):
            yield from _linear(f"{start}.mlp.c_fc", layer.up)
            yield from _linear(f"{start}.mlp.c_proj", layer.down)
            continue
        assert isinstance(layer, MixtureOfExperts)
        yield _as_it_is(f"{start}.moe.gate.weight", layer.router.weight)
        if layer.bias_E is not None:
            yield _as_it_is(f"{start}.moe.gate.choice_bias", layer.bias_E)
        experts = layer.experts
        for expert in range(experts.w_up.shape[0]):
            inner = f"{start}.moe.experts.{expert}"
            yield _as_it_is(f"{inner}.c_fc.weight", experts.w_up[expert])
            yield _as_it_is(f"{inner}.c_fc.bias", experts.b_up[expert])
            yield _as_it_is(f"{inner}.c_proj.weight", experts.w_down[expert])
            yield _as_it_is(f"{inner}.c_proj.bias", experts.b_down[expert])
    yield from _norm("transformer.ln_f", model.norm)


def _as_it_is(name: str, tensor: Tensor) -> _Exported:
    return _Exported(name, tuple(tensor.shape), lambda: tensor)


def _norm(name: str, norm: nn.LayerNorm) -> Iterator[_Exported]:
    yield _as_it_is(f"{name}.weight", norm.weight)
    yield _as_it_is(f"{name}.bias", norm.bias)


def _linear(name: str, linear: nn.Linear) -> Iterator[_Exported]:
    weight_OI = linear.weight
    yield _Exported(f"{name}.weight", tuple(weight_OI.t().shape), lambda: weight_OI.t())
    yield _as_it_is(f"{name}.bias", linear.bias)


def _write_weights(run: LoadedRun, folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    from safetensors.torch import save_file

    groups: list[list[_Exported]] = []
    room = 0
    total = 0
    for tensor in exported_tensors(run):
        size = dtype.itemsize
        for length in tensor.shape:
            size *= length
        if not groups or size > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(tensor)
        room -= size
        total += size
    where: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        made = {tensor.name: tensor.make().detach().to("cpu", dtype).contiguous().clone() for tensor in group}
        save_file(made, folder / name, metadata={"format": "pt"})
        where |= dict.fromkeys(made, name)
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8"
        )


def _config(run: LoadedRun, dtype: Dtype) -> dict[str, Any]:
    """Keys of LOLA's ``LOLAConfig``; what it has no key for stands under ``lola_data``."""
    model, shape = run.model, run.model.config
    return {
        "model_type": _MODEL_TYPE,
        "architectures": ["LOLALMHeadModel"],
        "vocab_size": model.vocab_size,
        "n_positions": shape.seq_len,
        "n_embd": shape.d_model,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_inner": shape.hidden,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": model.norm.eps,
        "initializer_range": shape.init_std,
        "embd_pdrop": shape.dropout,
        "attn_pdrop": shape.dropout,
        "resid_pdrop": shape.dropout,
        "num_experts": shape.experts,
        "topk": shape.top_k,
        "router_aux_loss_coef": shape.balance_loss,
        "bos_token_id": model.eod_id,
        "eos_token_id": model.eod_id,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        "lola_data": {
            "moe_layers": shape.moe_layers,
            "reset_at_eod": shape.reset_at_eod,
            "router_dtype": "float32",
            "step": run.step,
            "tokenizer_sha256": run.tokenizer_sha256,
        },
    }


def _generation(run: LoadedRun) -> dict[str, Any]:
    eod = run.model.eod_id
    return {"bos_token_id": eod, "eos_token_id": eod, "pad_token_id": eod, "do_sample": True, "temperature": 0.8}


def foreign_to_lola(run: LoadedRun) -> list[str]:
    """What of this model LOLA's class cannot express: it has experts in every second block, and no bias of choices."""
    shape = run.model.config
    found = []
    if shape.moe_layers != list(range(1, shape.layers, 2)):
        found.append(f"its blocks with experts are {shape.moe_layers}, where LOLA's class has them in 1, 3, 5, ...")
    if any(getattr(block.feed_forward, "bias_E", None) is not None for block in run.model.blocks):
        found.append("its experts are chosen by probability plus `moe.gate.choice_bias`, which LOLA's class has not")
    return found


def _readme(run: LoadedRun, dtype: Dtype) -> str:
    shape = run.model.config
    differences = foreign_to_lola(run)
    fits = (
        "Names and shapes of tensors, and the keys of config.json, are those of LOLA's class for transformers\n"
        "(`LOLALMHeadModel`, dice-group/LOLA, `lola_ws/lola_hf_model`).\n"
        if not differences
        else "Names and shapes follow LOLA's class for transformers, which cannot run this model as it is: "
        + "; ".join(differences)
        + ".\n"
    )
    apart = (
        "The model was trained on documents that do not see each other: begin every text with the end-of-document\n"
        "token, at position 0, and put one document in a row.\n"
        if shape.reset_at_eod
        else "Begin every text with the end-of-document token.\n"
    )
    return f"""# A mixture-of-experts language model, exported at step {run.step:,}

{shape.layers} blocks, width {shape.d_model}, {shape.heads} heads, {shape.seq_len} learned positions, \
{run.model.vocab_size:,} pieces, {dtype}.
Blocks with {shape.experts} experts, {shape.top_k} of them on a token: {shape.moe_layers}.

{fits}
{apart}The token has the id {run.model.eod_id} (`bos_token_id` and `eos_token_id`). No token is dropped.

    x    = wte[tokens] + wpe[0, 1, 2, ...]
    x    = x + attention(ln_1(x)); x = x + mlp or moe(ln_2(x)), block by block
    mlp  = gelu_tanh(x c_fc.weight + c_fc.bias) c_proj.weight + c_proj.bias
    moe  = sum of p[k] mlp_k(x) over the {shape.top_k} largest p, which are not made to sum to 1,
           of p = softmax(gate.weight x), in float32
    logits = wte ln_f(x)

Text becomes ids by `tokenizer.model` (SentencePiece). SentencePiece writes U+2581 for a space: a U+2581 of the text
itself is the three byte pieces <0xE2>, <0x96>, <0x81>.

    from safetensors.torch import load_file
    import sentencepiece

    weights = load_file("model.safetensors")
    tokenizer = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
    ids = [{run.model.eod_id}, *tokenizer.encode("...")]
"""
