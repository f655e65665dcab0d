"""What ``lola-data run`` says at its end: what was made, where it is, and what to try next."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.layout import Layout
from pipelines.progress import human_bytes
from pipelines.status_table import align

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.recipe import Recipe


def closing_words(recipe: Recipe, path: Path, manifests: dict[str, dict[str, Any]]) -> str:
    """The last lines of a run, from the manifests of the stages that were run."""
    layout = Layout(recipe.workdir)
    rows = [(name, _made(name, manifest), layout.tree(name)) for name, manifest in manifests.items()]
    lines = ["", "Made:", *(f"  {line}" for line in align(rows, left=3))]
    if "train" in manifests:
        lines += ["", *_losses(manifests["train"]["summary"])]
    lines += ["", "Next:"]
    following = []
    if "train" in manifests:
        run = storage.join(layout.tree("train"), manifests["train"]["run"])
        following.append((f"lola-data generate {_quoted(run)} --prompt 'Die Würde'", "continue a text"))
    if "balance" in manifests and any(file["path"].endswith(".html") for file in manifests["balance"]["files"]):
        following.append((_quoted(storage.join(layout.tree("balance"), "balance.html")), "open it in a browser"))
    following.append((f"lola-data status {_quoted(recipe.workdir)} --languages", "what each stage did"))
    if recipe.download.source == "sample":
        following.append(("lola-data init --preset balanced", "a recipe for CulturaX itself"))
    else:
        following.append((f"lola-data balance {_quoted(recipe.workdir)}", "the balance of languages"))
    lines += [f"  {line}" for line in align(following, left=2)]
    return "\n".join(lines)


def _quoted(path: str) -> str:
    return shlex.quote(path)


def _made(name: str, manifest: dict[str, Any]) -> str:
    if name == "tokenizer":
        return f"{manifest['vocab_size']:,} pieces"
    if name == "train":
        summary = manifest["summary"]
        return f"{summary['parameters']:,} parameters, {summary['tokens']:,} tokens seen"
    if name == "balance":
        return ", ".join(PurePosixPath(file["path"]).name for file in manifest["files"])
    out = manifest["totals"]["out"]
    languages = sum(1 for one in manifest["languages"].values() if one["out"]["documents"])
    text = f"{out['documents']:,} documents in {languages} languages"
    if out["tokens"]:
        return f"{text}, {out['tokens']:,} tokens"
    return f"{text}, {human_bytes(out['bytes'])}" if out["bytes"] else text


def _losses(summary: dict[str, Any]) -> list[str]:
    """Held-out loss against a unigram model of the same tokens, for the languages with most documents."""
    known = {lang: one for lang, one in summary["languages"].items() if one["held_out_loss"] is not None}
    largest = sorted(known.items(), key=lambda item: (-item[1]["train_documents"], item[0]))[:12]
    if not largest:
        return []
    table = [("language", "held-out loss", "unigram model", "epochs")]
    for lang, one in largest:
        table.append((lang, f"{one['held_out_loss']:.3f}", f"{one['unigram_loss']:.3f}", f"{one['epochs']:.2f}"))
    better = sum(one["held_out_loss"] < one["unigram_loss"] for one in known.values())
    return [
        *align(table, left=1),
        f"Below the unigram model of the same tokens (nats a token) in {better} of {len(known)} languages.",
    ]
