"""The console command as scripts and people meet it: help, plans, status, exit codes, plain output, plug-ins."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import click
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import lola_data.cli
from lola_data.cli import GROUP, cli
from lola_data.layout import TREES
from lola_data.presets import VALUES
from lola_data.recipe import load_recipe, valid_keys
from tests.console import (
    ROAD,
    Outcome,
    lola,
    lola_process,
    replace_bytes,
    replace_shard,
    upto,
    write_recipe,
    write_source,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def commands() -> Iterator[tuple[str, ...]]:
    """Every command, groups and their members included, as the words that call it."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        yield (point.name,)
        command = point.load()
        if isinstance(command, click.Group):
            yield from ((point.name, inner) for inner in sorted(command.commands))


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that has been run up to token shards."""
    folder = tmp_path_factory.mktemp("done")
    recipe = write_recipe(folder, write_source(folder / "source"))
    outcome = lola("run", recipe, *upto("tokenize"))
    assert outcome.code == 0, outcome.stderr
    return folder


# Options


@pytest.mark.parametrize(
    ("words", "sections"),
    [
        ("download", "download"), ("identify", "identify checks"), ("dedup", "dedup"), ("sample", "sample"),
        ("tokenizer train", "tokenizer"), ("tokenize", "tokenize"), ("train", "train train.model"),
        ("balance", "balance"),
    ],
)  # fmt: skip
def test_every_key_of_a_stage_s_section_is_an_option_of_its_command(words: str, sections: str) -> None:
    command: Any = cli
    for word in words.split():
        command = command.get_command(click.Context(command), word)
    flags = {flag for parameter in command.params for flag in parameter.opts}
    keys = [key for section in sections.split() for key in valid_keys(tuple(section.split(".")))]
    assert {"--" + key.replace("_", "-") for key in keys if key != "model" or words != "train"} <= flags


# Help


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_names_an_example(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*words, "--help"], prog_name="lola-data")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: lola-data {' '.join(words)}")
    command: Any = cli.get_command(click.Context(cli), words[0])
    if isinstance(command, click.Group) and len(words) == 1:
        # A group's examples are those of its members, which it lists.
        assert all(name in result.output for name in command.commands)
    else:
        example = result.output.partition("Example")[2]
        assert f"lola-data {' '.join(words)}" in example


def test_help_lists_every_command() -> None:
    outcome = lola_process("--help")
    assert outcome.code == 0
    listed = {line.split()[0] for line in outcome.stdout.splitlines() if line.startswith("  ") and line.split()}
    assert {words[0] for words in commands()} <= listed
    assert "lola-data init --preset demo" in outcome.stdout


def test_no_command_shows_the_help_and_is_an_error() -> None:
    outcome = lola_process()
    assert outcome.code == 2
    assert "Usage: lola-data" in outcome.stderr + outcome.stdout


def test_version() -> None:
    from importlib.metadata import version

    assert lola("--version").stdout.strip().endswith(version("lola-data"))


# Languages


def test_languages_as_json() -> None:
    outcome = lola("languages", "--json")
    listed = json.loads(outcome.stdout)
    assert len(listed) == 167
    keys = {"code", "name", "iso639_3", "script", "family", "documents", "tokens"}
    assert all(keys <= one.keys() for one in listed)
    by_code = {one["code"]: one for one in listed}
    assert (by_code["als"]["iso639_3"], by_code["als"]["script"]) == ("gsw", "Latn")
    assert (by_code["sh"]["iso639_3"], by_code["sh"]["script"]) == ("hbs", "Latn")
    assert by_code["en"]["documents"] == 3_241_065_682
    assert by_code["sw"]["family"] == "Atlantic-Congo"


def test_languages_as_text() -> None:
    lines = lola("languages").stdout.splitlines()
    assert len(lines) == 168
    assert lines[0].split() == ["code", "name", "iso639-3", "script", "family", "documents", "tokens"]


# Recipes


@pytest.mark.parametrize("name", sorted(VALUES))
def test_init_writes_a_recipe(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = lola("init", "--preset", name)
    assert outcome.code == 0
    assert f"lola-data run {name}.yaml --dry-run" in outcome.stdout
    assert load_recipe(tmp_path / f"{name}.yaml").workdir == VALUES[name]["workdir"]
    assert lola("recipe", "check", f"{name}.yaml").code == 0


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("seed: 7\n")
    outcome = lola("init", "--out", mine)
    assert outcome.code == 2
    assert str(mine) in outcome.message
    assert "--force" in outcome.message
    assert mine.read_text() == "seed: 7\n"
    assert lola("init", "--out", mine, "--force").code == 0
    assert mine.read_text() != "seed: 7\n"


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_init_where_no_file_can_be(tmp_path: Path, force: tuple[str, ...]) -> None:
    file = tmp_path / "file"
    file.write_text("of value")
    for target, words in (
        (tmp_path, f"is a folder; name a file in it with --out {tmp_path}/demo.yaml"),
        (file / "x.yaml", "cannot be written"),
        (tmp_path / ("x" * 300), "a name of 300 bytes, where file systems take 255. Shorten it"),
    ):
        outcome = lola("init", "--out", target, *force)
        assert outcome.code in (1, 2)
        assert outcome.message.startswith(f"{target}: ")
        assert words in outcome.message
        assert files_of(tmp_path) == {"file": b"of value"}


def test_init_leaves_the_old_recipe_where_the_disk_is_full(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("seed: 7\n")
    limit = (2_000, 2_000)
    outcome = lola_process(
        "init", "--out", mine, "--force", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    assert outcome.code == 1
    assert "cannot be written: the file would be larger" in outcome.message
    assert files_of(tmp_path) == {"mine.yaml": b"seed: 7\n"}


def test_init_writes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "mine.yaml").symlink_to("real/mine.yaml")
    assert lola("init", "--out", tmp_path / "mine.yaml").code == 2
    assert lola("init", "--out", tmp_path / "mine.yaml", "--force").code == 0
    assert (tmp_path / "mine.yaml").is_symlink()
    assert load_recipe(tmp_path / "real" / "mine.yaml").workdir == "work/demo"


def test_init_to_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = lola("init", "--out", "-")
    assert outcome.stdout.startswith("# ")
    assert not list(tmp_path.iterdir())


def test_init_of_an_unknown_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = lola("init", "--preset", "blanced")
    assert outcome.code == 2
    assert "`blanced`" in outcome.message
    assert "balanced" in outcome.message
    assert not list(tmp_path.iterdir())


def test_recipe_schema_is_a_json_schema() -> None:
    schema = json.loads(lola("recipe", "schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"workdir", "identify", "dedup", "train"} <= schema["properties"].keys()


# Plans


def test_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path, write_source(tmp_path / "source"))
    before = files_of(tmp_path)
    text = lola("run", recipe, "--dry-run")
    assert text.code == 0, text.stderr
    assert all(stage in text.stdout for stage in TREES)
    plan = lola("run", recipe, "--dry-run", "--json", *upto("dedup"))
    assert [row["stage"] for row in json.loads(plan.stdout)["stages"]] == ["download", "identify", "dedup"]
    assert files_of(tmp_path) == before
    assert not (tmp_path / "work").exists()


def test_dry_run_of_a_wrong_source_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "nowhere")
    outcome = lola("run", recipe, "--dry-run")
    assert outcome.code == 1
    assert str(tmp_path / "nowhere") in outcome.message
    assert not (tmp_path / "work").exists()


def test_totals_as_json(done: Path) -> None:
    outcome = lola("run", done / "recipe.yaml", "--json", *upto("dedup"))
    totals = json.loads(outcome.stdout)
    assert list(totals) == ["download", "identify", "dedup"]
    assert totals["identify"]["out"]["documents"] == totals["dedup"]["in"]["documents"]


# Status


@pytest.mark.parametrize("there", [False, True])
def test_status_of_no_work_folder(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "work"
    if there:
        folder.mkdir()
    outcome = lola("status", folder)
    assert outcome.code == 2
    assert str(folder) in outcome.message
    assert folder.exists() == there


def test_status_of_a_run(done: Path) -> None:
    outcome = lola("status", done / "work", "--languages")
    assert outcome.code == 0
    states = {line.split()[0]: line for line in outcome.stdout.splitlines()[1 : 1 + len(TREES)]}
    assert list(states) == list(TREES)
    for stage in TREES:
        assert ("complete" if stage in ROAD else "not started") in states[stage]
    assert "identify: documents by language" in outcome.stdout


def test_status_as_json(done: Path) -> None:
    rows = json.loads(lola("status", done / "work", "--json").stdout)
    assert [row["stage"] for row in rows] == list(TREES)
    dedup = rows[2]
    assert dedup["state"] == "complete"
    assert sorted(dedup["languages"]) == ["cy", "el", "sw", "yo"]
    assert dedup["totals"]["in"]["documents"] == sum(one["in"]["documents"] for one in dedup["languages"].values())
    assert [phase["done"] for phase in dedup["phases"]] == [phase["units"] for phase in dedup["phases"]]


def test_status_after_a_failure(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    recipe = write_recipe(tmp_path, source)
    broken = source / "el" / "el_part_00000.parquet"
    whole = broken.read_bytes()
    replace_bytes(broken, whole[:1000])
    assert lola("run", recipe, *upto("identify")).code == 1
    outcome = lola("status", tmp_path / "work")
    assert outcome.code == 1
    assert str(broken) in outcome.stdout
    log = outcome.stdout.partition("log: ")[2].splitlines()[0]
    assert str(broken) in (tmp_path / "work").joinpath(log).read_text()
    failures = json.loads(lola("status", tmp_path / "work", "--json").stdout)[0]["failures"]
    assert [(failure["key"], failure["log"]) for failure in failures] == [("el/el_part_00000", log)]
    replace_bytes(broken, whole)
    assert lola("run", recipe, *upto("identify")).code == 0
    assert lola("status", tmp_path / "work").code == 0


# Stages alone


def test_stages_alone_make_what_the_road_makes(done: Path, tmp_path: Path) -> None:
    """The same options give the same bytes, manifests and all, whichever command they are given to."""
    work, source = tmp_path / "work", done / "source"
    common = ("--workdir", work, "--languages", "cy,el,sw,yo", "--tasks", 1, "--workers", 1)
    for call in (
        ("download", "--source", "local", "--path", source),
        ("identify", "--policy", "drop"),
        ("dedup", "--threshold", 0.8, "--bands", 14),
        ("sample", "--method", "temperature", "--alpha", 0.3),
    ):
        outcome = lola(*call, *common)
        assert outcome.code == 0, outcome.stderr
        stage = str(call[0])
        assert files_of(work / TREES[stage]) == files_of(done / "work" / TREES[stage])
        assert files_of(work / "removed" / stage) == files_of(done / "work" / "removed" / stage)
    options = ("--vocab-size", 500, "--train-bytes", 40_000, "--no-report")
    outcome = lola("tokenizer", "train", work / "sampled", "--out", tmp_path / "tokenizer", *options)
    assert outcome.code == 0, outcome.stderr
    made = files_of(done / "work" / "tokenizer")
    assert files_of(tmp_path / "tokenizer") == {name: made[name] for name in made.keys() - {"manifest.json"}}


def test_tokenize_alone_makes_what_the_road_makes(done: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(done / "work", work)
    shutil.rmtree(work / "tokens")
    shutil.rmtree(work / "state" / "tokenize")
    options = ("--languages", "cy,el,sw,yo", "--valid-share", 0.1, "--json")
    outcome = lola("tokenize", "--workdir", work, *options)
    assert outcome.code == 0, outcome.stderr
    assert files_of(work / "tokens") == files_of(done / "work" / "tokens")
    totals = json.loads(outcome.stdout)
    assert totals["out"]["tokens"] > totals["out"]["documents"] > 0


def test_stage_alone_of_a_recipe(done: Path, tmp_path: Path) -> None:
    """Options win over the recipe they are given beside."""
    work = tmp_path / "work"
    recipe = ("--recipe", done / "recipe.yaml", "--workdir", work)
    assert lola("download", *recipe).code == 0
    assert lola("identify", *recipe).code == 0
    assert files_of(work / "identified") == files_of(done / "work" / "identified")
    changed = lola("identify", *recipe, "--policy", "keep")
    assert changed.code == 1
    assert 'policy: "drop" -> "keep"' in changed.message
    assert lola("identify", *recipe, "--policy", "keep", "--redo").code == 0


def test_stage_alone_without_a_work_folder() -> None:
    outcome = lola("dedup")
    assert outcome.code == 2
    assert "--workdir" in outcome.message


def test_stage_alone_with_a_wrong_option(tmp_path: Path) -> None:
    outcome = lola("dedup", "--workdir", tmp_path / "work", "--threshold", 7)
    assert outcome.code == 2
    assert "dedup.threshold" in outcome.message
    assert not (tmp_path / "work").exists()


def test_redo_makes_the_same_again(done: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, done / "source")
    assert lola("run", recipe, *upto("dedup")).code == 0
    before = files_of(tmp_path / "work" / "deduped")
    assert lola("run", recipe, *upto("dedup"), "--redo", "identify").code == 0
    assert files_of(tmp_path / "work" / "deduped") == before


# Output


def test_output_is_plain_without_a_terminal(done: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, done / "source")
    outcomes = [
        lola_process("run", recipe, *upto("identify"), "--set", "executor.tasks=2", "--set", "executor.workers=2"),
        lola("run", recipe, "--dry-run"),
        lola("status", done / "work", "--languages"),
        lola("languages"),
        lola("balance", done / "work"),
        lola("--help"),
    ]
    for outcome in outcomes:
        assert outcome.code == 0, outcome.stderr
        assert not {"\x1b", "\r"} & {*outcome.stdout, *outcome.stderr}


def test_json_is_alone_on_stdout(done: Path) -> None:
    for call in (
        ("run", done / "recipe.yaml", "--json", *upto("identify")),
        ("run", done / "recipe.yaml", "--json", "--dry-run"),
        ("status", done / "work", "--json"),
        ("balance", done / "work", "--json"),
        ("languages", "--json"),
        ("recipe", "schema"),
    ):
        outcome = lola(*call)
        assert outcome.code == 0, outcome.stderr
        json.loads(outcome.stdout)


def shell(line: str, **environment: str) -> Outcome:
    """A line of bash in which LOLA stands for the command."""
    given = {**os.environ, "LOLA": f"{sys.executable} -m lola_data.cli", **environment}
    done = subprocess.run(
        ["bash", "-c", line.replace("LOLA", "$LOLA")], env=given, capture_output=True, timeout=300, check=False
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_closed_stderr(tmp_path: Path) -> None:
    """Nothing that is meant for it goes elsewhere: not to stdout, not into a file that got its number."""
    recipe = write_recipe(tmp_path, write_source(tmp_path / "source"))
    plain = shell(f"LOLA run {recipe} {' '.join(upto('identify'))} --json")
    assert plain.code == 0, plain.stderr
    before = files_of(tmp_path / "work" / "identified")
    shutil.rmtree(tmp_path / "work")
    outcome = shell(f"LOLA run {recipe} {' '.join(upto('identify'))} --json --set executor.tasks=2 2>&-")
    assert outcome == Outcome(0, plain.stdout, "")
    assert files_of(tmp_path / "work" / "identified") == before
    assert shell("LOLA recipe check nowhere.yaml 2>&-") == Outcome(2, "", "")


def test_a_closed_stdout_and_stdin(done: Path) -> None:
    model = done / "work" / "tokenizer" / "tokenizer.model"
    assert shell("LOLA languages >&-") == Outcome(0, "", "")
    assert shell(f"LOLA tokenizer encode {model} --text a <&-").code == 0
    outcome = shell(f"LOLA tokenizer encode {model} <&-")
    assert outcome.code == 1
    assert outcome.message == "standard input is closed; give the text with --text\n"


@pytest.mark.parametrize("command", ["languages", "languages --json", "recipe schema", "init --out -", "--help"])
def test_a_reader_that_leaves(command: str) -> None:
    """As `| head` does, only that nothing is read at all."""
    outcome = shell(f"set -o pipefail; (sleep 0.1; LOLA {command}; echo $? >&2) | true")
    assert outcome.stderr == "0\n"


def test_a_locale_without_letters(tmp_path: Path) -> None:
    """Task logs, tables and JSON name languages and files in all scripts."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    recipe = write_recipe(tmp_path, write_source(tmp_path / "source"))
    shard = pq.read_table(tmp_path / "source" / "el" / "el_part_00000.parquet")
    replace_shard(
        tmp_path / "source" / "el" / "el_part_00000.parquet", shard.rename_columns(["κείμενο", "a", "b", "c"])
    )
    outcome = shell(f"LOLA run {recipe} {' '.join(upto('identify'))} --set executor.tasks=2", **plain)
    assert outcome.code == 1
    assert "no column `text`; its columns are κείμενο, a, b, c" in outcome.message
    assert "Traceback" not in outcome.stderr
    assert "Logging error" not in outcome.stderr
    (log,) = (tmp_path / "work" / "logs" / "download").rglob("task_00000.log")
    logs = [path.read_text(encoding="utf-8") for path in log.parent.iterdir()]
    assert any("κείμενο" in text for text in logs)
    listed = shell("LOLA languages --json", **plain)
    assert {one["name"] for one in json.loads(listed.stdout)} >= {"Volapük"}
    for call in ("LOLA init --out Größe.yaml", f"LOLA run {recipe} --set workdir=Größe --dry-run"):
        outcome = shell(f"cd {tmp_path}; {call}", **plain)
        assert outcome.code in (1, 2)
        assert "set PYTHONUTF8=1" in outcome.stderr
        assert "Traceback" not in outcome.stderr


