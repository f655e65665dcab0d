from __future__ import annotations

import ast
from pathlib import Path

import pytest

from lola_data.errors import RecipeError
from lola_data.presets import VALUES, preset, preset_text
from lola_data.recipe import Recipe, json_schema, load_recipe, parse_recipe, render_recipe
from lola_data.recipe_yaml import parse_value


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "languages: [de, no]\nidentify:\n  polcy: drop\n",
            r"r\.yaml:3: `identify\.polcy`: unknown key; did you mean `policy`\?",
        ),
        ("dedupe: {}\n", r"r\.yaml:1: `dedupe`: unknown key; did you mean `dedup`\?"),
        ("seed: 1\n\nidentify:\n  min_score: high\n", r"r\.yaml:4: `identify\.min_score`: .*number.*high"),
        ("dedup:\n  threshold: 1.5\n", r"r\.yaml:2: `dedup\.threshold`: .*less than or equal to 1"),
        ("dedup:\n  exact: 1\n", r"r\.yaml:2: `dedup\.exact`: .*boolean"),
        ("identify:\n  policy: delete\n", r"r\.yaml:2: `identify\.policy`: .*'drop', 'keep' or 'relabel'"),
        ("sample:\n  method: budgets\n", r"r\.yaml:1: `sample`: `method: budgets` needs `budgets`"),
        ("sample:\n  unit: tokens\n", r"needs `tokenizer`"),
        ("sample:\n  method: unimax\n", r"needs `total`"),
        ("sample:\n  method: lola-v1\n", r"set `unit: documents`"),
        ("download:\n  source: local\n", r"needs `path`"),
        ("download:\n  path: x\n", r"`path` has no meaning with `source: sample`"),
        ("seed: 1\nlanguages: [de, xq]\n", r"^r\.yaml:2: `languages\.1`: language 'xq': not a CulturaX code"),
        ("seed: 1\nlanguages:\n- de\n- xq\n", r"^r\.yaml:4: `languages\.1`: .*xq"),
        ("languages: []\n", r"^r\.yaml:1: `languages`: `languages` is empty"),
        ("seed: 1\nlanguages:\n- de\n- sw\n- de\n", r"^r\.yaml:5: `languages\.2`: names a code twice: `de`"),
        ("workdir: ''\n", r"^r\.yaml:1: `workdir`: an empty path"),
        ("seed: 1\nseed: 2\n", r"r\.yaml:2: `seed` is given twice"),
        ("dedup:\n  bands: 14\n  bands: 15\n", r"r\.yaml:3: `dedup\.bands` is given twice"),
        ("a: [1,\n", r"r\.yaml:\d: not valid YAML"),
        ("- a\n- b\n", r"r\.yaml:1: a recipe is a mapping"),
        ("train:\n  stepz: 3\n", r"r\.yaml:2: `train\.stepz`: unknown key"),
    ],
)
def test_faults_are_told_with_line_and_key(text: str, wanted: str) -> None:
    with pytest.raises(RecipeError, match=wanted) as caught:
        parse_recipe(text, name="r.yaml")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", ["de", "5", "{de: 1}", "[1, 2]", "", "[[de]]", "true"])
