"""The corpus graph as jobs, without a scheduler. What Slurm makes of them is in tests/cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.errors import StageError
from lola_data.layout import Layout
from lola_data.recipe import parse_recipe
from pipelines.corpus import STAGES, run_corpus
from pipelines.slurm_graph import Action, Graph, Job, build_graph, deal
from pipelines.slurm_run import SlurmRun, load, path_of
from pipelines.slurm_submit import SlurmExecutor, script_of, spec, split

if TYPE_CHECKING:
    from lola_data.recipe import Recipe

CORPUS = ("download", "identify", "dedup")


def recipe_of(tmp_path: Path, *more: str) -> Recipe:
    text = "languages: [cy, sw, th, yo]\nexecutor: {kind: slurm, tasks: 6, lanes: 2}"
    return parse_recipe(text, overrides=[f"workdir={tmp_path / 'w'}", *more])


def graph_of(recipe: Recipe, names: Any = STAGES) -> Graph:
    return build_graph(recipe, Layout(recipe.workdir), list(names))


def before(graph: Graph) -> dict[str, set[str]]:
    """Job -> all that must be over before it."""
    found: dict[str, set[str]] = {}
    for job in graph.jobs:
        waits = {*job.after_ok, *job.after_any}
        assert waits <= found.keys(), f"{job.name} is submitted before what it waits for"
        found[job.name] = waits.union(*(found[one] for one in waits))
    return found


@pytest.mark.parametrize(
    ("indices", "told"), [([0], "0"), ([0, 1, 2, 3], "0-3"), ([0, 1, 3, 7, 8], "0-1,3,7-8"), ([2, 4], "2,4")]
)
def test_indices_are_told_as_sbatch_takes_them(indices: list[int], told: str) -> None:
    assert spec(indices) == told


def test_arrays_are_split_below_the_largest_index() -> None:
    assert split([*range(11)], 4) == [(0, [0, 1, 2, 3]), (4, [0, 1, 2, 3]), (8, [0, 1, 2])]
    assert split([3, 5, 9], 4) == [(0, [3]), (4, [1]), (8, [1])]
    assert split([*range(1001)], 1001) == [(0, [*range(1001)])]
    for ranks in ([7], [0, 1000, 1001, 2500]):
        assert sorted(offset + index for offset, indices in split(ranks, 1001) for index in indices) == ranks


def test_languages_are_dealt_whole_and_by_size() -> None:
    lanes = deal({"en": 100, "de": 40, "fr": 35, "sw": 20, "yo": 1}, 2)
    assert [sorted(lane.languages) for lane in lanes] == [["en"], ["de", "fr", "sw", "yo"]]
    assert len(deal({"en": 5}, 4)) == 1
    assert [lane.holds("en/en_part_00000") for lane in lanes] == [True, False]
    assert not lanes[0].holds("english/a")


def test_every_job_comes_after_what_it_needs(tmp_path: Path) -> None:
    graph = graph_of(recipe_of(tmp_path))
    waits = before(graph)
    jobs = {job.name: job for job in graph.jobs}
    # Inputs of each stage are closed before a job of it begins, but in lanes.
    closed = {action.stage: job.name for job in graph.jobs for action in job.actions if action.do in ("close", "drive")}
    for stage, inputs in {"sample": CORPUS, "tokenizer": ["sample"], "tokenize": ["sample", "tokenizer"]}.items():
        for job in graph.jobs:
            if job.stage == stage and not {action.stage for action in job.actions} & {*CORPUS}:
                assert {closed[source] for source in inputs} <= waits[job.name] | {job.name}, job.name
    assert closed["tokenize"] in waits["train"]
    assert closed["tokenize"] in waits["balance"]
    assert "train" not in waits["balance"], "the report does not wait for the training"
    assert "train" in waits[closed["train"]]
    # A failed task stops no other task; a failed turn stops what comes after.
    for job in graph.jobs:
        assert all(jobs[one].kind == "tasks" for one in job.after_any)
        assert all(jobs[one].kind != "tasks" for one in job.after_ok)
        if job.kind == "turn" and job.after_any and job.name != "join":
            planned = {one for array in job.after_any for one in jobs[array].after_ok}
            assert planned <= {*job.after_ok}, f"{job.name} would run after a turn that failed"


def test_no_lane_waits_for_another_before_they_join(tmp_path: Path) -> None:
    graph = graph_of(recipe_of(tmp_path))
    assert sorted(lang for langs in graph.lanes.values() for lang in langs) == ["cy", "sw", "th", "yo"]
    waits = before(graph)
    lane = {job.name: job.lane for job in graph.jobs}
    for job in graph.jobs:
        if job.lane is not None:
            assert {lane[one] for one in waits[job.name]} <= {job.lane}
    assert {lane[one] for one in waits["join"]} == {"1", "2"}


def test_documents_that_change_their_language_end_the_lanes(tmp_path: Path) -> None:
    graph = graph_of(recipe_of(tmp_path, "identify.policy=relabel"))
    assert {job.stage for job in graph.jobs if job.lane} == {"download", "identify"}
    waits = before(graph)
    assert all("join" in waits[job.name] for job in graph.jobs if job.stage == "dedup" and job.kind == "tasks")


def test_a_language_too_large_for_a_task_has_jobs_for_its_parts(tmp_path: Path) -> None:
    few = {job.name for job in graph_of(recipe_of(tmp_path / "a")).jobs}
    many = {job.name for job in graph_of(recipe_of(tmp_path / "b", "dedup.partitions=3")).jobs}
    assert {"dedup.spread.1", "dedup.tie.1", "dedup.group.1", "dedup.gather.1"} <= many - few


def test_what_is_finished_has_no_job(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "executor.kind=local")
    run_corpus(recipe, only=["download", "identify"])
    graph = graph_of(recipe, CORPUS)
    assert {job.stage for job in graph.jobs} == {"dedup"}
    # Planned already, so the first tasks wait for nothing.
    assert [job.name for job in graph.jobs if not job.after_ok and not job.after_any] == [
        "dedup.signatures.1",
        "dedup.signatures.2",
    ]
    run_corpus(recipe, only=["dedup"])
    assert graph_of(recipe, CORPUS).jobs == []


def test_an_input_that_nothing_makes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"its input .*/raw is not complete; run the stage `download` first"):
        graph_of(recipe_of(tmp_path), ["identify", "dedup"])


def test_a_changed_recipe_is_refused_before_anything_is_submitted(tmp_path: Path) -> None:
    run_corpus(recipe_of(tmp_path, "executor.kind=local"), only=["download", "identify"])
    with pytest.raises(StageError, match=r"settings\.min_score: 0\.0 -> 0\.4"):
        graph_of(recipe_of(tmp_path, "identify.min_score=0.4"), CORPUS)


def test_jobs_are_data() -> None:
    job = Job("a", "turn", "dedup", 2, "1", actions=[Action("plan", "dedup", 2)], after_ok=["b"])
    assert Job.from_json(job.to_json()) == job


def test_a_script_holds_what_the_recipe_says(tmp_path: Path) -> None:
    text = """
    kind: slurm
    partition: cpu
    account: mine
    time: "2:00:00"
    cpus_per_task: 2
    memory_mb: 4000
    setup: module load python
    sbatch: {constraint: fast, comment: from the recipe}
    stages: {dedup: {time: "8:00:00", mem_per_cpu: 3G, sbatch: {comment: of the stage}}}
    """
    recipe = parse_recipe("executor:" + text, name="r")

    def lines(stage: str) -> list[str]:
        section = recipe.executor.of_stage(stage)
        made = SlurmExecutor("job", section, logging_dir=str(tmp_path), logs=str(tmp_path / "logs"))
        return made.script("exec it", "0-3%2").splitlines()

    found = lines("identify")
    assert found[0] == "#!/bin/bash"
    assert found[-2:] == ["module load python", "exec it"]
    for option in (
        "partition=cpu", "account=mine", "time=2:00:00", "cpus-per-task=2", "mem-per-cpu=2500M", "array=0-3%2",
        "constraint=fast", "comment=from the recipe", "requeue", "open-mode=append", "signal=B:USR1@120",
        "kill-on-invalid-dep=yes", f"output={tmp_path}/logs/job.%A_%a.out",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in found, option
    assert not [line for line in found if "qos" in line or "mail" in line]
    assert {"#SBATCH --time=8:00:00", "#SBATCH --mem-per-cpu=3G", "#SBATCH --comment=of the stage"} <= {*lines("dedup")}


def test_options_without_a_value_are_switches() -> None:
    assert script_of({"requeue": "", "nodes": 1}, None, "x") == "#!/bin/bash\n#SBATCH --requeue\n#SBATCH --nodes=1\nx\n"


def test_a_submission_comes_back_as_it_was_written(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "train.weights={sw: 2.0}")
    layout = Layout(str(tmp_path / "dest"), {"download": str(tmp_path / "dest")}, hidden=True)
    run = SlurmRun(recipe, layout, Graph([Job("a", "turn", "dedup")], {"1": ["sw"]}), "logs", {"a": ["7"]}, "me", 1.5)
    run.save()
    assert load(path_of(layout)) == run
    record = Path(path_of(layout))
    for broken, told in [
        ('{"format": 1}', "no whole record of a submission (KeyError: 'recipe')"),
        ('{"format": 99}', "no record of a submission by this version"),
        ("[]", "no record of a submission by this version"),
        (record.read_text().replace('"seed": 1234', '"seed": "x"'), "no whole record of a submission"),
    ]:
        record.write_text(broken)
        with pytest.raises(StageError, match=re.escape(told)):
            load(path_of(layout))
