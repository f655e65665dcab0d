"""A download killed at twenty random moments comes to the same digests as its source."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipelines.download_cases import read_tree, shard
from tests.pipelines.fake_hub import REPO, TOKEN, FakeHub

KILLS = 20

# Forked from a process that has everything imported, so that a kill lands in the work and not in an import.
SCRIPT = """
import os, sys
from pathlib import Path
from pipelines import hub
from tests.pipelines.download_cases import fetch, stage_of
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(len(fetch(stage_of(Path(sys.argv[1]), *sys.argv[2:]))))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    files = {f"de/de_part_{number:05d}.parquet": shard(f"de{number}", rows=120) for number in range(12)}
    files |= {"sw/sw_part_00000.parquet": shard("sw", rows=120)}
    listing = "".join(
        f"{digest}  {path.split('/')[1]}\n" for path, digest in digests(files).items() if path[:2] == "de"
    )
    root = Path(__file__).parents[2]
    chance = random.Random(2409)
    with FakeHub(files | {"de/checksum.sha256": listing.encode()}) as hub:
        # At this pace all files take longer than all that is run before the kills together.
        hub.pause = 0.03
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "PYTHONPATH": str(root),
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        options = ["download.source=hub", f"download.repo={REPO}", "languages=[de, sw]"]
        parent = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "w"), *options],
            cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert parent.stdin is not None
        assert parent.stdout is not None

        def begin() -> int:
            parent.stdin.write("go\n")  # pyright: ignore[reportOptionalMemberAccess]
            parent.stdin.flush()  # pyright: ignore[reportOptionalMemberAccess]
            return int(parent.stdout.readline())  # pyright: ignore[reportOptionalMemberAccess]

        killed = in_a_file = 0
        there: dict[str, str] = {}
        while killed < KILLS:
            asked = len(hub.gets())
            child = begin()
            end = time.monotonic() + 60
            while len(hub.gets()) == asked and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(chance.uniform(0.0, 0.4))
            os.kill(child, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(int(parent.stdout.readline())) == -signal.SIGKILL
            killed += 1
            partial = tmp_path / "w" / "scratch" / "download" / "partial"
            in_a_file += any(path.stat().st_size > 0 for path in partial.rglob("*") if path.is_file())
            # Whenever it was killed, what is in the tree is whole.
            there = digests(read_tree(tmp_path / "w" / "raw"))
            assert there.items() <= digests(files).items()
        assert in_a_file > KILLS // 2
        assert len(there) < len(files)
        hub.pause = 0.0
        begin()
        assert int(parent.stdout.readline()) == 0
        parent.stdin.close()
        parent.wait()
        assert any(request.range for request in hub.gets())
    assert digests(read_tree(tmp_path / "w" / "raw")) == digests(files)
    assert read_tree(tmp_path / "w" / "scratch") == {}
