"""Who a container's user is, by the image's own files."""

from __future__ import annotations

import re
from typing import Final

from phalanx_agent.core.recipe import Account
from phalanx_agent.core.refused import Refused

_PASSWD_FIELDS: Final = 7
_GROUP_FIELDS: Final = 4
_NUMBER: Final = re.compile("0*[0-9]{1,10}")
MAX_ID: Final = 2**31 - 1


def account(user: str, passwd: str, group: str) -> Account:
    """Resolve Docker's `user[:group]`, names or numbers; empty is root.

    Args:
        passwd, group: texts of the image's files; empty where it has none.

    As the engine does it, a number is never a name, and the first line that fits counts; one whose
    own numbers are none, or out of range, is as if it were not there.

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
    number = _number(name)
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) != _PASSWD_FIELDS:
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        wanted = fields[0] == name if number is None else uid == number
        if wanted and uid is not None and gid is not None:
            return Account(uid, gid, fields[0], fields[5])
    return None if number is None else Account(number, 0)


def _group(name: str, group: str) -> int | None:
    number = _number(name)
    for line in group.splitlines() if number is None else ():
        fields = line.split(":")
        if len(fields) >= _GROUP_FIELDS and fields[0] == name and _number(fields[2]) is not None:
            return _number(fields[2])
    return number


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) and int(text) <= MAX_ID else None
