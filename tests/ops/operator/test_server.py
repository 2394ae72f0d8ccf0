"""The operator's process when it cannot do its work."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ops.config.settings import ApiSettings, PlatformConfig
from ops.platform.installation import PlatformState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


def test_operator_whose_api_cannot_listen_ends_and_says_where(tmp_path: Path) -> None:
    """It would go on unseen: no command would reach it, and its supervisor would see no death."""
    nowhere = PlatformState(
        instance="test", bootstrap_servers="127.0.0.1:1", dashboard="http://[::1]:1"
    )
    nowhere.save(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = PlatformConfig(state_dir=tmp_path, api=ApiSettings(port=port))
        command = [sys.executable, "-m", "ops.operator.server"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            try:
                # The pipe stays open: its end would be the supervisor's.
                process.stdin.write(config.model_dump_json().encode() + b"\n")
                process.stdin.flush()
                code = process.wait(60)
            finally:
                process.kill()
            said = process.stderr.read().decode()
    assert code == 1
    assert f"PlatformError: the control API does not listen at 127.0.0.1:{port}" in said
