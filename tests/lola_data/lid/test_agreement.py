"""Agreement of claimed and identified languages, counted by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lola_data.lid.agreement import Agreement, agreement_of, agreement_report, by_group, unexpected_script


def test_counts_of_a_folder() -> None:
    lang = pa.array(["hr", "hr", "sr", "bs", "de", "und", "xx_Latn"])
    script = pa.array(["Latn", "Cyrl", "Latn", "Latn", "Latn", "Zyyy", "Grek"])
    assert agreement_of("hr", lang, script) == Agreement(own=2, kin=2, other=2, none=1, script=2)


def test_a_language_without_kin() -> None:
    lang = pa.array(["de", "ja", "ja"])
    assert agreement_of("ja", lang, pa.array(["Latn", "Jpan", "Hira"])) == Agreement(own=2, other=1, script=1)


@pytest.mark.parametrize(
    ("claimed", "script", "unexpected"),
    [
        ("sr", "Cyrl", False),
        ("sr", "Latn", False),
        ("ru", "Latn", True),
        ("ja", "Hani", False),
        ("ja", "Hira", False),
        ("zh", "Hani", False),
        ("zh", "Latn", True),
        ("ru", "Zyyy", False),
        ("my-own", "Grek", False),
    ],
)
def test_scripts(claimed: str, script: str, unexpected: bool) -> None:
    assert unexpected_script(claimed, pa.array([script])).tolist() == [unexpected]


def test_groups_count_kin_as_their_own() -> None:
    languages = {
        "hr": Agreement(own=6, kin=3, other=1),
        "sr": Agreement(own=8, kin=1, none=1),
        "ja": Agreement(own=5),
        "nn": Agreement(own=1, kin=4),
    }
    # Of the group of nn only nn is there.
    assert by_group(languages) == {"hr/sr": Agreement(own=18, other=1, none=1)}
    report = agreement_report(languages)
    assert list(report["languages"]) == ["hr", "ja", "nn", "sr"]
    assert report["groups"]["hr/sr"] == {"own": 18, "kin": 0, "other": 1, "none": 1, "script": 0}
    # Nothing was changed in what was given.
    assert languages["hr"] == Agreement(own=6, kin=3, other=1)
