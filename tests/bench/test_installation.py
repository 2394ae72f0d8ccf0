from __future__ import annotations

from bench.installation import replica_pids


def test_only_running_replicas_have_a_pid_to_kill() -> None:
    replicas = [
        {"state": "RUNNING", "pid": 11},
        {"state": "STARTING", "pid": 12},
        {"state": "RUNNING", "pid": None},
    ]
    assert replica_pids({"deployments": {"replica": {"replicas": replicas}}}) == [11]
    assert replica_pids({}) == []
