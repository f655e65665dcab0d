"""The locked dependencies, looked up among known vulnerabilities by pip-audit: constraints.txt in, a verdict out.

    python -m tests.audit

pip-audit runs in a virtual environment that is thrown away, so that nothing of it is among what it judges. Where the
database cannot be reached, or knows nothing of what is asked, that is said and nothing is held against the project:
pip-audit itself calls packages that it could not look up free of vulnerabilities.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
AUDITOR = "pip-audit==2.10.1"


def verdict(report: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether pip-audit's report (JSON) leaves nothing to mend, and what to say of it."""
    packages = report["dependencies"]
    audited = [one for one in packages if "skip_reason" not in one]
    if not audited:
        return True, ["no network: not audited (the database of vulnerabilities has none of the packages here)"]
    lines = [
        f"{one['name']} {one['version']}: {fault['id']}; mended in {', '.join(fault['fix_versions']) or 'no release'}"
        for one in audited
        for fault in one["vulns"]
    ]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    said = f"{len(audited)} packages audited, {len(lines)} known vulnerabilities"
    return not lines, [*lines, said + (f"; not audited: {', '.join(skipped)}" if skipped else "")]


def _audit() -> dict[str, Any] | None:
    """pip-audit's report, or None where it cannot be had."""
    with tempfile.TemporaryDirectory(prefix="lola-data-audit-") as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder) / "bin"
        install = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", AUDITOR]
        if subprocess.run(install, stderr=subprocess.DEVNULL, check=False).returncode:
            return None
        options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run(
            [programs / "pip-audit", *options, "--requirement", ROOT / "constraints.txt"],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        return json.loads(done.stdout)
    except ValueError:
        # What it was not able to ask ends in a traceback.
        return None


def main() -> None:
    """Say what was found; exit code 1 if that must be mended."""
    report = _audit()
    sound, lines = (True, ["no network: not audited"]) if report is None else verdict(report)
    print("\n".join(lines))
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
