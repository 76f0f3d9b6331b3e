"""An agent's configuration file: TOML, judged as a whole before anything starts."""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar

from phalanx_wire import toml_file
from phalanx_wire.ids import AgentId
from phalanx_wire.join import is_address
from phalanx_wire.names import is_session_name
from phalanx_wire.slots import parse_bytes

DEFAULT_PATH: Final = Path("/etc/phalanx/agent.toml")
_ENGINE_PREFIX: Final = "unix://"
_PORTS: Final = re.compile(r"(?P<first>[0-9]{4,5})-(?P<last>[0-9]{4,5})")
_LIST_OF_PATHS: Final = "must be a list of paths, or of tables with `path` and `write`"
_T = TypeVar("_T")


class ConfigError(Exception):
    """The file is wrong; `mistakes` has one sentence for each thing to mend."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class AllowedMount:
    """A folder of this host that sessions may mount, with all that is under it."""

    path: str
    write: bool = False


@dataclass(frozen=True, slots=True)
class Capacity:
    """What this host offers, where it is not what was found: thousandths of a core, bytes."""

    cpu_milli: int | None = None
    mem_bytes: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from the first to the last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def overlaps(self, other: PortRange) -> bool:
        """Tell whether some port is in both."""
        return self.first <= other.last and other.first <= self.last

    def covers(self, other: PortRange) -> bool:
        """Tell whether all of another's ports are in this one."""
        return self.first <= other.first and other.last <= self.last


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """All that an agent is told by its operator.

    Attributes:
        state_dir: on disk: identity, markers, logs, uploads.
        runtime_dir: in memory (tmpfs): keys and sockets of the containers.
        engine: path of the container engine's socket.
        join: the join token; needed until the agent is enrolled.
        managers: `tcp://host:port` of all managers, tried in turn; empty: as the token said.
        advertise: the address that other hosts reach this one by; empty: by the route to them.
        host_network: sessions may ask for the host's network, which the guard does not hold.
        host_ports: of this host, kept for containers on its network.
    """

    name: AgentId
    state_dir: Path
    runtime_dir: Path
    engine: str
    join: str = ""
    managers: tuple[str, ...] = ()
    advertise: str = ""
    host_network: bool = False
    host_ports: PortRange = PortRange(61000, 61999)
    capacity: Capacity = Capacity()
    mounts: tuple[AllowedMount, ...] = ()


