from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from lola_data.errors import TrainingError
from tests.train.conftest import tiny_settings, write_tree
from tokenizer.encode import Encoder
from train import checkpoint
from train.generate import (
    LoadedRun,
    Sampling,
    best_step,
    draw_seed,
    generate_batch,
    generate_text,
    generate_texts,
    generate_tokens,
    kept_probabilities,
    load_run,
)
from train.loop import train
from train.model import Decoder, KeyValues
from train.text import encode, load_tokenizer, token_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.train_config import TrainConfig

EOD = 1


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of 300 pieces, 1 being the end of a document."""
    import sentencepiece

    prefix = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    text = ["der hund und die katze", "le chien et le chat", "собака и кошка", "犬と猫"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(prefix), vocab_size=300, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False, unk_id=0, eos_id=1,
        bos_id=-1, pad_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return prefix.with_suffix(".model")


@pytest.fixture(scope="module")
def trained(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has learnt two sentences by heart."""
    folder = tmp_path_factory.mktemp("trained")
    processor = load_tokenizer(tokenizer)
    docs = [[*processor.encode(text), EOD] for text in ("der hund und die katze", "le chien et le chat")]
    facts = {
        "path": "tokenizer.model",
        "sha256": "0",
        "vocab_size": processor.get_piece_size(),
        "eod_id": EOD,
    }
    root = write_tree(folder / "tokens", {"train": {"de": [docs[:1]], "fr": [docs[1:]]}}, tokenizer=facts)
    (root / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    changes = {"tokens": 150 * 64, "learning_rate": 0.01, "log_every": 50, "eval_every": 0, "checkpoint_every": 30}
    train(tiny_settings(**changes), root, folder / "run")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to do with as one likes."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def test_a_run_continues_what_it_has_learnt(run: Path):
    loaded = load_run(run)
    assert loaded.step == 150
    assert generate_text(loaded, "der hund", temperature=0) == " und die katze"
    assert generate_text(loaded, "le chien et", temperature=0) == " le chat"


def test_the_same_seed_gives_the_same_text(run: Path):
    loaded = load_run(run)
    texts = [generate_text(loaded, "", max_tokens=20, temperature=3.0, seed=seed) for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("fault", ["no run", "no checkpoint", "bad settings", "other tokenizer", "no tokenizer"])
def test_what_cannot_be_loaded_is_refused(run: Path, tmp_path: Path, fault: str):
    import shutil

    tokenizer: Path | None = None
    if fault == "no run":
        run, message = tmp_path / "nowhere", "name the directory of a run"
    elif fault == "no checkpoint":
        shutil.rmtree(run / "checkpoints")
        message = "no whole checkpoint"
    elif fault == "bad settings":
        (run / "config.json").write_text('{"config": {"sed": 1}, "tokenizer": {}}')
        message = "did you mean 'seed'"
    elif fault == "no tokenizer":
        (run / "tokenizer.model").unlink()
        message = "name one with --tokenizer"
    else:
        settings = json.loads((run / "config.json").read_text())
        settings["tokenizer"]["vocab_size"] += 1
        (run / "config.json").write_text(json.dumps(settings))
        message = "pieces, but the run was trained"
    with pytest.raises(TrainingError, match=message):
        load_run(run, tokenizer=tokenizer)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path):
    (tmp_path / "x.model").write_bytes(b"nothing of the kind")
    with pytest.raises(TrainingError, match=r"x\.model: not a SentencePiece model"):
        load_tokenizer(tmp_path / "x.model")


def test_bytes_of_the_pieces_add_up_to_the_text(tokenizer: Path):
    processor = load_tokenizer(tokenizer)
    sizes = token_bytes(processor, processor.get_piece_size())
    for text in ("der hund", "собака и кошка", "犬 猿 ✓", "a  b\tc"):
        assert sizes[processor.encode(text)].sum() == len(text.encode())
    assert sizes[EOD] == 0


def model_of(tiny: Callable[..., TrainConfig], **changes: Any) -> Decoder:
    model = Decoder(tiny(model={"init_std": 0.5, **changes}).model, 50, EOD)
    model.initialise(1)
    return model.eval()


def test_greedy_takes_the_likeliest_token(tiny: Callable[..., TrainConfig]):
    model = model_of(tiny)
    ids = [EOD, 5, 6]
    for token in generate_tokens(model, ids, max_tokens=10, temperature=0):
        logits = model(torch.tensor([ids])).logits_BSV[0, -1, :50]
        assert int(logits.argmax()) == token
        ids.append(token)


@torch.no_grad()
def without_cache(model: Decoder, prompt: list[int], count: int, temperature: float, seed: int) -> list[int]:
    """The last ``seq_len`` tokens run through the whole model for each new one."""
    generator = torch.Generator().manual_seed(seed)
    ids = list(prompt)
    while len(ids) < len(prompt) + count:
        logits = model(torch.tensor([ids[-model.config.seq_len :]])).logits_BSV[0, -1, : model.vocab_size]
        shares = (logits / temperature).softmax(-1) if temperature else F.one_hot(logits.argmax(), logits.numel())
        token = int(torch.multinomial(shares.double(), 1, generator=generator))
        if token == model.eod_id:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(
    "prompt",
    [[EOD], [5], [EOD, 5, 6, 7], [EOD, 4, EOD, 5, 6], [EOD, *range(2, 40)], [*range(2, 30), EOD, *range(2, 9)]],
    ids=["begin", "no end", "prompt", "two documents", "longer than the window", "document after a long one"],
)
def test_what_is_kept_changes_no_token(tiny: Callable[..., TrainConfig], reset: bool, prompt: list[int]):
    model = model_of(tiny, reset_at_eod=reset).double()
    longest = 0
    for seed in range(4):
        for temperature in (0.0, 0.7, 3.0):
            expected = without_cache(model, prompt, 40, temperature, seed)
            found = generate_tokens(model, prompt, max_tokens=40, temperature=temperature, seed=seed)
            assert found == expected
            longest = max(longest, len(expected))
    assert longest > model.config.seq_len  # past the window, where nothing can be kept


@torch.no_grad()
def test_next_logits_are_those_of_the_whole_pass(tiny: Callable[..., TrainConfig]):
    model = model_of(tiny).double()
    ids = torch.tensor([[EOD, *range(10, 25)], [EOD, *range(30, 45)]])
    seen = [KeyValues() for _ in model.blocks]
    for length in range(3, ids.shape[1] + 1):
        new = ids[:, :3] if length == 3 else ids[:, length - 1 : length]
        found = model.next_logits(new, seen)
        torch.testing.assert_close(found, model(ids[:, :length]).logits_BSV[:, -1], rtol=1e-10, atol=1e-12)


def test_each_token_is_computed_once(tiny: Callable[..., TrainConfig]):
    model = model_of(tiny, seq_len=64)
    rows: list[int] = []
    model.tokens.register_forward_hook(lambda _module, given, _out: rows.append(given[0].numel()))
    found = generate_tokens(model, [EOD, 5, 6, 7], max_tokens=50, temperature=2.0, seed=3)
    assert rows[0] == 4
    assert set(rows[1:]) == {1}
    assert len(rows) >= len(found) > 5


PROMPTS = [[EOD], [EOD, *range(2, 12)], [EOD, 5, 6], [EOD, 4, EOD, 7], [EOD, *range(2, 40)], [EOD, 9, 8, 7, 6, 5, 4]]


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_a_batch_gives_each_prompt_what_it_gets_alone(
    tiny: Callable[..., TrainConfig], reset: bool, temperature: float
):
    """Prompts of all lengths, past the window too; some end early, at different times."""
    model = model_of(tiny, reset_at_eod=reset).double()
    sampling = Sampling(max_tokens=30, temperature=temperature, top_p=0.95)
    seeds = [draw_seed(3, number, 0) for number in range(len(PROMPTS))]
    alone = [generate_batch(model, [ids], sampling, seeds=[seed])[0] for ids, seed in zip(PROMPTS, seeds, strict=True)]
    assert generate_batch(model, PROMPTS, sampling, seeds=seeds) == alone
    turned = generate_batch(model, PROMPTS[::-1], sampling, seeds=seeds[::-1])
    assert turned[::-1] == alone
    if temperature == 2.0:
        assert {ended for _, ended in alone} == {True, False}


@torch.no_grad()
def test_rows_of_different_lengths_have_the_logits_of_the_whole_pass(tiny: Callable[..., TrainConfig]):
    model = model_of(tiny).double()
    rows = [[EOD, *range(10, 14)], [EOD, 3], [EOD, *range(20, 29)]]
    seen = [KeyValues() for _ in model.blocks]
    filled = torch.tensor([[7] * (10 - len(row)) + row for row in rows])
    found = model.next_logits(filled, seen, torch.tensor([len(row) for row in rows]))
    for more in range(5):
        for row, logits in zip(rows, found, strict=True):
            torch.testing.assert_close(logits, model(torch.tensor([row])).logits_BSV[0, -1], rtol=1e-10, atol=1e-12)
        if more == 2:  # the longest leaves
            for keys_and_values in seen:
                keys_and_values.keep(torch.tensor([1, 0]), 7)
            rows = [rows[1], rows[0]]
        rows = [[*row, 30 + more] for row in rows]
        found = model.next_logits(
            torch.tensor([[30 + more]] * len(rows)), seen, torch.tensor([len(row) for row in rows])
        )


def test_the_nucleus_of_a_hand_made_distribution():
    shares = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15])
    logits = shares.log()

    def kept(**changes: Any) -> list[float]:
        return kept_probabilities(logits, Sampling(temperature=1.0, **changes)).tolist()

    # By size 0.4, 0.3, 0.15, 0.1, 0.05, together 0.4, 0.7, 0.85, 0.95, 1.
    assert kept(top_p=0.01) == [0, 1, 0, 0, 0]
    assert kept(top_p=0.6) == pytest.approx([0, 4 / 7, 0, 3 / 7, 0])
    assert kept(top_p=0.8) == pytest.approx([0, 40 / 85, 0, 30 / 85, 15 / 85])
    assert kept(top_p=1.0) == pytest.approx(shares.tolist())
    assert kept() == pytest.approx(shares.tolist())
    # The nucleus is that of what top_k leaves: of 4/7 and 3/7 the first alone reaches a half.
    assert kept(top_k=2, top_p=0.5) == [0, 1, 0, 0, 0]
    # And of what the temperature makes of it: 0.4 ** 2 and 0.3 ** 2 are the first to reach three quarters.
    squares = [share**2 for share in shares.tolist()]
    hot = kept_probabilities(logits, Sampling(temperature=0.5, top_p=0.75)).tolist()
    assert hot == pytest.approx(
        [0, squares[1] / (squares[1] + squares[3]), 0, squares[3] / (squares[1] + squares[3]), 0]
    )


