"""What `lola-data plan` foresaw for a stage, and what became of it.

Rows and sizes are the same for the same recipe, corpus and seed, so forecast and outcome of these stand in the stage's
manifest (and in no digest of it). Times and memory are not: they stand in ``logs/<stage>/timing.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lola_data import storage
from pipelines.state import digest
from pipelines.usage import usage_of

if TYPE_CHECKING:
    from lola_data.layout import Layout
    from pipelines.run import DriverStage
    from pipelines.stage import Stage

FORECAST_FILE = "forecast.json"
"""Below ``logs/``."""


def forecast_of(stage: Stage | DriverStage) -> dict[str, Any] | None:
    """The forecast of a stage; None where there is none, or where it was made for other settings.

    A forecast of a stage holds for what comes in as foreseen: the settings of every stage before it must be those of
    the forecast too, as far as they have run.
    """
    layout = stage.layout
    path = layout.logs(FORECAST_FILE)
    if not storage.exists(path):
        return None
    for told in storage.read_json(path)["stages"]:
        mine = told["stage"] == stage.name
        settings = stage.settings if mine else _settings_of(layout, told["stage"])
        if settings is not None and digest(settings) != told.get("settings"):
            return None
        if mine:
            return told
    return None


def _settings_of(layout: Layout, stage: str) -> dict[str, Any] | None:
    path = layout.manifest(stage)
    return storage.read_json(path)["fingerprint"]["settings"] if storage.exists(path) else None


def beside_outcome(forecast: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """``rows`` and ``disk_bytes``: each with ``forecast``, the bounds ``low`` and ``high``, and ``outcome``."""
    outcome = _outcome(manifest)
    return {
        name: {
            "forecast": round(forecast[name]["value"]),
            **{
                bound: None if forecast[name][bound] is None else round(forecast[name][bound])
                for bound in ("low", "high")
            },
            "outcome": outcome[name],
        }
        for name in ("rows", "disk_bytes")
        # Files that are linked take no disk: nothing was foreseen for them.
        if forecast[name]["value"]
    }


def timing_of(stage: Stage | DriverStage, manifest: dict[str, Any], seconds: float) -> dict[str, Any]:
    """``timing.json``: ``seconds`` of the run that finished the stage, ``core_seconds`` and ``peak_bytes`` of all its
    tasks, and, where there was a forecast, ``forecast`` and ``outcome`` with the same keys.
    """
    used = usage_of(stage.layout, stage.name)
    took = {"seconds": round(seconds, 2), "core_seconds": used.core_seconds, "peak_bytes": used.peak_bytes}
    forecast = forecast_of(stage)
    if forecast is None:
        return took
    return {**took, "forecast": forecast, "outcome": {**_outcome(manifest), **took}}


def _outcome(manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "rows": manifest.get("totals", {}).get("out", {}).get("documents"),
        "disk_bytes": sum(file["bytes"] for file in manifest.get("files", [])),
    }
