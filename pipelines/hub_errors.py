"""What an answer of the Hugging Face hub means for the user: wait and ask again, or one line that says what to do.

The access token is never put into a message: what the server says is shown with the token blotted out.
"""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from datatrove.utils.logging import logger
from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import parse_ratelimit_headers

from pipelines.sources import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, MOST_WAIT_SECONDS, RETRIED

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Result = TypeVar("Result")

ATTEMPTS = 7
"""Attempts in a row that brought nothing before a file is given up: about a minute."""

# httpx's root error, under whatever name the hub library of the day has it.
HttpError: type[Exception] = HfHubHTTPError.__mro__[1]


def endpoint() -> str:
    """Address of the hub: HF_ENDPOINT, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def patiently(
    request: Callable[[], Result], *, progress: Callable[[], int] | None = None, attempts: int = ATTEMPTS
) -> Result:
    """Call ``request`` until it returns; wait between attempts, as long as the server asks or twice as long each time.

    Args:
        request: may raise HTTP errors; those that may pass (429, 5xx, dropped connections) are waited out.
        progress: a number that grows when an attempt that failed has brought something; it then does not count.
        attempts: how many in a row may bring nothing.

    Raises:
        The last error, after ``attempts`` in a row that brought nothing; at once if it cannot pass.
    """
    failures = 0
    reached = progress() if progress else 0
    while True:
        try:
            return request()
        except HttpError as error:
            status = status_of(error)
            if status is not None and status not in RETRIED:
                raise
            if progress and progress() > reached:
                failures, reached = 0, progress()
            failures += 1
            asked = _asked_to_wait(error)
            if failures >= attempts or (asked or 0.0) > MOST_WAIT_SECONDS:
                raise
            backoff = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (failures - 1))
            wait = asked if asked is not None else backoff * random.uniform(0.5, 1.0)
            logger.info(f"{_short(error)}: waiting {wait:.1f} s, then attempt {failures + 1} of {attempts}")
            time.sleep(wait)


def _asked_to_wait(error: Exception) -> float | None:
    """Seconds that the server asks to be left alone, if it does."""
    asked = header_of(error, "Retry-After").strip()
    if asked.isdigit():
        return float(asked)
    if asked:
        try:
            return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return None
    if status_of(error) == 429:
        limit = parse_ratelimit_headers(error.response.headers)  # pyright: ignore[reportAttributeAccessIssue]
        if limit is not None and limit.remaining == 0:
            return float(limit.reset_in_seconds)
    return None


def status_of(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def header_of(error: Exception, name: str) -> str:
    response = getattr(error, "response", None)
    return str(response.headers.get(name, "")) if response is not None else ""


def _short(error: Exception) -> str:
    status = status_of(error)
    return f"HTTP {status}" if status is not None else without_token(f"{type(error).__name__}: {error}".strip(": "))


def without_token(text: str) -> str:
    """``text`` on one line, with the access token blotted out."""
    token = get_token()
    line = " ".join(text.split())
    return line.replace(token, "***") if token else line


def explain(repo: str, revision: str, error: Exception) -> str:
    """What an error of the hub means for the user, and what to do; one line without the token."""
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo}: HF_HUB_OFFLINE is set, so nothing can be fetched; unset it and run again"
    page = f"{endpoint()}/datasets/{repo}"
    status, code = status_of(error), header_of(error, "X-Error-Code")
    said = without_token(header_of(error, "X-Error-Message"))
    if status == 401 and get_token():
        return (
            f"{page}: the hub refuses your access token (expired, revoked or mistyped; 401): log in again with "
            f"`hf auth login`, or set HF_TOKEN to a valid one"
        )
    if status == 401:
        return (
            f"{page}: you are not logged in, and the repository is gated, private or not there (401): accept its terms "
            f"on that page, then log in with `hf auth login` (`huggingface-cli login`) or set HF_TOKEN"
        )
    if status == 403 and ("fine-grained" in said or "scope" in said or "token settings" in said):
        return (
            f"{page}: your access token lacks the scope (403): allow it to read gated repositories on "
            f"{endpoint()}/settings/tokens, or set HF_TOKEN to another one"
        )
    if status == 403 and (code == "GatedRepo" or "gated" in said.lower()):
        return f"{page}: its terms are not accepted yet by this account (403): visit that page, accept them, run again"
    if status == 403:
        return f"{page}: access refused (403{': ' + said if said else ''}): see that page, and what your token may read"
    if code == "RevisionNotFound":
        return f"{page}: no revision `{revision}`; give a branch, tag or commit that the page lists"
    if status == 404:
        return f"{page}: not found (404{': ' + said if said else ''}); check `repo`, and that your token may see it"
    if status is not None:
        return f"{page}: the hub answers {status}{': ' + said if said else ''}; run the same command again later"
    return (
        f"{page}: cannot be reached ({_short(error)}): check the network, the proxy and HF_ENDPOINT, then run the same "
        f"command again"
    )
