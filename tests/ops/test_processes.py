"""Marked processes are found, ended with their children, and seen gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from ops import processes

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
time.sleep(120)
"""


@pytest.mark.slow
def test_ends_processes_that_resist_and_their_strays() -> None:
    instance = uuid.uuid4().hex
    child = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, STUBBORN], env=os.environ | {processes.MARK: instance}
    )
    deadline = time.monotonic() + 20
    while len(processes.marked(instance)) < 2:
        assert time.monotonic() < deadline, "the stray did not start"
        time.sleep(0.05)
    found = processes.marked(instance)
    assert processes.end(lambda: processes.marked(instance), grace_s=0.5) == []
    child.wait(5)
    alive = [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not alive
    assert processes.marked(instance) == []
