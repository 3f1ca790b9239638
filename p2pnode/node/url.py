"""Addresses of the web, taken apart; alone, so that looking at a cache loads no client."""

from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from p2pnode.errors import UserError

PORTS: Final = {"http": 80, "https": 443}


def split_url(url: str) -> SplitResult:
    """Take an address apart.

    Raises:
        UserError: It is none of http or https, or cannot be one.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in PORTS and bool(parts.hostname)
        _ = parts.port  # which raises where it is no number
    except ValueError:
        is_usable = False
    if not is_usable or any(ord(letter) < 33 or ord(letter) == 127 for letter in url):
        raise UserError(
            f"not an address of the web: {url[:200]!r}",
            hint="give one that begins with https:// or http://",
        )
    return parts


def joined(url: str, reference: str) -> str:
    """Return where a reference leads from ``url``, as a server gives one.

    Raises:
        UserError: Nowhere.
    """
    try:
        return urljoin(url, reference)
    except ValueError as error:
        raise UserError(
            f"{split_url(url).netloc} leads to what is no address: {reference[:200]!r}",
            hint="give the address of the file itself",
        ) from error
