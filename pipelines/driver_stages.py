"""The stages that run in the driver's own process: train a tokenizer, train a model, write the balance report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.errors import StageError
from lola_data.layout import RUN, TREES
from pipelines.progress import say
from pipelines.run import DriverStage

if TYPE_CHECKING:
    from lola_data.layout import Layout
    from lola_data.recipe import Recipe


def tokenizer(recipe: Recipe, layout: Layout) -> DriverStage:
    """Train the tokenizer on the sampled text, or take the one the recipe names."""
    section = recipe.tokenizer
    out = layout.tree("tokenizer")

    def action() -> dict[str, Any]:
        from tokenizer.train import make_tokenizer

        card = make_tokenizer(section, layout.tree("sample"), out, seed=recipe.seed)
        dropped = sum(1 for language in card.languages.values() if language.bytes_dropped)
        say(f"tokenizer: {card.vocab_size:,} pieces; languages that lost bytes on the way to the trainer: {dropped}")
        return {
            "sha256": card.sha256,
            "vocab_size": card.vocab_size,
            "bytes_dropped": card.bytes_dropped,
            "files": _files(layout, "tokenizer", ["tokenizer.model", "tokenizer.vocab", "card.json", "card.md"]),
        }

    # Neither the number of threads nor the memory allowed changes the model. One made elsewhere is known by its bytes.
    settings = {**section.model_dump(exclude={"threads", "memory_limit_mb"}), "seed": recipe.seed}
    if section.model:
        from tokenizer.formats import read_model

        settings["sha256"] = read_model(section.model).sha256
    return DriverStage("tokenizer", layout, settings, [] if section.model else ["sample"], action)


def train(recipe: Recipe, layout: Layout, *, trained: bool = False) -> DriverStage:
    """Train the model on the token shards; goes on from the newest checkpoint.

    ``trained``: that has been done elsewhere, and what it made is only written down.
    """
    config = recipe.train

    def summary() -> Any:
        if trained:
            path = storage.join(layout.run, "summary.json")
            if not storage.exists(path):
                raise StageError(f"train: {layout.run} is not complete; run the same command again to go on")
            return storage.read_json(path)
        from train.threads import let_threads_sleep

        let_threads_sleep()
        from train.loop import train as run_training
        from train.progress import console_progress

        result = run_training(config, layout.tree("tokenize"), layout.run, progress=console_progress())
        if result.summary is None:
            raise StageError(f"train: {result.told()}; run the same command again to go on")
        return result.summary

    def action() -> dict[str, Any]:
        made_of = summary()
        parts = [path for path, _ in storage.list_files(layout.run, ".distcp")]
        newest = max(path.rpartition("/")[0] for path in parts)
        made = ["config.json", "summary.json", f"{newest}/.metadata", f"{newest}/checkpoint.json"]
        made += [path for path in parts if path.startswith(f"{newest}/")]
        return {
            "run": RUN,
            "summary": made_of,
            "files": _files(layout, "train", [storage.join(RUN, name) for name in made]),
        }

    settings = {key: value for key, value in config.to_dict().items() if key not in config.RESUME_FREE}
    return DriverStage("train", layout, settings, ["tokenize"], action)


def balance(recipe: Recipe, layout: Layout) -> DriverStage:
    """Count every tree and write the report."""
    section = recipe.balance

    def action() -> dict[str, Any]:
        from lola_data.balance.measure import measure
        from lola_data.balance.text import json_text
        from lola_data.report.page import write_report

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
        return {"files": _files(layout, "balance", ["balance.json", *(["balance.html"] if section.html else [])])}

    inputs = ["download", "identify", "dedup", "sample", "tokenize"]
    return DriverStage("balance", layout, section.model_dump(), inputs, action)


def _files(layout: Layout, stage: str, names: list[str]) -> list[dict[str, Any]]:
    """Entries of a manifest for files of a stage's tree, paths below the work folder."""
    places = [(name, storage.join(layout.tree(stage), name)) for name in names]
    return [{"path": f"{TREES[stage]}/{name}", "bytes": storage.size(place)} for name, place in places]
