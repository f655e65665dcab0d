from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from lola_data.errors import TrainingError
from train.export import export_run, foreign_to_lola
from train.generate import LoadedRun
from train.model import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from lola_data.train_config import TrainConfig

EOD, VOCAB = 1, 50


def run_of(tiny: Callable[..., TrainConfig], tmp_path: Path, **model: Any) -> LoadedRun:
    """A run of random weights, biases and norms too, with a file for its tokenizer."""
    shape = {"init_std": 0.3, "layers": 4, "vocab_multiple": 64, **model}
    decoder = Decoder(tiny(model=shape).model, VOCAB, EOD)
    decoder.initialise(2)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
        for name, buffer in decoder.named_buffers():
            if name.endswith("bias_E"):
                buffer.copy_(torch.linspace(-0.3, 0.3, buffer.numel()))
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    return LoadedRun(decoder.eval(), None, 12, tmp_path / "tokenizer.model", "ab" * 32)


def logits_by_loops(folder: Path, tokens: list[int]) -> Tensor:
    """float64[S, V] from the exported files alone, a position, head and expert at a time."""
    config = json.loads((folder / "config.json").read_text())
    w: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        w |= {name: tensor.double() for name, tensor in load_file(file).items()}
    width, heads = config["n_embd"], config["n_head"]
    size = width // heads

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean()
        scale = torch.sqrt((centred**2).mean() + config["layer_norm_epsilon"])
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def mlp(x: Tensor, name: str) -> Tensor:
        h = linear(x, f"{name}.c_fc")
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        return linear(h, f"{name}.c_proj")

    def moe(x: Tensor, name: str) -> Tensor:
        scores = w[f"{name}.gate.weight"] @ x
        shares = torch.exp(scores) / torch.exp(scores).sum()
        bias = w.get(f"{name}.gate.choice_bias", torch.zeros(len(shares)))
        ranked = sorted(range(len(shares)), key=lambda e: -(shares[e] + bias[e]).item())
        chosen = ranked[: config["topk"]]
        return sum((shares[e] * mlp(x, f"{name}.experts.{e}") for e in chosen), torch.zeros(width))

    xs = [w["transformer.wte.weight"][token] + w["transformer.wpe.weight"][at] for at, token in enumerate(tokens)]
    for number in range(config["n_layer"]):
        name = f"transformer.h.{number}"
        qkv = [linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn") for x in xs]
        for at in range(len(xs)):
            seen = []
            for head in range(heads):
                q, k, v = (slice(part * width + head * size, part * width + (head + 1) * size) for part in range(3))
                scores = torch.stack([qkv[at][q] @ qkv[before][k] / math.sqrt(size) for before in range(at + 1)])
                shares = torch.exp(scores - scores.max())
                values = torch.stack([qkv[before][v] for before in range(at + 1)])
                seen.append((shares / shares.sum()) @ values)
            xs[at] = xs[at] + linear(torch.cat(seen), f"{name}.attn.c_proj")
        inner = moe if f"{name}.moe.gate.weight" in w else mlp
        kind = "moe" if inner is moe else "mlp"
        xs = [x + inner(norm(x, f"{name}.ln_2"), f"{name}.{kind}") for x in xs]
    return torch.stack([w["transformer.wte.weight"] @ norm(x, "transformer.ln_f") for x in xs])


@pytest.mark.parametrize(
    "shape", [{}, {"top_k": 2}, {"moe_every": 0}, {"moe_every": 3, "d_ff": 24}, {"router_bias_rate": 0.001}],
    ids=["lola", "two experts", "dense", "every third", "bias"],
)  # fmt: skip
def test_loops_over_the_files_give_the_trainers_logits(
    tiny: Callable[..., TrainConfig], tmp_path: Path, shape: dict[str, Any]
):
    run = run_of(tiny, tmp_path, **shape)
    export_run(run, tmp_path / "out")
    tokens = [EOD, 5, 17, 17, 49, 2, 30, 8, 44, 3, 21, 9]
    with torch.no_grad():
        expected = run.model(torch.tensor([tokens])).logits_BSV[0, :, :VOCAB]
    torch.testing.assert_close(logits_by_loops(tmp_path / "out", tokens).float(), expected, rtol=1e-5, atol=1e-5)


def test_names_and_shapes_are_those_of_lola(tiny: Callable[..., TrainConfig], tmp_path: Path):
    """As its class spells them: GPT-2's, with moe.gate and moe.experts in blocks 1, 3, ..."""
    export_run(run_of(tiny, tmp_path), tmp_path / "out")
    found = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items()}
    d, f, e, s = 16, 64, 4, 16
    ends = {"c_fc.weight": (d, f), "c_fc.bias": (f,), "c_proj.weight": (f, d), "c_proj.bias": (d,)}
    expected: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (VOCAB, d), "transformer.wpe.weight": (s, d)}
    expected |= {f"transformer.ln_f.{part}": (d,) for part in ("weight", "bias")}
    for n in range(4):
        h = f"transformer.h.{n}"
        expected |= {f"{h}.{norm}.{part}": (d,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
        expected |= {f"{h}.attn.c_attn.weight": (d, 3 * d), f"{h}.attn.c_attn.bias": (3 * d,)}
        expected |= {f"{h}.attn.c_proj.weight": (d, d), f"{h}.attn.c_proj.bias": (d,)}
        if n % 2:
            expected[f"{h}.moe.gate.weight"] = (e, d)
            expected |= {f"{h}.moe.experts.{k}.{end}": shape for k in range(e) for end, shape in ends.items()}
        else:
            expected |= {f"{h}.mlp.{end}": shape for end, shape in ends.items()}
    assert found == expected
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["tie_word_embeddings"], config["eos_token_id"]) == ("lola_v1", True, EOD)


def test_files_are_split_and_the_index_finds_each_tensor(tiny: Callable[..., TrainConfig], tmp_path: Path):
    run = run_of(tiny, tmp_path)
    whole = export_run(run, tmp_path / "whole")
    export_run(run, tmp_path / "split", shard_bytes=10_000)
    index = json.loads((tmp_path / "split" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "split").glob("model-*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    together: dict[str, Tensor] = {}
    for file in files:
        tensors = load_file(file)
        assert {index["weight_map"][name] for name in tensors} == {file.name}
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 10_000
        together |= tensors
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    assert together.keys() == expected.keys()
    assert all(torch.equal(together[name], expected[name]) for name in expected)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected.values())
    assert [path.name for path in whole] == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.model",
    ]  # fmt: skip


def test_bfloat16_is_the_weights_rounded(tiny: Callable[..., TrainConfig], tmp_path: Path):
    run = run_of(tiny, tmp_path)
    export_run(run, tmp_path / "full")
    export_run(run, tmp_path / "half", dtype="bfloat16")
    full, half = (load_file(tmp_path / name / "model.safetensors") for name in ("full", "half"))
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in full.items())
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_the_same_run_gives_the_same_bytes(tiny: Callable[..., TrainConfig], tmp_path: Path):
    run = run_of(tiny, tmp_path)
    first, second = (export_run(run, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_is_there_is_not_lost(tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, out = run_of(tiny, tmp_path), tmp_path / "out"
    out.mkdir()
    export_run(run, out)  # an empty folder is nobody's
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(TrainingError, match="give --force"):
        export_run(run, out)

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.export.shutil.copyfile", fails)
    with pytest.raises(TrainingError, match="No space left"):
        export_run(run, out, force=True, dtype="bfloat16")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    export_run(run, out, force=True, dtype="bfloat16")
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(TrainingError, match="other things in it"):
        export_run(run, mine, force=True)
    with pytest.raises(TrainingError, match="something else has that name"):
        export_run(run, mine / "thesis.txt", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out", "tokenizer.model"]


def test_what_lolas_class_cannot_do_is_said(tiny: Callable[..., TrainConfig], tmp_path: Path):
    assert foreign_to_lola(run_of(tiny, tmp_path)) == []
    assert "[2]" in foreign_to_lola(run_of(tiny, tmp_path, moe_every=3))[0]
    other = run_of(tiny, tmp_path, router_bias_rate=0.001)
    assert "choice_bias" in foreign_to_lola(other)[0]
    export_run(other, tmp_path / "out")
    assert "choice_bias" in (tmp_path / "out" / "README.md").read_text()
