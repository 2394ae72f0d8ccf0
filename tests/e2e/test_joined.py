"""On somebody else's Ray cluster, in the foreground: what `up` joined is left as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.platform.installation import PlatformState, embedded_broker
from ops.processes import children as processes
from ops.serving.cluster import applications
from tests.ops.directories import make_directory
from tests.ray_head import Running

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.ray,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

BERTSTREAM = Path(sys.executable).parent / "bertstream"
CONFIG = """
models:
  - {name: echo, path: model, num_cpus: 0.2, engine: {kind: echo}}
pipelines:
  - {name: words, model: echo, input_topics: [words], output_topic: words.out, partitions: 1}
"""
DEADLINE_S = 120


def wait_for_line(file: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE_S
    while text not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < end, file.read_text()
        time.sleep(0.1)


def test_polite_kill_ends_what_is_ours_and_leaves_their_cluster(
    tmp_path: Path, shared_head: Running
) -> None:
    head = shared_head.head
    # What the cluster's users have in their environment.
    known = shared_head.environment | {"RAY_ADDRESS": head.address}
    del known[processes.MARK]
    token = Path(known["RAY_AUTH_TOKEN_PATH"])
    make_directory(tmp_path / "model")
    (tmp_path / "bertstream.yaml").write_text(CONFIG)
    told = tmp_path / "told"
    with (
        told.open("wb") as output,
        subprocess.Popen(
            [str(BERTSTREAM), "up"],
            cwd=tmp_path,
            env=os.environ | known,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            wait_for_line(told, "Ctrl-C stops it", process)
            state = PlatformState.load(tmp_path / ".bertstream")
            assert state is not None
            assert (state.address, state.head) == (head.address, None)
            assert set(applications(head.dashboard, token)) == {"echo@1", "pipeline-words"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0, told.read_text()
            ended = not embedded_broker(tmp_path / ".bertstream").is_running()
        finally:
            process.kill()
            embedded_broker(tmp_path / ".bertstream").stop()
    assert ended
    assert applications(head.dashboard, token) == {}
    assert processes.marked(state.instance) == []