def test_languages_that_are_no_list_are_one_fault(value: str) -> None:
    with pytest.raises(RecipeError, match=r"^r\.yaml:1: `languages`: write a list of codes, such as \[d") as caught:
        parse_recipe(f"languages: {value}\n", name="r.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\0b", r"^r\.yaml:{line}: not valid YAML: the character U\+0000 may not stand in it"),
        ("\x07", r"^r\.yaml:{line}: not valid YAML: the character U\+0007 may not stand in it"),
        ("workdir: !!bool x", r"^r\.yaml:{line}: not valid YAML: the tag `tag:yaml\.org,2002:bool` is not understood"),
        ("workdir: !!timestamp x", r"^r\.yaml:{line}: .*the tag"),
        ("workdir: !!python/object/apply:os.system [ls]", r"^r\.yaml:{line}: .*the tag"),
        (
            "workdir: &x [*x]",
            r"^r\.yaml:{line}: not valid YAML: the alias `\*x` is not understood here; write the value",
        ),
        ("dedup: &x {}\nidentify: *x", r"^r\.yaml:4: .*the alias"),
        ("workdir: " + "[" * 1000, r"^r\.yaml:{line}: not valid YAML: nested more than 20 deep"),
        ("workdir: " + "{a: " * 1000, r"^r\.yaml:{line}: not valid YAML: nested more than 20 deep"),
        ("unit_mb: " + "9" * 5000, r"^r\.yaml:{line}: not valid YAML: `9+\.\.\.` is too large a number"),
        ("unit_mb: 9223372036854775808", r"^r\.yaml:{line}: .*too large a number"),
        ("sample: {alpha: .inf}", r"^r\.yaml:{line}: not valid YAML: `\.inf` is not a number that can be counted with"),
        ("sample: {alpha: -.inf}", r"^r\.yaml:{line}: .*`-\.inf` is not a number"),
        ("sample: {alpha: .nan}", r"^r\.yaml:{line}: .*`\.nan` is not a number"),
        ("sample: {alpha: 1e999}", r"^r\.yaml:{line}: .*`1e999` is not a number"),
        ("1: 2", r"^r\.yaml:{line}: `1` cannot be a key"),
        ("true: 2", r"^r\.yaml:{line}: `true` cannot be a key"),
        ("? [a, b]\n: 2", r"^r\.yaml:{line}: a list or mapping cannot be a key"),
        ("2024-05-01: 2", r"^r\.yaml:{line}: `2024-05-01`: unknown key"),
        ("<<: {dedup: {}}", r"^r\.yaml:{line}: `<<`: unknown key"),
        ("sample: {alpha: 2024-13-45}", r'^r\.yaml:{line}: `sample\.alpha`: .*number.*"2024-13-45"'),
        ("=: 1", r"^r\.yaml:{line}: `=`: unknown key"),
        (r'workdir: "a\0b"', r"^r\.yaml:{line}: not valid YAML: a text with a NUL character"),
        (r'workdir: "a\ud800b"', r"^r\.yaml:{line}: not valid YAML: a text with a NUL character, or with half of one"),
        ("--- a\n--- b", r"^r\.yaml:\d: not valid YAML"),
    ],
)
def test_yaml_that_no_recipe_needs_is_refused(text: str, wanted: str) -> None:
    """In a file with its line; in --set with the option."""
    with pytest.raises(RecipeError, match=wanted.format(line=3)) as caught:
        parse_recipe(f"# A comment\nseed: 1\n{text}\n", name="r.yaml")
    assert "\n" not in str(caught.value)
    key, _, value = text.partition(": ")
    if key in ("workdir", "unit_mb", "sample"):
        with pytest.raises(RecipeError, match=wanted.format(line=3).replace(r"r\.yaml:3: ", rf"--set {key}=.*: ")):
            parse_recipe("", overrides=[f"{key}={value}"])


def test_an_alias_bomb_does_not_go_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(RecipeError, match=r"^r\.yaml:2: .*the alias `\*a0`"):
        parse_recipe("\n".join(lines), name="r.yaml")


def test_long_digits_take_no_longer_than_other_text() -> None:
    """The pattern of a number must not be tried from each digit anew: that would take hours here."""
    assert parse_value("1" * 500_000 + "x") == "1" * 500_000 + "x"


def test_what_looks_odd_but_is_meant_is_taken() -> None:
    recipe = parse_recipe('workdir: 2024-05-01\ndedup: &unused {waive: ["no", de]}\n')
    assert (recipe.workdir, recipe.dedup.waive) == ("2024-05-01", ["no", "de"])
    # JSON of what lies beyond U+FFFF, as a script may write it.
    assert parse_recipe("", overrides=[r'workdir="\ud83d\ude00"']).workdir == "\U0001f600"
    assert parse_recipe("", overrides=[f"seed={2**63 - 1}"]).seed == 2**63 - 1


def test_an_empty_section_is_the_default() -> None:
    empty = "".join(f"{name}:\n" for name in json_schema()["properties"] if "_" not in name)
    sections = [line for line in empty.splitlines() if line[:-1] not in ("workdir", "seed", "languages")]
    assert len(sections) == 10
    assert parse_recipe("\n".join(sections)) == Recipe()
    assert parse_recipe("train:\n  model:\n  seed: 3\n").train.seed == 3
    assert parse_recipe("dedup:\n", overrides=["dedup.threshold=0.9"]).dedup.threshold == 0.9
    with pytest.raises(RecipeError, match=r"^r\.yaml:1: `seed`: .*integer"):
        parse_recipe("seed:\n", name="r.yaml")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("dedup: {{waive: [de, {}]}}", "dedup.waive.1"),
        ("identify: {{min_score_by_language: {{{}: 0.5}}}}", "identify.min_score_by_language.{}"),
        ("sample: {{method: budgets, budgets: {{{}: 5}}}}", "sample.budgets.{}"),
        ("train: {{weights: {{de: 1.0, {}: 0.5}}}}", "train.weights.{}"),
    ],
)
def test_codes_that_cannot_be_meant_are_refused_in_every_section(text: str, place: str) -> None:
    for source, code, words in (
        ("source: sample", "ed", "language 'ed': not a CulturaX code; the nearest is"),
        ("source: hub", "eng_Latn", "language 'eng_Latn': not a CulturaX code; the nearest is 'en'"),
        ("source: local, path: x", "German", "`German` is neither a CulturaX code nor the name of a language folder"),
    ):
        with pytest.raises(RecipeError) as caught:
            parse_recipe(f"download: {{{source}}}\n{text.format(code)}\n", name="r.yaml")
        assert str(caught.value).startswith(f"r.yaml:2: `{place.format(code)}`: {words}")
    for source, code in (
        ("source: hub", "sw"),
        ("source: local, path: x", "eng_Latn"),
        ("source: local, path: x", "ed"),
    ):
        parse_recipe(f"download: {{{source}}}\n{text.format(code)}\n")
    # One stage on a tree that is given to it: nothing is known of where its folders come from.
    parse_recipe(text.format("pt-BR"))


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe("sed: 1\ndedup:\n  band: 3\n  rows: x\n")
    assert len(str(caught.value).splitlines()) == 3


