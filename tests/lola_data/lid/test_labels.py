"""Label maps: each trap between lid.176's codes, ISO 639-3 and CulturaX by hand."""

from __future__ import annotations

from itertools import combinations

import fasttext
import pytest

from lola_data.languages import LANGUAGES
from lola_data.lid.labels import CONFUSABLE_GROUPS, PREFIX, confusable, confusable_with, culturax_code
from lola_data.lid.models import model_path

LID176 = frozenset(
    str(label).removeprefix(PREFIX) for label in fasttext.load_model(str(model_path("lid.176.ftz"))).labels
)


def test_lid176_labels_are_culturax_codes_as_they_are() -> None:
    assert len(LID176) == 176
    assert all(culturax_code(f"__label__{label}") == label for label in LID176)
    assert LID176 - set(LANGUAGES) == {"co", "diq", "dty", "gv", "hif", "pfl", "sc", "sco", "vep"}
    assert set(LANGUAGES) <= LID176


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("als", "als"),
        ("als_Latn", "sq"),
        ("sqi_Latn", "sq"),
        ("aln_Latn", "sq"),
        ("gsw_Latn", "als"),
        ("nob_Latn", "no"),
        ("nor_Latn", "no"),
        ("nno_Latn", "nn"),
        ("kmr_Latn", "ku"),
        ("kur_Arab", "ckb"),
        ("ckb_Arab", "ckb"),
        ("hbs_Latn", "sh"),
        ("hbs_Cyrl", "sr"),
        ("srp_Latn", "sr"),
        ("srp_Cyrl", "sr"),
        ("bos_Latn", "bs"),
        ("hrv_Latn", "hr"),
        ("cmn_Hani", "zh"),
        ("zho_Hans", "zh"),
        ("zho_Hant", "zh"),
        ("yue_Hant", "yue"),
        ("wuu_Hani", "wuu"),
        ("azj_Latn", "az"),
        ("azj_Cyrl", "az"),
        ("azb_Arab", "azb"),
        ("arb_Arab", "ar"),
        ("arz_Arab", "arz"),
        ("swh_Latn", "sw"),
        ("zsm_Latn", "ms"),
        ("ind_Latn", "id"),
        ("lvs_Latn", "lv"),
        ("ekk_Latn", "et"),
        ("est_Latn", "et"),
        ("fas_Arab", "fa"),
        ("pes_Arab", "fa"),
        ("prs_Arab", "fa"),
        ("pbt_Arab", "ps"),
        ("npi_Deva", "ne"),
        ("uzn_Latn", "uz"),
        ("uzn_Cyrl", "uz"),
        ("ydd_Hebr", "yi"),
        ("plt_Latn", "mg"),
        ("quy_Latn", "qu"),
        ("quz_Latn", "qu"),
        ("grn_Latn", "gn"),
        ("gug_Latn", "gn"),
        ("ory_Orya", "or"),
        ("bho_Deva", "bh"),
        ("mai_Deva", "mai"),
        ("jav_Latn", "jv"),
        ("sun_Latn", "su"),
        ("fil_Latn", "tl"),
        ("tgl_Latn", "tl"),
        ("khk_Cyrl", "mn"),
        ("pan_Guru", "pa"),
        ("pnb_Arab", "pnb"),
        ("kpv_Cyrl", "kv"),
        ("koi_Cyrl", "kv"),
        ("mhr_Cyrl", "mhr"),
        ("nhn_Latn", "nah"),
        ("eml_Latn", "eml"),
        ("egl_Latn", "eml"),
        ("heb_Hebr", "he"),
        ("jpn_Jpan", "ja"),
        ("kor_Hang", "ko"),
        ("ell_Grek", "el"),
        ("eng_Latn", "en"),
    ],
)
def test_labels_with_a_script_go_by_iso_639_3(label: str, code: str) -> None:
    assert culturax_code(f"__label__{label}") == code
    assert code in LANGUAGES


def test_languages_culturax_has_not_keep_their_label() -> None:
    # K'iche' (quc) and Sipacapense (qum) look like Quechua codes and are Mayan.
    for label in ("xho_Latn", "quc_Latn", "qum_Latn", "ary_Arab", "lzh_Hani", "mag_Deva", "crh_Latn"):
        assert culturax_code(f"__label__{label}") == label


def test_labels_for_no_language_are_undetermined() -> None:
    assert culturax_code("__label__und_Xsux") == "und"
    assert culturax_code("__label__zxx_Latn") == "und"


def test_every_language_answers_to_its_iso_code() -> None:
    for language in LANGUAGES.values():
        if language.iso639_3 is not None:
            assert culturax_code(f"__label__{language.iso639_3}_{language.script}") == language.code


def test_a_code_is_in_one_group_at_most_and_exists() -> None:
    for left, right in combinations(CONFUSABLE_GROUPS, 2):
        assert not left & right
    for group in CONFUSABLE_GROUPS:
        assert len(group) > 1
        # Codes that are no CulturaX code must at least be ones that a map can give.
        assert all(code in LANGUAGES or code in LID176 or culturax_code(code) == code for code in group)


def test_confusable() -> None:
    assert confusable("hr", "bs")
    assert confusable("sh", "sr")
    assert confusable("id", "ms")
    assert confusable("yue", "zh")
    assert confusable("en", "en")
    assert not confusable("en", "de")
    assert not confusable("ku", "ckb")
    assert not confusable("myv", "ru")
    assert confusable_with("no") == {"no", "nn"}
    assert confusable_with("en") == {"en"}
