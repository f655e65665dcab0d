from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from lola_data import plain_settings, train_config
from lola_data.errors import RecipeError
from lola_data.plain_settings import flat_settings
from lola_data.train_config import PRESETS, ModelConfig, TrainConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1.0}, "learning_rat: unknown key; did you mean 'learning_rate'?"),
        ({"model": {"layrs": 3}}, "model.layrs: unknown key; did you mean 'layers'?"),
        ({"model": 3}, "model: expected keys and values"),
        ({"seed": "3"}, "seed: expected int"),
        ({"tensorboard": 1}, "tensorboard: expected bool"),
        ({"model": {"top_k": True}}, "model.top_k: expected int"),
        ({"moe_backend": "groupd"}, "did you mean 'grouped'?"),
        ({"model": {"layers": 0}}, "model.layers: 0 is not >= 1"),
        ({"model": {"dropout": 1.0}}, "model.dropout: 1.0 is not < 1.0"),
        ({"learning_rate": float("nan")}, "learning_rate: nan"),
        ({"model": {"heads": 3}}, "model.heads: 3 heads do not divide d_model 128"),
        ({"model": {"experts": 2, "top_k": 3}}, "model.top_k: 3 is more than the 2 experts"),
        ({"batch_size": 8, "micro_batch": 3}, "micro_batch: 3 does not divide batch_size 8"),
        ({"min_learning_rate": 1.0}, "min_learning_rate: 1.0 is above"),
        ({"schedule": "wsd", "warmup_share": 0.9}, "cooldown_share"),
        ({"weights": {"de": -1}}, "'de'"),
        ({"weights": {"de": 0}}, "every weight is 0"),
    ],
)
def test_bad_settings_are_refused_by_name(values: dict, message: str):
    with pytest.raises(RecipeError) as error:
        TrainConfig.from_dict(values)
    assert message in str(error.value)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_round_trip(name: str):
    config = PRESETS[name]
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_replace_keeps_the_other_model_values():
    config = TrainConfig().replace({"seed": 5, "model": {"layers": 6}})
    assert (config.seed, config.model.layers, config.model.d_model) == (5, 6, TrainConfig().model.d_model)


def test_steps_are_tokens_rounded_up():
    config = TrainConfig(tokens=1025, batch_size=4, model=ModelConfig(seq_len=64))
    assert (config.step_tokens, config.steps) == (256, 5)


def test_lola_takes_experts_in_odd_blocks():
    assert PRESETS["lola-1b"].model.moe_layers == list(range(1, 24, 2))
    assert ModelConfig(moe_every=0).moe_layers == []


def test_every_field_is_described_in_the_json_schema():
    schema = TypeAdapter(TrainConfig).json_schema()
    model = schema["$defs"]["ModelConfig"]["properties"]
    fields = {**schema["properties"], **model}
    assert not [name for name, field in fields.items() if not field.get("description")]
    assert model["layers"]["minimum"] == 1
    assert schema["additionalProperties"] is False


def test_settings_need_the_standard_library_alone():
    for module in (train_config, plain_settings):
        lines = Path(str(module.__file__)).read_text("utf-8").splitlines()
        imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
        assert "dataclasses" in imported
        assert imported <= sys.stdlib_module_names | {"lola_data"}


def test_settings_are_flattened_by_hand():
    given = {"seed": 1, "model": {"layers": 6, "inner": {"a": None}}, "weights": {}}
    assert flat_settings(given) == {"seed": 1, "model.layers": 6, "model.inner.a": None, "weights": {}}
