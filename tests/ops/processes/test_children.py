"""Marked processes are found, ended with their children, and seen gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from ops.processes import children as processes

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
    assert not [process for process in found if processes.is_alive(process)]
    assert processes.marked(instance) == []


def test_process_that_nobody_asks_for_has_ended() -> None:
    """As in a container whose first process does not reap: it would be waited for in vain."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    ended = psutil.Process(child.pid)
    assert processes.wait([ended], 20) == []
    assert ended.status() == psutil.STATUS_ZOMBIE
    child.wait(5)
    assert not processes.is_alive(ended)