def test_norwegian_is_not_false_and_small_numbers_are_numbers() -> None:
    assert parse_recipe("languages: [no, nn, da]\n").languages == ["no", "nn", "da"]
    assert [parse_value(text) for text in ("no", "yes", "on", "1e-4", "1_000", "12:30", "true", "~")] == [
        "no", "yes", "on", 1e-4, 1000, "12:30", True, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "7",
        "-1",
        "+1",
        "-0",
        "1_000",
        "-1_000",
        "007",
        "-9223372036854775807",
        "1.5",
        "-1.5",
        "-.5",
        "1e3",
        "-1E-3",
    ],
)
def test_numbers_are_what_python_reads(text: str) -> None:
    value = parse_value(text)
    assert value == ast.literal_eval(text.lstrip("0") or "0")
    assert isinstance(value, float if set(text) & set(".eE") else int)


@pytest.mark.parametrize("key", ["layers", "d_model", "top_k", "capacity_factor", "balance_loss"])
def test_numbers_below_the_bound_are_refused_in_the_inner_section_too(key: str) -> None:
    with pytest.raises(RecipeError, match=f"r:1: `train.model.{key}`.*(-3|greater)"):
        parse_recipe(f"train: {{model: {{{key}: -3}}}}", name="r")


def test_overrides_win_and_their_faults_name_them() -> None:
    recipe = parse_recipe("sample:\n  alpha: 0.1\n", overrides=["sample.alpha=0.7", "languages=[de, no]", "seed=5"])
    assert (recipe.sample.alpha, recipe.languages, recipe.seed) == (0.7, ["de", "no"], 5)
    with pytest.raises(RecipeError, match=r"--set sample\.alfa=1: `sample\.alfa`: unknown key; did you mean `alpha`"):
        parse_recipe("", overrides=["sample.alfa=1"])
    with pytest.raises(RecipeError, match=r"write it as --set section\.key=value"):
        parse_recipe("", overrides=["sample.alpha"])
    with pytest.raises(RecipeError, match="`seed` is a single value"):
        parse_recipe("seed: 1", overrides=["seed.x=1"])


@pytest.mark.parametrize("name", list(VALUES))
def test_presets_are_commented_recipes_that_parse_back(name: str) -> None:
    text = preset_text(name)
    assert parse_recipe(text) == preset(name)
    keys = [line for line in text.splitlines() if line.startswith("  ") and not line.strip().startswith("#")]
    comments = [line for line in text.splitlines() if line.strip().startswith("#")]
    assert len(comments) >= len(keys)


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(RecipeError, match="demo, balanced, lola-v1"):
        preset("lola-v2")


def test_every_field_has_a_description() -> None:
    schema = json_schema()
    for name, definition in {"Recipe": schema, **schema["$defs"]}.items():
        for key, field in definition["properties"].items():
            assert field.get("description") or "$ref" in field, f"{name}.{key}"


def test_rendered_recipes_parse_back() -> None:
    recipe = parse_recipe(
        'workdir: "a: b #c"\nlanguages: [no, de]\nsample: {method: budgets, budgets: {no: 5, de: 7}}\n'
    )
    assert parse_recipe(render_recipe(recipe, title="x")) == recipe


def test_an_empty_recipe_is_the_default() -> None:
    assert parse_recipe("") == parse_recipe("# nothing\n") == Recipe()


def test_data_taken_for_a_recipe_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes("seed: 1\n# ß".encode() + b"\n" * (2**20 - 12))
    assert path.stat().st_size == 2**20
    assert load_recipe(path).seed == 1
    path.write_bytes(b"seed: 1\n#" + "ß".encode() * 2**20)
    for endless in (path, Path("/dev/zero")):
        with pytest.raises(RecipeError, match=rf"{endless}: over 1 MB, so not a recipe"):
            load_recipe(endless)


def test_a_missing_file_says_how_to_get_one() -> None:
    with pytest.raises(RecipeError, match=r"nope\.yaml: no such recipe; `lola-data init`"):
        load_recipe("nope.yaml")
