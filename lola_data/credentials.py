"""Keys and passwords in what people type: text in, whether it has some, or the text without them out.

Object stores find their keys in the environment, in a profile or with the machine's role. An address that holds them
would be kept by manifests, records and logs, so it is refused; what is shown of it has ``***`` in their place.
"""

from __future__ import annotations

import os
import re

_IN_ADDRESS = re.compile(r"(?P<protocol>\bhttps?://)[^/@\s]+@|(?P<other>\b[a-z][a-z0-9+.-]*://)[^/@\s:]*:[^@\s]*@")
"""User, colon and password before a host. Of web addresses a user alone as well; a secret key may hold slashes."""
_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|ACCOUNT_KEY|CONNECTION_STRING")
_SHORTEST = 8
"""Characters; what is shorter is no key, and a common word would be struck out everywhere."""


def in_address(url: str) -> bool:
    """Whether an address has a user and a password, or a key and a secret, in it.

    >>> [in_address(one) for one in ("s3://key:a/b@bucket/c", "s3://bucket/a:b@c", "https://h:8000/x@y", "https://u@h/")]
    [True, False, False, True]
    """
    found = _IN_ADDRESS.match(url)
    return found is not None and not (found["other"] or "").startswith("http")


def redacted(text: str) -> str:
    """``text`` without the credentials of addresses in it, nor the values of secrets in the environment.

    >>> redacted("s3://key:secret@bucket/c: access refused")
    's3://***@bucket/c: access refused'
    """
    shown = _IN_ADDRESS.sub(_struck, text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _SECRET_NAMES.search(name.upper()) and value in shown:
            shown = shown.replace(value, "***")
    return shown


def _struck(found: re.Match[str]) -> str:
    other = found["other"]
    if other is not None and other.startswith("http"):
        return found[0]
    return f"{found['protocol'] or other}***@"
