"""The stages that run in the driver's own process: train a tokenizer, train a model, write the balance report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import StageError
from pipelines.progress import say
from pipelines.run import DriverStage

if TYPE_CHECKING:
    from lola_data.layout import Layout
    from lola_data.recipe import Recipe

RUN = "moe"
"""Name of the training run below ``runs/``."""


def tokenizer(recipe: Recipe, layout: Layout) -> DriverStage:
    """Train the tokenizer on the sampled text, or take the one the recipe names."""
    section = recipe.tokenizer
    out = layout.tree("tokenizer")

    def action() -> dict[str, Any]:
        from tokenizer.train import adopt_tokenizer, train_tokenizer

        if section.model:
            card = adopt_tokenizer(section.model, out)
        else:
            card = train_tokenizer(
                layout.tree("sample"),
                out,
                vocab_size=section.vocab_size,
                train_bytes=section.train_bytes,
                alpha=section.alpha,
                character_coverage=section.character_coverage,
                max_line_bytes=section.max_line_bytes,
                memory_limit_mb=section.memory_limit_mb,
                threads=section.threads,
                seed=recipe.seed,
            )
        dropped = sum(1 for language in card.languages.values() if language.bytes_dropped)
        say(f"tokenizer: {card.vocab_size:,} pieces; languages that lost bytes on the way to the trainer: {dropped}")
        return {"sha256": card.sha256, "vocab_size": card.vocab_size, "bytes_dropped": card.bytes_dropped}

    # Neither the number of threads nor the memory allowed changes the model.
    settings = {**section.model_dump(exclude={"threads", "memory_limit_mb"}), "seed": recipe.seed}
    return DriverStage("tokenizer", layout, settings, [] if section.model else ["sample"], action)


def train(recipe: Recipe, layout: Layout) -> DriverStage:
    """Train the model on the token shards; goes on from the newest checkpoint."""
    config = recipe.train

    def action() -> dict[str, Any]:
        from train.threads import let_threads_sleep

        let_threads_sleep()
        from train.loop import train as run_training
        from train.progress import console_progress

        run_dir = storage.join(layout.tree("train"), RUN)
        result = run_training(config, layout.tree("tokenize"), run_dir, progress=console_progress())
        if result.summary is None:
            raise StageError(
                f"train: stopped by {result.stopped_by or 'request'} at step {result.step:,} of {result.steps:,}, "
                f"with a checkpoint; run the same command again to go on"
            )
        return {"run": RUN, "summary": result.summary}

    settings = {key: value for key, value in config.to_dict().items() if key not in config.RESUME_FREE}
    return DriverStage("train", layout, settings, ["tokenize"], action)


def balance(recipe: Recipe, layout: Layout) -> DriverStage:
    """Count every tree and write the report."""
    section = recipe.balance

    def action() -> dict[str, Any]:
        from lola_data.balance import measure
        from lola_data.balance_text import json_text
        from lola_data.report import write_report

        measured = measure(layout.workdir, raw=layout.trees.get("download"))
        root = layout.tree("balance")
        with storage.atomic_output(storage.join(root, "balance.json")) as handle:
            handle.write(json_text(measured, "language", min_documents=section.min_documents).encode())
        if section.html:
            write_report(
                measured,
                storage.join(root, "balance.html"),
                title="Language balance",
                top=section.top,
                min_documents=section.min_documents,
            )
        return {"files": ["balance.json", *(["balance.html"] if section.html else [])]}

    inputs = ["download", "identify", "dedup", "sample", "tokenize"]
    return DriverStage("balance", layout, section.model_dump(), inputs, action)
