"""Locked dependencies: constraints.txt and a package index in, constraints.hashes.txt out.

    python -m tests.lock            write the file anew
    python -m tests.lock --check    say whether it is what constraints.txt and the index give

Each line of constraints.txt gets the SHA-256 of its wheels for Linux (x86-64 and ARM, glibc) and macOS, CPython 3.11
and later, as the index lists them (PEP 691); of the source, where there is no such wheel. torch is left out: on a
machine with an NVIDIA GPU pip takes another build of it. The index is pip's: PIP_INDEX_URL, or pypi.org.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
PINNED, LOCKED = ROOT / "constraints.txt", ROOT / "constraints.hashes.txt"
UNLOCKED = ("torch",)
"""Packages whose build depends on the machine."""
_HEAD = """\
# Made from constraints.txt by `make lock`; not edited by hand. torch is not in it: its build depends on the machine.
"""
_PLATFORM = re.compile(r"any|manylinux\w*_(?:x86_64|aarch64)|macosx_\w+_(?:x86_64|arm64|universal2)")
_PYTHON = re.compile(r"py3|cp3(\d+)")
_OLDEST = 11


def pins(text: str) -> dict[str, str]:
    """Name -> version, of a file of ``name==version`` lines."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return dict(line.split("==") for line in lines if line)


def is_wanted(filename: str) -> bool:
    """Whether a wheel fits one of the platforms and versions of Python that are locked."""
    try:
        tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:
        return False
    for tag in tags:
        python = _PYTHON.fullmatch(tag.interpreter)
        # A wheel for the stable interface fits all later versions.
        late = python is not None and (python[1] is None or int(python[1]) >= _OLDEST or tag.abi == "abi3")
        if late and not tag.abi.endswith("t") and _PLATFORM.fullmatch(tag.platform):
            return True
    return False


def hashes_of(listing: list[dict[str, Any]], name: str, version: str) -> list[str]:
    """SHA-256 of the files of a version that may be installed, sorted.

    Raises:
        SystemExit: the index has none.
    """
    wheels = [one for one in listing if is_wanted(one["filename"]) and _version_of(one["filename"]) == version]
    source = re.compile(
        rf"{re.sub('-', '[-_.]', canonicalize_name(name))}-{re.escape(version)}\.tar\.gz", re.IGNORECASE
    )
    files = wheels or [one for one in listing if source.fullmatch(one["filename"])]
    found = sorted({one["hashes"]["sha256"] for one in files if "sha256" in one.get("hashes", {})})
    if not found:
        raise SystemExit(f"{name}=={version}: the index has no file of it with a SHA-256")
    return found


def _version_of(wheel: str) -> str:
    return wheel.split("-")[1]


def _listing(name: str) -> list[dict[str, Any]]:
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    request = urllib.request.Request(
        f"{index}/{canonicalize_name(name)}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["files"]


def locked(versions: dict[str, str]) -> str:
    """Text of the locked file."""
    names = [name for name in versions if name not in UNLOCKED]
    with ThreadPoolExecutor(4) as pool:
        listings = dict(zip(names, pool.map(_listing, names), strict=True))
    entries = [
        " \\\n".join([f"{name}=={versions[name]}", *(f"    --hash=sha256:{one}" for one in hashes)])
        for name in names
        if (hashes := hashes_of(listings[name], name, versions[name]))
    ]
    return _HEAD + "\n".join(entries) + "\n"


def main(arguments: list[str]) -> None:
    """Write the file, or compare it with what it should be; what differs ends with exit code 1."""
    try:
        text = locked(pins(PINNED.read_text(encoding="utf-8")))
    except urllib.error.URLError as error:
        raise SystemExit(
            f"the package index cannot be reached ({error.reason}); the lock file stays as it is"
        ) from None
    if arguments != ["--check"]:
        LOCKED.write_text(text, encoding="utf-8")
    elif LOCKED.read_text(encoding="utf-8") != text:
        raise SystemExit(
            f"{LOCKED.name} is not what constraints.txt and the index give; run `make lock` and look at why"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
