"""What the stages ``match`` are checked by: all pairs of a made collection, and the memory of joining many pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.stages.signatures import BANDS, GAP, NGRAM, ROWS

if TYPE_CHECKING:
    from pathlib import Path

GROUPED = 0.4
"""Share of the made documents that are edited copies of others."""
WORDS = 80
MEMORY_DOCUMENTS = 1_000_000
MEMORY_GROUP = 4
MEMORY_UNITS = 10
MEMORY_PARTS = 64


def made_texts(count: int, seed: int = 3) -> list[str]:
    """Documents of some 80 words: originals, copies edited to similarities of 0.6 to 1, copies of copies (chains),
    exact copies in another case and spacing, and some too short for any run of five words. Mixed."""
    import numpy as np

    from benchmarks.pairs import SCRIPTS, vocabulary

    draws = np.random.default_rng(seed)
    pools = {script: vocabulary(script, draws) for script in SCRIPTS}
    scripts = list(SCRIPTS)
    rows: list[tuple[str, Any]] = []
    while len(rows) < count:
        kind = draws.random()
        if rows and kind < GROUPED:
            # A copy of one of the last documents is at times a copy of a copy.
            script, words = rows[int(draws.integers(max(0, len(rows) - 50), len(rows)))]
            copy = words.copy()
            edits = int(draws.integers(0, 5))
            if edits and copy.size > 8:
                places = draws.choice(copy.size, size=edits, replace=False)
                copy[places] = (copy[places] + draws.integers(1, len(pools[script]), size=edits)) % len(pools[script])
            rows.append((script, copy))
            continue
        script = scripts[int(draws.integers(len(scripts)))]
        size = int(draws.integers(1, 8)) if kind > 0.98 else int(draws.integers(WORDS // 2, WORDS * 3 // 2))
        rows.append((script, draws.integers(len(pools[script]), size=size)))
    texts: list[str] = []
    for script, words in rows:
        text = SCRIPTS[script][1].join([pools[script][one] for one in words.tolist()])
        dressed = int(draws.integers(3))
        texts.append(text if dressed == 0 else text.upper() if dressed == 1 else f"  {text.replace(' ', chr(10), 3)} ")
    return [texts[int(row)] for row in draws.permutation(len(texts))]


def check_all_pairs(count: int, out: Path) -> tuple[str, bool]:
    """Run our stage on made documents and play its rule through by comparing all pairs; what was found, and whether
    both removed the same and the bands missed as many pairs as the S-curve says."""
    from benchmarks.agreement import read_tree
    from benchmarks.ours import stages
    from benchmarks.stages.match import RECIPE, SEED, THRESHOLD

    texts = made_texts(count)
    tree = out / "tree"
    write_tree(tree, "en", texts)
    stages(out / "work", ["dedup"], trees={"identify": str(tree)}, recipe=RECIPE)()
    removed = read_tree(out / "work" / "removed" / "dedup", ["id", "kept_id"])
    ours = {
        row_of(one): row_of(kept)
        for one, kept in zip(removed["id"].to_pylist(), removed["kept_id"].to_pylist(), strict=True)
    }
    return judge(texts, ours, threshold=THRESHOLD, seed=SEED)


def row_of(name: str) -> int:
    """The number at the end of an id."""
    return int(name.rpartition("/")[2])


def judge(texts: list[str], ours: dict[int, int], *, threshold: float, seed: int) -> tuple[str, bool]:
    """Compare ``ours``, removed document -> kept document, with the rule played through on all pairs."""
    import numpy as np

    from benchmarks.alike import all_pairs, chance, grams_of, normalised, play, within_chance
    from benchmarks.stages.signatures import sign_texts

    plain = [normalised(text) for text in texts]
    pairs = all_pairs(grams_of(texts, NGRAM), threshold)
    different = np.array([plain[a] != plain[b] for a, b in zip(pairs.one, pairs.other, strict=True)], dtype=bool)
    pairs = pairs.keep(different)
    keys = sign_texts(texts, seed)
    met = (keys[pairs.one] == keys[pairs.other]).any(axis=1)
    keeper = play(len(texts), plain, pairs.keep(met))
    wanted = {int(one): int(keeper[one]) for one in np.flatnonzero(keeper >= 0)}
    without_lsh = play(len(texts), plain, pairs)
    missed = int((~met).sum())
    expected, spread, chance_holds = within_chance(missed, 1.0 - chance(pairs.similarity, BANDS, ROWS))
    # Sets as small as these miss somewhat fewer than the formula says (see lola_data.minhash); among many pairs that is
    # beyond chance.
    chance_holds |= abs(missed - expected) <= GAP * met.size
    differing = len(wanted.keys() ^ ours.keys())
    others = sum(wanted[one] != ours[one] for one in wanted.keys() & ours.keys())
    lost = int(((without_lsh >= 0) & (keeper < 0)).sum())
    text = (
        f"on {len(texts):,} made documents {len(ours):,} removed, {differing} otherwise than by comparing all pairs and"
        f" {others} for another document, LSH misses apart: of {met.size:,} pairs at or above {threshold} {missed:,} "
        f"missed (S-curve: {expected:.0f} +- {spread:.0f}), {lost:,} documents more kept for it"
    )
    return text, differing == 0 and others == 0 and chance_holds


def write_tree(tree: Path, lang: str, texts: list[str], *, rows: int | None = None) -> None:
    """Shards of identified documents, of so many rows each (all in one); ids count on through the shards."""
    rows = rows or max(1, len(texts))
    for number, start in enumerate(range(0, len(texts), rows)):
        _write_shard(tree / lang / f"made-{number:05d}.parquet", lang, texts[start : start + rows], start)


def _write_shard(path: Path, lang: str, texts: list[str], start: int) -> None:
    import numpy as np
    import pyarrow as pa

    from lola_data.schemas import IDENTIFIED
    from lola_data.shards import ShardWriter

    count = len(texts)
    same = pa.array([lang] * count, pa.string())
    columns = {
        "id": pa.array([f"{lang}/made/{start + row}" for row in range(count)]),
        "text": pa.array(texts, pa.string()),
        "claimed_lang": same,
        "lang": same,
        "lang_score": pa.array(np.ones(count, np.float32)),
        "script": pa.array(["Zyyy"] * count, pa.string()),
    }
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in IDENTIFIED]
    with ShardWriter(str(path), IDENTIFIED) as writer:
        writer.write(pa.RecordBatch.from_arrays(arrays, schema=IDENTIFIED))


def memory_per_duplicate() -> tuple[float, float | None]:
    """Bytes for each document that has a duplicate, of joining a million documents in groups of four: ours, then
    datatrove's (None where it cannot be imported). Measured in processes of their own, as the growth of the most memory
    resident over what was resident with imports and input."""
    found: list[float | None] = []
    for who in ("ours", "datatrove"):
        ended = subprocess.run(
            [sys.executable, "-m", __name__, who], capture_output=True, text=True, check=False
        )  # fmt: skip
        found.append(float(json.loads(ended.stdout)) if ended.returncode == 0 else None)
    ours = found[0]
    if ours is None:
        raise RuntimeError("the measurement of our memory failed")
    return ours, found[1]


def _measure(who: str, count: int) -> float:
    return (_ours if who == "ours" else _datatrove)(count) / count


def _resident() -> int:
    # The peak so far, of imports and of warming up, must not hide what comes.
    from pathlib import Path

    from benchmarks.worker import _memory

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _write_keys(folder: Path, size: int) -> None:
    """Keys of units of ``size`` documents: in every other band the documents of a group have the same one."""
    import numpy as np

    from pipelines.partition import write_keys

    draws = np.random.default_rng(1)
    everyone = np.ones(size, dtype=bool)
    for number in range(MEMORY_UNITS):
        keys = [draws.integers(0, 2**64, size=size, dtype=np.uint64) for _ in range(BANDS)]
        for band in keys[::2]:
            band[:] = band[np.arange(size) // MEMORY_GROUP * MEMORY_GROUP]
        write_keys(str(folder / f"{number}.keys"), [(band, everyone) for band in keys], MEMORY_PARTS)


def _ours(count: int) -> int:
    import multiprocessing
    import tempfile
    from pathlib import Path

    from benchmarks.worker import _memory
    from pipelines.partition import join_ties, write_ties

    def run(folder: Path, size: int) -> int:
        # In another process, for what it frees would be taken again here, and so not be seen.
        writing = multiprocessing.get_context("spawn").Process(target=_write_keys, args=(folder, size))
        writing.start()
        writing.join()
        before = _resident()
        units = [str(folder / f"{number}.keys") for number in range(MEMORY_UNITS)]
        ties = [str(folder / f"{part}.ties") for part in range(MEMORY_PARTS)]
        for part, path in enumerate(ties):
            write_ties(path, units, [size] * MEMORY_UNITS, part)
        groups = join_ties(ties, size * MEMORY_UNITS)
        groups.cut(1)
        if groups.groups() != size * MEMORY_UNITS // MEMORY_GROUP:
            raise RuntimeError("groups of a wrong number")
        return _memory("VmHWM") - before

    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), 1_000)
        return run(Path(folder), count // MEMORY_UNITS)


def _datatrove(count: int) -> int:
    import tempfile
    from pathlib import Path

    import numpy as np
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupCluster

    from benchmarks.datatrove_peer import quiet, run_blocks
    from benchmarks.worker import _memory

    quiet()
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    with tempfile.TemporaryDirectory() as folder:
        for band in range(BANDS):
            documents = np.arange(count if band % 2 == 0 else 0, dtype="<u4")
            second = documents[documents % MEMORY_GROUP > 0]
            zeros = np.zeros_like(second)
            records = np.stack([zeros, second - 1, zeros, second], axis=1)
            Path(folder, f"{band:05d}_00.dups").write_bytes(records.tobytes())
        before = _resident()
        run_blocks(MinhashDedupCluster(folder, f"{folder}/out", config=config, lines_to_buffer=1_000))
        return _memory("VmHWM") - before


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], MEMORY_DOCUMENTS)))