# Wrong calls


@pytest.mark.parametrize(
    "call",
    [
        ("tokenizer", "encode", "tokenizer.model", "--text", "a\udcffb"),
        ("generate", "run", "--prompt", "a\udcffb"),
        ("run", "a\udcffb.yaml"),
        ("status", "a\udcffb"),
        ("download", "--workdir", "a\udcffb"),
        ("identify", "a\udcffb", "--workdir", "w"),
        ("run", "demo.yaml", "--set", "workdir=a\udcffb"),
    ],
)
def test_arguments_that_are_no_text(call: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for outcome in (lola(*call), lola_process(*call)):
        assert outcome.code == 2
        assert "a\\xffb" in outcome.stderr
        assert "': not valid UTF-8 (at character" in outcome.stderr
        assert "Traceback" not in outcome.stderr
    assert not list(tmp_path.iterdir())


def test_unknown_command() -> None:
    outcome = lola_process("dedupe")
    assert outcome.code == 2
    assert "No such command 'dedupe'" in outcome.stderr
    assert "'dedup'" in outcome.stderr
    assert lola("zzz").code == 2


@pytest.mark.parametrize(
    "call",
    [
        ("run",),
        ("run", "a.yaml", "--onli", "dedup"),
        ("run", "a.yaml", "b.yaml"),
        ("dedup", "--survivor", "shortest"),
        ("dedup", "--bands", "many"),
        ("identify", "--languages", ","),
        ("tokenizer", "trane"),
        ("identify", "--workdir", "w", "--min-score-by-language", "de"),
    ],
)
def test_wrong_calls(call: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = lola(*call)
    assert outcome.code == 2
    assert outcome.stderr.strip()
    assert not list(tmp_path.iterdir())


# Plug-ins


@click.command()
@click.argument("name")
def greet(name: str) -> None:
    """Say hello.

    Example: lola-data greet you
    """
    click.echo(f"hello {name}")


def add_plug_in(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    def found(*, group: str) -> list[EntryPoint]:
        return [*entry_points(group=group), EntryPoint(name, value, group)]

    monkeypatch.setattr(lola_data.cli, "entry_points", found)


def test_a_plug_in_is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lola("greet", "you").code == 2
    add_plug_in(monkeypatch, "greet", f"{__name__}:greet")
    outcome = lola("greet", "you")
    assert (outcome.code, outcome.stdout) == (0, "hello you\n")
    listed = lola("--help").stdout.partition("Plug-ins")[2]
    assert listed.split()[1:4] == ["greet", "from", f"{__name__}:greet"]


def test_a_broken_plug_in_harms_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    add_plug_in(monkeypatch, "broken", "no_such_module_anywhere:command")
    assert lola("--help").code == 0
    assert lola("languages").code == 0
    outcome = lola("broken")
    assert outcome.code == 1
    assert "no_such_module_anywhere:command cannot be loaded" in outcome.message


@pytest.mark.parametrize(
    "call", [("balance",), ("inspect",), ("diff", "s3://other-bucket/x"), ("download", "--source", "url")]
)
def test_a_store_without_credentials(call: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's library knows no credentials: that is told in one line, with the address, and is no bug."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
    place = "s3://no-such-bucket/corpus"
    where = ("--path", place, "--languages", "de", "--dest", "out") if call[0] == "download" else (place,)
    outcome = lola_process(*call, *where)
    assert outcome.code == 1, outcome.stderr
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert "bug" not in outcome.message
    assert place in outcome.message
    assert "redentials" in outcome.message