def test_of_equal_tokens_the_nucleus_takes_the_first():
    assert kept_probabilities(torch.zeros(4), Sampling(temperature=1.0, top_p=0.5)).tolist() == [0.5, 0.5, 0, 0]


def untrained(tiny: Callable[..., TrainConfig], tokenizer: Path) -> LoadedRun:
    processor = load_tokenizer(tokenizer)
    model = Decoder(tiny(model={"init_std": 0.4}).model, processor.get_piece_size(), EOD)
    model.initialise(5)
    return LoadedRun(model.eval(), processor, 7, tokenizer)


def test_texts_do_not_hang_on_the_batch_size(tiny: Callable[..., TrainConfig], tokenizer: Path):
    run = untrained(tiny, tokenizer)
    prompts = [encode(run.tokenizer, text) for text in ("der hund", "", "le chien et le chat und", "犬")]
    texts = [
        list(generate_texts(run, prompts, Sampling(max_tokens=20, temperature=1.5), num=3, batch_size=size, seed=11))
        for size in (1, 5, 100)
    ]
    assert texts[0] == texts[1] == texts[2]
    assert [(text.number, text.sample) for text in texts[0]] == [(n, s) for n in range(4) for s in range(3)]
    assert len({text.text for text in texts[0] if text.number == 0}) == 3
    first = generate_text(run, "der hund", max_tokens=20, temperature=1.5, seed=11)
    assert first == texts[0][0].text


