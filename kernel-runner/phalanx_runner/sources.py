"""Source packages from Debian's archive, without touching this machine's apt configuration."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = (
    "http://deb.debian.org/debian bookworm main",
    "http://deb.debian.org/debian bookworm-updates main",
    "http://deb.debian.org/debian-security bookworm-security main",
)


class BuildFailed(Exception):  # noqa: N818 - reads as a sentence
    """The bundle can't be built; the text says what is missing and how to get it."""


@dataclass(frozen=True)
class Source:
    """A source package on this disk: the directory holds one .dsc and what it names."""

    name: str
    version: str
    directory: Path


@dataclass(frozen=True)
class Archive:
    """Debian's source archive as seen through a private apt state below `cache`."""

    cache: Path

    def fetch(self, name: str, *, refresh: bool) -> Source:
        """The newest version that can be downloaded, kept for ever.

        An index may name versions that the mirror has dropped already, so every listed one is
        tried from the newest on. Raises BuildFailed.
        """
        kept = self._kept(name)
        if kept and not refresh:
            return kept
        try:
            return self._download(name)
        except BuildFailed:
            if kept:
                return kept
            raise

    def _kept(self, name: str) -> Source | None:
        found = [
            Source(name, directory.name.replace("%3a", ":"), directory)
            for directory in (self.cache / name).glob("*")
            if any(directory.glob("*.dsc"))
        ]
        newest = functools.cmp_to_key(_compare_versions)
        return max(found, key=lambda source: newest(source.version), default=None)

    def _download(self, name: str) -> Source:
        self._update()
        listed = _run(["apt-cache", *self._options(), "showsrc", "--only-source", name])
        versions = {
            line.removeprefix("Version: ")
            for line in listed.stdout.splitlines()
            if line.startswith("Version: ")
        }
        failures: list[str] = []
        order = functools.cmp_to_key(_compare_versions)
        for version in sorted(versions, key=order, reverse=True):
            directory = self.cache / name / version.replace(":", "%3a")
            partial = directory.with_name(f".{directory.name}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            wanted = f"{name}={version}"
            got = _run(
                ["apt-get", *self._options(), "-q", "source", "--download-only", wanted], partial
            )
            if got.returncode == 0:
                shutil.rmtree(directory, ignore_errors=True)
                partial.rename(directory)
                return Source(name, version, directory)
            shutil.rmtree(partial)
            failures.append(f"{version}: {_last_line(got)}")
        raise BuildFailed(
            f"No source of {name} could be downloaded ({'; '.join(failures) or 'none listed'}): "
            f"{self._hint(name)}"
        )

    def _hint(self, name: str = "NAME") -> str:
        return (
            "check that deb.debian.org can be reached from here, or put the source package (the "
            f".dsc and the files that it names) into {self.cache / name}/VERSION/."
        )

    def _update(self) -> None:
        if not KEYRING.is_file():
            raise BuildFailed(f"{KEYRING} is missing: apt-get install debian-archive-keyring")
        for directory in ("lists/partial", "cache/archives/partial"):
            (self._state / directory).mkdir(parents=True, exist_ok=True)
        lines = [f"deb-src [signed-by={KEYRING}] {suite}\n" for suite in SUITES]
        (self._state / "sources.list").write_text("".join(lines))
        done = _run(["apt-get", *self._options(), "-q", "update"])
        if done.returncode != 0:
            raise BuildFailed(
                f"Debian's index of sources can't be fetched ({_last_line(done)}): {self._hint()}"
            )

    @property
    def _state(self) -> Path:
        return self.cache / "apt"

    def _options(self) -> list[str]:
        settings = {
            "Dir::Etc::sourcelist": self._state / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::Lists": self._state / "lists",
            "Dir::Cache": self._state / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _run(command: list[str], where: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("E:")]
    return lines[0] if lines else f"exit code {done.returncode}"


def _compare_versions(left: str, right: str) -> int:
    if left == right:
        return 0
    later = subprocess.run(["dpkg", "--compare-versions", left, "gt", right], check=False)
    return 1 if later.returncode == 0 else -1
