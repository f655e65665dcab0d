"""What the programs never do with data of others, told by their source; locked dependencies; what messages show."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.errors import RecipeError
from lola_data.recipe import load_recipe
from tests.audit import verdict
from tests.console import lola
from tests.lock import LOCKED, PINNED, UNLOCKED, hashes_of, is_wanted, pins

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("lola_data", "tokenizer", "train", "pipelines", "benchmarks")
RUN_WHAT_THEY_READ = frozenset(
    {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
)
RESTRICTED = "train/checkpoint_index.py"
"""The one file that may read a pickle: the classes it may name are listed there."""


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def faults_of(name: str, tree: ast.Module) -> list[str]:
    """Lines of a source that would run what they read, or write where an archive says."""
    found: list[str] = []
    for node in ast.walk(tree):
        modules = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name != RESTRICTED:
            found += [f"{name}: imports {one}" for one in modules if one.partition(".")[0] in RUN_WHAT_THEY_READ]
        if isinstance(node, ast.Call) and (why := _fault_of(node)):
            found.append(f"{name}:{node.lineno}: {why}")
    return found


def _fault_of(call: ast.Call) -> str | None:
    called = ast.unparse(call.func)
    last = called.rpartition(".")[2]
    given = {one.arg: ast.unparse(one.value) for one in call.keywords if one.arg}
    module = called.partition(".")[0]
    if called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
        return f"{called}()"
    if given.get("shell", "False") != "False":
        return "a shell"
    if last in ("unsafe_load", "full_load", "unsafe_load_all", "full_load_all"):
        return "YAML with tags of Python"
    if module == "yaml" and last in ("load", "load_all"):
        loader = given.get("Loader") or (ast.unparse(call.args[1]) if len(call.args) > 1 else "")
        # Ours is made of SafeLoader: see the test below.
        return None if loader in ("_Loader", "yaml.SafeLoader", "yaml.CSafeLoader") else "YAML without SafeLoader"
    if given.get("allow_pickle", "False") != "False":
        return "NumPy files with pickles in them"
    if called == "torch.load" and given.get("weights_only") != "True":
        return "torch.load without weights_only"
    if given.get("weights_only", "True") != "True":
        return "weights_only is off"
    if called.endswith(("pickle.load", "pickle.loads", "FileSystemReader")):
        return "a pickle"
    if last in ("extractall", "unpack_archive") and given.get("filter") != "'data'":
        return "an archive unpacked without a filter"
    if given.get("trust_remote_code", "False") != "False":
        return "code of a hub"
    return None


def test_nothing_read_is_run() -> None:
    sources = list(_sources())
    assert len(sources) > 200
    assert [fault for name, tree in sources for fault in faults_of(name, tree)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "yaml.load(text)",
        "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "yaml.unsafe_load(text)",
        "numpy.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=some)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "tar.extractall(path)",
        "tar.extractall(path, filter='fully_trusted')",
        "shutil.unpack_archive(path)",
        "FileSystemReader(path)",
    ],
)
def test_each_of_these_would_be_found(line: str) -> None:
    assert len(faults_of("x.py", ast.parse(line))) == 1


def test_only_one_file_reads_a_pickle_and_it_lists_what_may_be_in_it() -> None:
    using = [name for name, tree in _sources() if any("Unpickler" in ast.dump(node) for node in ast.walk(tree))]
    assert using == [RESTRICTED]


def test_the_yaml_of_recipes_makes_plain_values_only() -> None:
    import yaml

    from lola_data.recipe_yaml import _Loader  # pyright: ignore[reportPrivateUsage]

    assert issubclass(_Loader, yaml.SafeLoader)
    kinds = {tag for tag in _Loader.yaml_constructors if tag is not None}
    assert all(tag.startswith("tag:yaml.org,2002:") for tag in kinds)
    assert not any("python" in tag for tag in kinds)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: !!python/object/apply:os.system ['true']", "r.yaml:1: not valid YAML: the tag"),
        ("seed: !!python/name:os.system", "r.yaml:1: not valid YAML: the tag"),
        ("seed: !!python/object:lola_data.recipe.Recipe {}", "r.yaml:1: not valid YAML: the tag"),
        ("%TAG ! tag:yaml.org,2002:python/\n---\nseed: !name:os.system", "r.yaml:3: not valid YAML: the tag"),
        (BOMB, "r.yaml:2: not valid YAML: the alias"),
        ("seed: 1\nseed: 2", "r.yaml:2: `seed` is given twice"),
        ("dedup: {jaccard: 0.8,\n 'jaccard': 0.9}", "r.yaml:2: `dedup.jaccard` is given twice"),
        ("seed: 1\n" + "# x\n" * 2**19, "r.yaml: over 1 MB, so not a recipe"),
        ("a: {" * 100_000, "r.yaml:1: not valid YAML: nested more than 20 deep"),
    ],
)
def test_a_recipe_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(text, "utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe("r.yaml")
    assert str(caught.value).startswith(said)
    outcome = lola("run", "r.yaml")
    assert outcome.code == 2
    assert outcome.message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "https://me:hunter2hunter2@host/r.yaml"),
        ("download", "--dest", "d", "--max-bytes=s3://key:hunter2hunter2@bucket/x"),
        ("verify", "s3://key:hunter2hunter2@bucket/x"),
        ("verify", "a", "s3://key:hunter2hunter2@bucket/x"),
        ("balance", "--by", "s3://key:hunter2hunter2@bucket/x", "."),
        ("s3://key:hunter2hunter2@bucket/x",),
        ("run", "hunter2hunter2.yaml"),
        ("inspect", "--seed", "hunter2hunter2"),
    ],
)
def test_no_message_shows_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    outcome = lola(*words)
    assert outcome.code != 0
    assert "hunter2" not in outcome.stderr + outcome.stdout
    assert "***" in outcome.stderr


def test_no_message_steers_the_terminal(tmp_path: Path) -> None:
    outcome = lola("run", tmp_path / "a\x1b[2J\u202eb\x07.yaml")
    assert outcome.code == 2
    assert "a\\x1b[2J\\u202eb\\x07.yaml: no such recipe" in outcome.stderr


def test_every_dependency_is_locked() -> None:
    """Of the same version; after a change of constraints.txt `make lock` sees to it."""
    text = LOCKED.read_text("utf-8")
    entries: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        if entry.startswith("#"):
            continue
        first, *hashes = entry.split(" \\\n")
        name, version = first.split("==")
        assert hashes, name
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", one) for one in hashes), name
        entries[name] = version
    pinned = pins(PINNED.read_text("utf-8"))
    assert entries == {name: version for name, version in pinned.items() if name not in UNLOCKED}


@pytest.mark.parametrize(
    ("wheel", "wanted"),
    [
        ("click-8.5.1-py3-none-any.whl", True),
        ("six-1.17.0-py2.py3-none-any.whl", True),
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", True),
        ("numpy-2.4.6-cp312-cp312-macosx_11_0_arm64.whl", True),
        ("numpy-2.4.6-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("polars-2.1.0-cp39-abi3-manylinux_2_24_aarch64.whl", True),
        ("numpy-2.4.6-cp313-cp313t-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.4.6-cp311-cp311-win_amd64.whl", False),
        ("numpy-2.4.6-cp311-cp311-musllinux_1_2_x86_64.whl", False),
        ("numpy-2.4.6-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.4.6.tar.gz", False),
    ],
)
def test_wheels_that_are_locked(wheel: str, wanted: bool) -> None:
    assert is_wanted(wheel) == wanted


def test_hashes_are_of_one_version_and_of_the_source_where_there_is_no_wheel() -> None:
    def file(name: str, digest: str) -> dict[str, Any]:
        return {"filename": name, "hashes": {"sha256": digest}}

    listing = [
        file("a_b-1.0-py3-none-any.whl", "w"),
        file("a_b-1.0.1-py3-none-any.whl", "x"),
        file("a_b-1.0.tar.gz", "s"),
        file("a-b-2.0.tar.gz", "t"),
    ]
    assert hashes_of(listing, "a-b", "1.0") == ["w"]
    assert hashes_of(listing, "A.B", "2.0") == ["t"]
    with pytest.raises(SystemExit, match="a-b==3"):
        hashes_of(listing, "a-b", "3.0")


def test_what_could_not_be_looked_up_does_not_pass_for_sound() -> None:
    unknown = {"name": "a", "skip_reason": "Dependency not found on PyPI and could not be audited: a (1)"}
    sound = {"name": "b", "version": "1", "vulns": []}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-2025-1", "fix_versions": ["3"]}]}
    assert verdict({"dependencies": [unknown]})[1][0].startswith("no network: not audited")
    assert verdict({"dependencies": [unknown, sound]}) == (
        True,
        ["1 packages audited, 0 known vulnerabilities; not audited: a"],
    )
    assert verdict({"dependencies": [sound, bad]}) == (
        False,
        ["c 2: PYSEC-2025-1; mended in 3", "2 packages audited, 1 known vulnerabilities"],
    )