def test_a_step_is_loaded_and_others_are_not_read(run: Path, monkeypatch: pytest.MonkeyPatch):
    steps = sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step_*"))
    assert len(steps) > 1
    digested: set[str] = set()
    really = checkpoint._fingerprint
    monkeypatch.setattr(checkpoint, "_fingerprint", lambda path: digested.add(path.parent.name) or really(path))
    assert load_run(run, step=steps[0]).step == steps[0]
    assert digested == {f"step_{steps[0]:08d}"}
    with pytest.raises(TrainingError, match=r"no whole checkpoint of step 7; there are: .*150"):
        load_run(run, step=7)


def test_texts_in_bf16(run: Path):
    loaded = load_run(run, precision="bf16")
    assert loaded.autocast == torch.bfloat16
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    seen: set[bool] = set()
    loaded.model.blocks[0].register_forward_pre_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    # What was learnt by heart is far from any rounding.
    assert generate_text(loaded, "der hund", temperature=0) == " und die katze"
    assert seen == {True}
    assert load_run(run).autocast is load_run(run, precision="auto").autocast is None, "on the CPU"


def test_best_is_the_checkpoint_of_the_least_held_out_loss(tmp_path: Path):
    with pytest.raises(TrainingError, match="none is best"):
        best_step(tmp_path)
    for step in (10, 20, 30, 35):
        (tmp_path / "checkpoints" / f"step_{step:08d}").mkdir(parents=True)
    losses = {5: 0.5, 10: 3.0, 20: 2.0, 30: 2.0, 40: 1.0}  # 5 and 40 have no checkpoint, 35 no evaluation
    lines = [json.dumps({"kind": "valid", "step": step, "mean": loss}) for step, loss in losses.items()]
    lines.append(json.dumps({"kind": "train", "step": 10, "mean": 0.1}))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert best_step(tmp_path) == 30


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-45, 1e-38, 1e300])
def test_any_finite_temperature_draws(tiny: Callable[..., TrainConfig], temperature: float):
    model = model_of(tiny)
    found = generate_tokens(model, [EOD, 7], max_tokens=10, temperature=temperature, top_k=20)
    if temperature < 1:
        assert found == generate_tokens(model, [EOD, 7], max_tokens=10, temperature=0)


