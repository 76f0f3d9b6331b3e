"""The manager's configuration file: TOML, every mistake reported at once."""

from __future__ import annotations

import ipaddress
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from phalanx_manager.core.model import Limits
from phalanx_wire import toml_file
from phalanx_wire.join import is_address

_T = TypeVar("_T")

_BIND: Final = re.compile(r"tcp://(?P<host>[^:/\s]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5}|\*)")
_TCP_HTTP: Final = re.compile(r"(?P<host>[^:/\s]*|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


_POOL: Final = IPv4Network("10.213.0.0/16")
_EGRESS: Final = IPv4Network("10.212.0.0/20")
_LIMITS: Final = Limits()

BEATS_BEFORE_LOST: Final = 4
"""A lost beat or two must not end anything."""


class ConfigError(Exception):
    """The configuration is not usable; `mistakes` are sentences."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """What the manager is told.

    Attributes:
        data_dir: database, key and uploads; made if missing, for us alone.
        database: URL of a PostgreSQL, `postgresql://user:password@host/name`; empty: SQLite in
            `data_dir`. With one PostgreSQL there may be a second manager that stands by.
        url: where clients reach the API, told by a manager that stands by; empty: not told.
        http: `host:port`, `unix:///path`, or `fd://3` of socket activation.
        rpc: where agents dial in, `tcp://host:port`.
        advertise: addresses for join tokens, `tcp://host:port`; empty: found from `rpc`.
        admin_token_file: written at the first start; empty: `admin.token` in `data_dir`.
        pool: where sessions' networks are numbered.
        egress_subnet: where containers' way out is numbered, the same on every host.
        lost_after_s: silence after which an agent's kernels are given up.
        heartbeat_s: how often an agent reports when nothing changes.
        swarm: whether engines form a swarm when a session needs it, or at once.
        keep_days: how long ended sessions, their idempotency keys and events are kept.
    """

    data_dir: Path = Path("/var/lib/phalanx")
    database: str = ""
    url: str = ""
    http: str = "127.0.0.1:7910"
    rpc: str = "tcp://0.0.0.0:7911"
    advertise: tuple[str, ...] = ()
    admin_token_file: Path | None = None
    pool: IPv4Network = _POOL
    egress_subnet: IPv4Network = _EGRESS
    lost_after_s: float = 300.0
    heartbeat_s: float = 5.0
    swarm: Literal["on-demand", "eager"] = "on-demand"
    keep_days: float = 90.0
    limits: Limits = _LIMITS

    @property
    def token_file(self) -> Path:
        """Where the administrator's token is."""
        return self.admin_token_file or self.data_dir / "admin.token"


def load(path: Path) -> ManagerConfig:
    """Read a configuration file.

    Raises:
        ConfigError: it cannot be read, or has mistakes; all of them.
    """
    try:
        document, mode = toml_file.read(path)
    except OSError as error:
        raise ConfigError(
            [f"{path}: {error.strerror}; name another file with --config."]
        ) from error
    except ValueError as error:
        raise ConfigError([f"{path} is not TOML: {error}."]) from error
    try:
        _refuse_anybodys(path, mode)
        config = parse(document)
        if urlsplit(config.database).password:
            _refuse_readable(path, mode)
    except ConfigError as error:
        raise ConfigError([f"{path}: {mistake}" for mistake in error.mistakes]) from error
    return config


def _refuse_anybodys(path: Path, mode: int) -> None:
    """Whoever writes this file decides what a daemon of root's does."""
    if mode & stat.S_IWOTH:
        raise ConfigError([f"anybody here may write it; `chmod o-w {path}`."])


def _refuse_readable(path: Path, mode: int) -> None:
    """Whoever reads the database's password is the manager."""
    if mode & stat.S_IROTH:
        raise ConfigError([f"others can read the database's password in it; `chmod 600 {path}`."])


def parse(document: Mapping[str, Any]) -> ManagerConfig:
    """Judge a configuration.

    Raises:
        ConfigError: all mistakes.
    """
    table = _Table(dict(document), "")
    default = ManagerConfig()
    token_file: Path | None = None
    config = ManagerConfig(
        data_dir=table.take("data_dir", _path, default.data_dir),
        database=table.take("database", _database, default.database),
        url=table.take("url", _url, default.url),
        http=table.take("http", _http, default.http),
        rpc=table.take("rpc", _bind, default.rpc),
        advertise=table.take("advertise", _addresses, default.advertise),
        admin_token_file=table.take("admin_token_file", _path, token_file),
        pool=table.take("pool", _subnet, default.pool),
        egress_subnet=table.take("egress_subnet", _subnet, default.egress_subnet),
        lost_after_s=table.take("lost_after_s", _between(10, 86_400), default.lost_after_s),
        heartbeat_s=table.take("heartbeat_s", _between(0.5, 10), default.heartbeat_s),
        swarm=table.take("swarm", _swarm, default.swarm),
        keep_days=table.take("keep_days", _between(1, 36_500), default.keep_days),
        limits=_limits(table),
    )
    table.leave()
    if config.pool.overlaps(config.egress_subnet):
        table.mistakes.append(
            f"pool {config.pool} and egress_subnet {config.egress_subnet} overlap."
        )
    if config.lost_after_s < BEATS_BEFORE_LOST * config.heartbeat_s:
        table.mistakes.append(
            f"lost_after_s must be at least {BEATS_BEFORE_LOST} times heartbeat_s."
        )
    if config.pool.prefixlen > 26:
        table.mistakes.append(f"pool {config.pool} is too small; a session needs a /26.")
    if table.mistakes:
        raise ConfigError(table.mistakes)
    return config


def _limits(table: _Table) -> Limits:
    inner = table.table("limits")
    default = _LIMITS
    limits = Limits(
        max_size=inner.take("max_size", _count(10_000), default.max_size),
        max_containers=inner.take("max_containers", _count(10_000_000), default.max_containers),
        max_time_s=inner.take("max_time_s", _between(1, default.max_time_s), default.max_time_s),
        max_grace_s=inner.take("max_grace_s", _between(0, 86_400), default.max_grace_s),
        max_priority=inner.take("max_priority", _count(1_000_000), default.max_priority),
    )
    inner.leave()
    return limits


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
            self.mistakes.append(f"{self._where}{key} is not a setting of the manager{hint}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ValueError("must be a text")
    return value


def _path(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("must be an absolute path")
    return path


def _database(value: Any) -> str:
    if value == "sqlite":
        return ""
    url = urlsplit(_text(value))
    try:
        usable = url.scheme in ("postgresql", "postgres") and url.path.strip("/") and url.port != 0
    except ValueError:
        usable = False  # a port that is none
    if not usable:
        # The value is not repeated: it may hold a password.
        raise ValueError('must be "sqlite", or like postgresql://user:password@host:5432/name')
    return str(value)


def _url(value: Any) -> str:
    if value == "":
        return ""  # the default, as the file shows it
    url = urlsplit(_text(value))
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("must be like https://manager.example or http://192.0.2.1:7910")
    return str(value).rstrip("/")


def _http(value: Any) -> str:
    text = _text(value)
    scheme, found, rest = text.partition("://")
    if found and scheme == "unix" and rest.startswith("/"):
        return text
    if found and scheme == "fd" and rest.isdigit():
        return text
    match = _TCP_HTTP.fullmatch(text)
    if match is None or int(match["port"]) > 65_535:
        raise ValueError("must be host:port, unix:///path or fd://3")
    return text


def _bind(value: Any) -> str:
    match = _BIND.fullmatch(_text(value))
    if match is None or (match["port"] != "*" and not 0 <= int(match["port"]) <= 65_535):
        raise ValueError("must be tcp://address:port, like tcp://0.0.0.0:7911")
    return str(value)


def _addresses(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(
        isinstance(text, str) and is_address(text) for text in texts
    ):
        raise ValueError("must be a list of addresses like tcp://manager.example:7911")
    return tuple(texts)


def _subnet(value: Any) -> IPv4Network:
    try:
        network = ipaddress.ip_network(_text(value))
    except ValueError as error:
        raise ValueError(f"must be an IPv4 subnet like 10.213.0.0/16 ({error})") from error
    if not isinstance(network, IPv4Network) or not 8 <= network.prefixlen <= 28:
        raise ValueError("must be an IPv4 subnet of /8 to /28")
    return network


def _swarm(value: Any) -> Literal["on-demand", "eager"]:
    if value == "on-demand":
        return "on-demand"
    if value == "eager":
        return "eager"
    raise ValueError('must be "on-demand" or "eager"')


def _between(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("must be a number")  # noqa: TRY004 - one kind of mistake
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g}")
        return float(value)

    return read


def _count(high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
            raise ValueError(f"must be a whole number from 1 to {high}")
        return value

    return read