def load(path: Path, said: Mapping[str, str] | None = None) -> AgentConfig:
    """Read a configuration file. What was said on the command line wins over it; with a join
    token there the file need not be.

    Raises:
        ConfigError: it cannot be read, or has mistakes; all of them.
    """
    try:
        document, mode = toml_file.read(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and said and "join" in said:
            return parse(said)
        reason = f"{path}: {error.strerror}; name another file with --config."
        raise ConfigError([reason]) from error
    except ValueError as error:
        raise ConfigError([f"{path} is not TOML: {error}."]) from error
    try:
        _refuse_anybodys(path, mode)
        return parse({**document, **(said or {})})
    except ConfigError as error:
        raise ConfigError([f"{path}: {mistake}" for mistake in error.mistakes]) from error


def _refuse_anybodys(path: Path, mode: int) -> None:
    """Whoever writes this file decides what a daemon of root's does."""
    if mode & stat.S_IWOTH:
        raise ConfigError([f"anybody here may write it; `chmod o-w {path}`."])


def parse(document: Mapping[str, Any]) -> AgentConfig:
    """Judge a configuration.

    Raises:
        ConfigError: all mistakes.
    """
    table = _Table(dict(document), "")
    config = AgentConfig(
        name=AgentId(table.take("name", _name, _host_name())),
        state_dir=table.take("state_dir", _path, Path("/var/lib/phalanx-agent")),
        runtime_dir=table.take("runtime_dir", _path, Path("/run/phalanx-agent")),
        engine=table.take("engine", _engine, "/var/run/docker.sock"),
        join=table.take("join", _text, ""),
        managers=table.take("managers", _managers, ()),
        advertise=table.take("advertise", _address, ""),
        host_network=table.take("host_network", _truth, False),
        host_ports=table.take("host_ports", _port_range, PortRange(61000, 61999)),
        capacity=_capacity(table),
        mounts=_mounts(table),
    )
    table.leave()
    if table.mistakes:
        raise ConfigError(table.mistakes)
    return config


class _Table:
    """A table of which everything has to be taken; it collects the mistakes."""

    def __init__(
        self, values: dict[str, Any], where: str, mistakes: list[str] | None = None
    ) -> None:
        self._values = values
        self._where = where
        self._known: list[str] = []
        self.mistakes = [] if mistakes is None else mistakes

    def take(self, key: str, read: Callable[[Any], _T], default: _T) -> _T:
        """Read one value, or note what is wrong with it."""
        self._known.append(key)
        if key not in self._values:
            return default
        try:
            return read(self._values.pop(key))
        except ValueError as error:
            self.mistakes.append(f"{self._where}{key} {error}.")
            return default

    def table(self, key: str) -> _Table:
        """Go down into a table; empty when it is missing."""
        self._known.append(key)
        values = self._values.pop(key, {})
        if not isinstance(values, dict):
            self.mistakes.append(f"{self._where}{key} must be a table.")
            values = {}
        return _Table(values, f"{self._where}{key}.", self.mistakes)

    def leave(self) -> None:
        """Note what nobody knows."""
        for key in self._values:
            near = get_close_matches(key, self._known, 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            self.mistakes.append(f"{self._where}{key} is not a setting of the agent{hint}")


def _capacity(table: _Table) -> Capacity:
    inner = table.table("capacity")
    capacity = Capacity(
        cpu_milli=inner.take("cpu", _cores, None),
        mem_bytes=inner.take("mem", _bytes, None),
        pids=inner.take("pids", _count, None),
    )
    inner.leave()
    return capacity


def _mounts(table: _Table) -> tuple[AllowedMount, ...]:
    inner = table.table("mounts")
    none: tuple[AllowedMount, ...] = ()
    allowed = inner.take("allow", _allowed, none)
    inner.leave()
    return allowed


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("must be a text")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not is_session_name(value):
        raise ValueError("must be of a-z, 0-9 and -, like a host name")
    return value


def _host_name() -> str:
    return socket.gethostname().partition(".")[0].lower()


def _managers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(entry, str) and is_address(entry) for entry in value
    ):
        raise ValueError("must be a list of addresses like tcp://192.0.2.1:7911")
    return tuple(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - one kind of mistake
    return value


def _port_range(value: Any) -> PortRange:
    found = _PORTS.fullmatch(value) if isinstance(value, str) else None
    first, last = (int(found["first"]), int(found["last"])) if found else (0, 0)
    if not 1024 <= first < last <= 65535:
        raise ValueError('must be ports from 1024 to 65535, like "61000-61999"')
    return PortRange(first, last)


def _address(value: Any) -> str:
    """What others reach this host by goes into every host's firewall."""
    if value == "":
        return ""
    try:
        return str(ip_address(_text(value)))
    except ValueError as error:
        raise ValueError("must be an address of this host, like 192.0.2.11") from error


def _path(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("must be an absolute path")
    return path


def _engine(value: Any) -> str:
    text = _text(value)
    if not text.startswith(f"{_ENGINE_PREFIX}/"):
        raise ValueError("must be a socket of this host, like unix:///var/run/docker.sock")
    return text.removeprefix(_ENGINE_PREFIX)


def _cores(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100_000:
        raise ValueError("must be a number of cores")
    return int(value * 1000)


def _bytes(value: Any) -> int | None:
    if isinstance(value, str):
        return parse_bytes(value)
    return _count(value)


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError("must be a positive whole number")
    return value


def _allowed(value: Any) -> tuple[AllowedMount, ...]:
    if not isinstance(value, list):
        raise ValueError(_LIST_OF_PATHS)  # noqa: TRY004 - one kind of mistake
    return tuple(_one_allowed(entry) for entry in value)


def _one_allowed(entry: Any) -> AllowedMount:
    """A plain path may be read only: writing on the host has to be spelt out."""
    if isinstance(entry, dict) and set(entry) <= {"path", "write"} and "path" in entry:
        write = entry.get("write", False)
        if isinstance(write, bool):
            return AllowedMount(str(_path(entry["path"])), write)
    if isinstance(entry, str):
        return AllowedMount(str(_path(entry)))
    raise ValueError(_LIST_OF_PATHS)
