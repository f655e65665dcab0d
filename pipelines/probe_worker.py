"""Runs the stages over a small tree in this very process, and tells what each took.

``python -m pipelines.probe_worker``. In: a JSON document on stdin that names the recipe, its overrides and the folder.
Out: a JSON document on stdout, per stage the seconds of processor time, peak memory, rows and bytes in and out. A first
run over a part of the rows is thrown away: what is compiled or loaded once must not count for every megabyte.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lola_data import storage
from lola_data.errors import LolaError
from lola_data.layout import Layout
from lola_data.recipe import Recipe, load_recipe
from pipelines.corpus import build_stage
from pipelines.run import fingerprint_of
from pipelines.state import StageState
from pipelines.usage import peak_bytes, reset_peak

STAGES = ("identify", "dedup", "sample", "tokenize")
VOCABULARIES = (8_000, 4_000, 2_000, 1_000, 500)
"""Sizes tried, the largest first, of the tokenizer that a probe is tokenised with where the recipe names none. The real
one is larger and makes fewer tokens."""
WARM_ROWS = 200
"""Rows of each shard in the run that is thrown away."""


def work(recipe: Recipe, layout: Layout, model: str | None) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Run every stage over the raw tree of a layout: stage -> seconds, peak_bytes, rows_in, rows_out, tokens and bytes
    on disk; and the tokenizer. Without ``model`` one is trained on the sample; if that is too small, tokens are left
    out.

    Raises:
        LolaError: a stage failed, with the message of its first unit.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in STAGES:
        if name == "tokenize":
            model = model or _trained(recipe, layout)
            if model is None:
                break
            _place_model(layout, model)
        reset_peak()
        begun = time.process_time()
        manifest, scratch = _run(build_stage(name, recipe, layout))
        found[name] = {
            "seconds": time.process_time() - begun,
            "peak_bytes": peak_bytes(),
            "rows_in": manifest["totals"]["in"]["documents"],
            "rows_out": manifest["totals"]["out"]["documents"],
            "tokens": manifest["totals"]["out"]["tokens"],
            "disk_bytes": sum(file["bytes"] for file in manifest["files"]),
            "scratch_bytes": scratch,
        }
    return found, model


def _trained(recipe: Recipe, layout: Layout) -> str | None:
    from tokenizer.train import make_tokenizer

    for size in VOCABULARIES:
        out = f"{layout.workdir}/made-{size}"
        section = recipe.tokenizer.model_copy(update={"vocab_size": size, "character_coverage": 0.98})
        try:
            make_tokenizer(section, layout.tree("sample"), out, seed=recipe.seed)
        except LolaError:
            continue
        return f"{out}/tokenizer.model"
    return None


def _run(stage: Any) -> tuple[dict[str, Any], int]:
    state = StageState(stage.layout, stage.name)
    fingerprint = fingerprint_of(stage)
    state.begin(fingerprint)
    for step in stage.phases:
        state.write_plan(step.phase, [unit.to_json() for unit in step.plan()])
        list(step.run(rank=0, world_size=1))
        failures = state.failures(step.phase)
        if failures:
            raise LolaError(failures[0]["message"])
    scratch = sum(size for _, size in storage.list_files(stage.layout.scratch(stage.name), ""))
    return stage.write_manifest(fingerprint), scratch


def _place_model(layout: Layout, model: str) -> None:
    target = storage.local_path(layout.tree("tokenizer")) / "tokenizer.model"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, target)


def _some_rows(raw: Path, target: Path) -> None:
    for path in sorted(raw.rglob("*.parquet")):
        out = target / path.relative_to(raw)
        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pq.read_table(path).slice(0, WARM_ROWS), out)


def _main() -> int:
    asked = json.load(sys.stdin)
    folder, model = Path(asked["folder"]), asked["model"]
    with redirect_stdout(sys.stderr):
        try:
            recipe = load_recipe(Path(asked["recipe"]), overrides=[*asked["overrides"], f"workdir={folder}"])
            warm = folder / "warm"
            _some_rows(folder / "raw", warm / "raw")
            work(recipe, Layout(str(warm), {"download": str(warm / "raw")}), model)
            shutil.rmtree(warm)
            found, model = work(recipe, Layout(str(folder), {"download": str(folder / "raw")}), model)
        except LolaError as error:
            answer: dict[str, Any] = {"error": str(error)}
        else:
            answer = {"stages": found, "model": model}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
