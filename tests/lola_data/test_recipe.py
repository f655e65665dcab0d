from __future__ import annotations

from pathlib import Path

import pytest

from lola_data.errors import RecipeError
from lola_data.presets import VALUES, preset, preset_text
from lola_data.recipe import Recipe, json_schema, load_recipe, parse_recipe, parse_value, render_recipe


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
        ("languages: [de, xq]\n", r"r\.yaml:?\d*: .*xq"),
        ("languages: []\n", "`languages` is empty"),
        ("languages: [de, de]\n", "names a code twice"),
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


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe("sed: 1\ndedup:\n  band: 3\n  rows: x\n")
    assert len(str(caught.value).splitlines()) == 3


def test_norwegian_is_not_false_and_small_numbers_are_numbers() -> None:
    assert parse_recipe("languages: [no, nn, da]\n").languages == ["no", "nn", "da"]
    assert [parse_value(text) for text in ("no", "yes", "on", "1e-4", "1_000", "12:30", "true", "~")] == [
        "no", "yes", "on", 1e-4, 1000, "12:30", True, None,
    ]  # fmt: skip


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