def test_a_prompt_is_encoded_as_the_token_shards_are(run: Path):
    """U+2581 and the rest of what the Encoder of the shards is tested with."""
    loaded = load_run(run)
    encoder = Encoder(run / "tokenizer.model")
    texts = [
        "",
        "\u2581",
        " \u2581 \u2581\u2581",
        "a\u2581b c",
        "  a\tb\n",
        "</s> <0xE2>",
        "犬と猫\0",
        "\u2581der hund",
    ]
    for text in texts:
        ids, _ = encoder.encode(pa.array([text]))
        assert encode(loaded.tokenizer, text) == ids.tolist()
        assert loaded.tokenizer.decode(encode(loaded.tokenizer, text)) == text


def test_a_prompt_that_is_not_utf8_is_refused(run: Path):
    with pytest.raises(TrainingError, match=r"not valid UTF-8 \(at character 4\)"):
        generate_text(load_run(run), "der \udcff")


def test_top_k_of_one_is_greedy_and_long_texts_slide(tiny: Callable[..., TrainConfig]):
    model = model_of(tiny)
    greedy = generate_tokens(model, [EOD, 7], max_tokens=40, temperature=0)
    assert generate_tokens(model, [EOD, 7], max_tokens=40, temperature=5.0, top_k=1, seed=9) == greedy


def test_rows_beyond_the_vocabulary_are_never_drawn(tiny: Callable[..., TrainConfig]):
    model = Decoder(tiny(model={"vocab_multiple": 128}).model, 50, EOD)
    model.initialise(0)
    with torch.no_grad():
        model.tokens.weight[50:] = 100.0
    found = generate_tokens(model.eval(), [EOD], max_tokens=200, temperature=10.0)
    assert found
    assert max(found) < 50


def test_bad_arguments(tiny: Callable[..., TrainConfig]):
    model = model_of(tiny)
    with pytest.raises(ValueError, match="prompt"):
        generate_tokens(model, [], max_tokens=1)
    with pytest.raises(ValueError, match="top_k"):
        generate_tokens(model, [EOD], max_tokens=1, top_k=0)
    for temperature in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature"):
            generate_tokens(model, [EOD], max_tokens=1, temperature=temperature)
    for top_p in (0.0, -0.5, 1.5, float("nan")):
        with pytest.raises(ValueError, match="top_p"):
            generate_tokens(model, [EOD], max_tokens=1, top_p=top_p)
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match="seed"):
            generate_tokens(model, [EOD], max_tokens=1, seed=seed)
    assert generate_tokens(model, [EOD], max_tokens=1, seed=2**64 - 1)
