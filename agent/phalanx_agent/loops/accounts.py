"""Finds out who the user of a container is; an image's files are read once."""

from __future__ import annotations

from dataclasses import replace

from phalanx_agent.core.recipe import Account, Image
from phalanx_agent.docker.port import Docker
from phalanx_agent.host import users


class Accounts:
    """Knows the passwd and group files of the images seen; an image's id stands for its content."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker
        self._files: dict[str, tuple[str, str]] = {}

    async def of(self, image: Image, user: str) -> Account:
        """Tell who a user of an image is.

        Raises:
            Unavailable: the engine cannot be asked.
            Refused: the image has no such user.
        """
        if not users.needs_files(user):
            return users.ROOT
        if image.id not in self._files:
            self._files[image.id] = await self._docker.user_files(image.id)
        passwd, group = self._files[image.id]
        found = users.account(user, passwd, group)
        return found if found.name else replace(found, passwd=passwd)
