"""Who a container's user is, by the image's own files."""

from __future__ import annotations

from typing import Final

from phalanx_agent.core.recipe import Account
from phalanx_agent.core.refused import Refused

_PASSWD_FIELDS: Final = 7
_GROUP_FIELDS: Final = 4
MAX_ID: Final = 2**31 - 1


def account(user: str, passwd: str, group: str) -> Account:
    """Resolve Docker's `user[:group]`, names or numbers; empty is root.

    Args:
        passwd, group: texts of the image's files; empty where it has none.

    Raises:
        Refused: a name that the image does not have, or a number out of range.
    """
    name, _, group_name = user.partition(":")
    entry = _user(name or "0", passwd)
    if entry is None:
        raise Refused(f"The image has no user {name!r}; give a number, e.g. --user 1000:1000.")
    gid = entry.gid if not group_name else _group(group_name, group)
    if gid is None:
        raise Refused(f"The image has no group {group_name!r}; give a number.")
    return Account(entry.uid, gid, entry.name, entry.home)


def needs_files(user: str) -> bool:
    """Tell whether the image's files can add to what the numbers say; root's they cannot."""
    return user not in ("", "0", "root", "0:0", "root:root")


ROOT: Final = Account(0, 0, "root", "/root")


def _user(name: str, passwd: str) -> Account | None:
    for line in passwd.splitlines():
        fields = line.split(":")
        whole = len(fields) == _PASSWD_FIELDS and fields[2].isdigit() and fields[3].isdigit()
        if whole and name in (fields[0], fields[2]):
            return Account(int(fields[2]), int(fields[3]), fields[0], fields[5])
    number = _number(name)
    return None if number is None else Account(number, 0)


def _group(name: str, group: str) -> int | None:
    for line in group.splitlines():
        fields = line.split(":")
        if len(fields) >= _GROUP_FIELDS and fields[2].isdigit() and name in (fields[0], fields[2]):
            return int(fields[2])
    return _number(name)


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() and int(text) <= MAX_ID else None
