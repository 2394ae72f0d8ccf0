"""Where a model's files are looked for, and what is said where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest

from serve.errors import ArtifactMissing
from serve.sources import locate


class Hub(BaseHTTPRequestHandler):
    """Knows no model, and answers as the real hub does."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("X-Error-Message", "Repository not found")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        yield
        server.shutdown()


def refusal(source: str) -> str:
    with pytest.raises(ArtifactMissing) as refused:
        locate(source)
    said = str(refused.value)
    assert "\n" not in said
    return said


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path


def test_a_file_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.touch()
    assert refusal(str(file)) == f"{file} is a file; give the directory of the model"


def test_an_empty_name_is_not_the_directory_one_is_in() -> None:
    assert "the name of the model is empty" in refusal("")


@pytest.mark.parametrize("source", ["no/such/place", "/no/such/place"])
def test_a_path_is_not_asked_for_on_the_hub(source: str) -> None:
    assert "no such directory, and it is not a valid name on the Hugging" in refusal(source)


def test_a_name_that_the_hub_does_not_know(hub: None) -> None:
    said = refusal("somebody/nothing")
    assert "somebody/nothing: no such directory, and downloading it from the Hugging" in said
    assert "404" in said


def test_a_hub_that_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "the Hugging Face hub cannot be reached; check" in refusal("some/thing")


def test_a_name_too_long_for_a_file_is_refused_as_any_other() -> None:
    assert "no such directory" in refusal("x" * 5_000)
