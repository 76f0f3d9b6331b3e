"""Where the manager is and which token it is asked with."""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from phalanx_client.failure import UNAVAILABLE, USAGE, Failure
from phalanx_wire import toml_file

_URL = re.compile(r"(https?://[^/\s,]+(/[^\s,]*)?|unix:///[^\s,]+)")
NOWHERE = (
    "no manager is known: `phalanx up` or `phalanx lab up` starts one here and writes the "
    "configuration; for one elsewhere give --url or PHALANX_URL, and PHALANX_TOKEN"
)


@dataclass(frozen=True, slots=True)
class Manager:
    """A manager as the client reaches it.

    Attributes:
        url: `http(s)://host:port` or `unix:///path`; several, separated by commas, of managers of
            which one leads.
        token: bearer token; empty when none is known.
        warning: what is wrong with where this comes from, a sentence; mostly empty.
    """

    url: str
    token: str
    warning: str = ""

    def each(self) -> tuple[Manager, ...]:
        """Each manager by itself."""
        return tuple(Manager(url, self.token) for url in self.url.split(","))


def path(environ: Mapping[str, str]) -> str:
    """The client's configuration file."""
    if named := environ.get("PHALANX_CONFIG"):
        return named
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(
        environ.get("HOME") or os.path.expanduser("~"), ".config"
    )
    return os.path.join(home, "phalanx", "config.toml")


def find(url: str | None, token: str | None, environ: Mapping[str, str]) -> Manager:
    """Find the manager: option, environment, configuration file, in this order.

    The file's token is only ever sent to the file's own manager.

    Raises:
        Failure: no manager is named anywhere, or what names it can't be read.
    """
    file = path(environ)
    written, warning = _read(file)
    chosen = url or environ.get("PHALANX_URL") or written.get("url", "")
    if not chosen:
        raise Failure(NOWHERE, UNAVAILABLE)
    urls = [url.strip().rstrip("/") for url in chosen.split(",")]
    wrong = [url for url in urls if not _is_address(url)]
    if wrong:
        raise Failure(
            f"{wrong[0][:80]!r} is no address of a manager; write it as http://HOST:PORT, "
            "https://HOST or unix:///PATH, several separated by commas",
            USAGE,
        )
    secret = token or environ.get("PHALANX_TOKEN", "")
    own = [url.strip().rstrip("/") for url in written.get("url", "").split(",")]
    if not secret and set(urls) <= set(own):
        secret = written.get("token", "")
    secret = secret.strip()
    if not (secret.isascii() and secret.isprintable()):
        raise Failure("the token has characters that no token has; see PHALANX_TOKEN", USAGE)
    return Manager(",".join(urls), secret, warning)


def _is_address(url: str) -> bool:
    if not _URL.fullmatch(url) or not url.isprintable():
        return False
    try:
        return urllib.parse.urlsplit(url).port != 0
    except ValueError:
        return False  # brackets that don't match, or a port that is none


def _read(file: str) -> tuple[dict[str, str], str]:
    """The file's texts, and a warning when others than its owner can read the token."""
    try:
        content, mode = toml_file.read(file)
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Failure(f"the configuration {file} can't be read: {reason}", USAGE) from error
    wrong = [key for key, value in content.items() if not isinstance(value, str)]
    if wrong:
        raise Failure(f"the configuration {file}: {wrong[0]} must be a text in quotes", USAGE)
    warning = (
        f"others can read the token in {file}; run: chmod 600 {file}"
        if content.get("token") and mode & 0o077
        else ""
    )
    return content, warning


def write(file: str, url: str, token: str, note: str) -> None:
    """Replace the configuration, readable by its owner only; `note` is its first line."""
    os.makedirs(os.path.dirname(file) or ".", mode=0o700, exist_ok=True)
    fresh = f"{file}.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        os.fchmod(opened.fileno(), 0o600)
        opened.write(f"# {note}\nurl = {json.dumps(url)}\ntoken = {json.dumps(token)}\n")
    os.replace(fresh, file)
