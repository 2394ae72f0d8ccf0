"""``python -m bench.chaos``: kill processes under load and account for every record.

A steady load runs through the echo model while the consumer, the model's replica and the
broker are killed at random times. An independent read_committed reader counts the results. The
last line is JSON; the exit code is 1 if a record is lost, duplicated, reordered or dead-lettered.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rich.console import Console

from bench.counting import Counter, Feeder, Tally, tally
from bench.installation import Installation, echo_model, installation, model_without_weights
from serve.engine.machine import processor_name
from stream.settings import PipelineSettings

PIPELINE = PipelineSettings(
    name="chaos", model="echo", input_topics=("chaos-in",), output_topic="chaos-out"
)
PER_S = 200
KEYS = 20
SECONDS = 180.0
KILLS = 12
BROKER_AWAY_S = (0.5, 3.0)
START_DEADLINE_S = 120.0
RECOVERY_DEADLINE_S = 120.0
PROCESS_DEADLINE_S = 60.0
# Longer than an open transaction of a dead process can keep results from readers.
SETTLE_S = 5.0
POLL_S = 0.02


class Blow(StrEnum):
    """Fault that is injected into the platform."""

    CONSUMER = "consumer killed"
    REPLICA = "replica killed"
    BROKER_KILL = "broker killed and started"
    BROKER_STOP = "broker stopped and started"


class Recovery(NamedTuple):
    """Seconds from a fault to the first readable result of a record produced after it."""

    blow: Blow
    seconds: float


class Outcome(NamedTuple):
    """Result of a run."""

    counted: Tally
    dead_letters: int
    recoveries: list[Recovery]

    @property
    def is_exact(self) -> bool:
        """Whether every record arrived once and in order, and none as a dead letter."""
        return self.counted.is_exact and not self.dead_letters


def plan_blows(count: int, dice: random.Random) -> list[Blow]:
    """Return faults in random order; each cycle has every kind once and the consumer twice."""
    blows: list[Blow] = []
    while len(blows) < count:
        blows += dice.sample([*Blow, Blow.CONSUMER], len(Blow) + 1)
    return blows[:count]


def summary(outcome: Outcome) -> dict[str, object]:
    """Return the line of JSON; ``recovery_*`` is about the consumer."""
    consumer = _seconds(outcome, Blow.CONSUMER)
    broker = _seconds(outcome, Blow.BROKER_KILL) + _seconds(outcome, Blow.BROKER_STOP)
    return {
        **outcome.counted._asdict(),
        "kills": len(outcome.recoveries),
        "recovery_p50_s": round(statistics.median(consumer), 2) if consumer else None,
        "recovery_max_s": round(max(consumer), 2) if consumer else None,
        "replica_recovery_max_s": round(max(_seconds(outcome, Blow.REPLICA), default=0.0), 2),
        "broker_recovery_max_s": round(max(broker, default=0.0), 2),
        "dead_letters": outcome.dead_letters,
        "cpu": processor_name(),
    }


class Load:
    """Context manager that sends records at a steady rate from its own thread."""

    def __init__(self, feeder: Feeder) -> None:
        self._feeder = feeder
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _send(self) -> None:
        start = time.perf_counter()
        while not self._stopping.wait(POLL_S):
            while self._feeder.produced < (time.perf_counter() - start) * PER_S:
                self._feeder.send("a record among many")


class Storm:
    """Injects faults into a platform under load and measures the recovery time."""

    def __init__(
        self, platform: Installation, feeder: Feeder, counter: Counter, dice: random.Random
    ) -> None:
        self._platform = platform
        self._feeder = feeder
        self._counter = counter
        self._dice = dice

    def strike(self, blow: Blow) -> Recovery:
        """Inject one fault and wait for the result of a record produced after it.

        Raises:
            RuntimeError: The result does not arrive, or there is no process to kill.
        """
        pid = self._victim(blow)
        seen = self._counter.count()
        start = time.perf_counter()
        self._hit(blow, pid)
        # Results of records produced before the fault do not count as recovery.
        record_id = self._feeder.produced
        return Recovery(blow, self._first_result(record_id, seen) - start)

    def _victim(self, blow: Blow) -> int:
        find: dict[Blow, Callable[[], list[int]]] = {
            Blow.CONSUMER: lambda: self._platform.pids_of_pipeline(PIPELINE),
            Blow.REPLICA: lambda: self._platform.pids_of_model(PIPELINE.model),
        }
        if blow not in find:
            return 0
        end = time.monotonic() + PROCESS_DEADLINE_S
        while time.monotonic() < end:
            pids = find[blow]()
            if pids:
                return pids[0]
            time.sleep(POLL_S)
        raise RuntimeError(f"{blow}: found no process to kill within {PROCESS_DEADLINE_S:g} s")

    def _hit(self, blow: Blow, pid: int) -> None:
        if blow in (Blow.CONSUMER, Blow.REPLICA):
            self._platform.kill(pid)
            return
        broker = self._platform.broker
        end = broker.kill if blow is Blow.BROKER_KILL else broker.stop
        end()
        time.sleep(self._dice.uniform(*BROKER_AWAY_S))
        broker.start()

    def _first_result(self, record_id: int, seen: int) -> float:
        end = time.monotonic() + RECOVERY_DEADLINE_S
        while time.monotonic() < end:
            self._counter.wait_for(seen + 1, end - time.monotonic())
            for arrival in self._counter.arrivals(seen):
                seen += 1
                if arrival.record_id >= record_id:
                    return arrival.at
        raise RuntimeError(f"no result within {RECOVERY_DEADLINE_S:g} s")


def run(seconds: float, kills: int, seed: int, console: Console) -> Outcome:
    """Start a platform, inject ``kills`` faults within ``seconds`` and count the results."""
    dice = random.Random(seed)
    with (
        TemporaryDirectory(prefix="bertstream-bench-") as made,
        installation((echo_model(model_without_weights(Path(made))),), console.print) as platform,
    ):
        platform.run(PIPELINE)
        feeder = Feeder(platform.bootstrap_servers, PIPELINE.input_topics[0], keys=KEYS)
        counter = Counter(platform.bootstrap_servers, PIPELINE.output_topic)
        letters = Counter(platform.bootstrap_servers, PIPELINE.dead_letters)
        try:
            with Load(feeder):
                if not counter.wait_for(1, START_DEADLINE_S):
                    raise RuntimeError(f"no result within {START_DEADLINE_S:g} s")
                storm = Storm(platform, feeder, counter, dice)
                recoveries = _weather(storm, seconds, plan_blows(kills, dice), dice, console)
            feeder.flush()
            counter.wait_for(feeder.produced, RECOVERY_DEADLINE_S)
            # Duplicates may arrive late.
            time.sleep(SETTLE_S)
            counted = tally(feeder.produced, counter.arrivals())
            return Outcome(counted, letters.count(), recoveries)
        finally:
            counter.close()
            letters.close()


def main() -> None:
    """Inject faults, count the results and print one line of JSON to stdout."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, help="seed of the order and times; default random")
    options = parser.parse_args()
    seed = random.randrange(10_000) if options.seed is None else options.seed
    console = Console(stderr=True)
    console.print(f"seed {seed}")
    try:
        outcome = run(options.seconds, options.kills, seed, console)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    sys.stdout.write(json.dumps(summary(outcome)) + "\n")
    raise SystemExit(0 if outcome.is_exact else 1)


def _weather(
    storm: Storm, seconds: float, blows: list[Blow], dice: random.Random, console: Console
) -> list[Recovery]:
    """Inject one fault at a random time in each equal interval; overdue ones follow at once."""
    start, part = time.monotonic(), seconds / max(1, len(blows))
    recoveries = []
    for index, blow in enumerate(blows):
        moment = start + (index + dice.random()) * part
        time.sleep(max(0.0, moment - time.monotonic()))
        recovery = storm.strike(blow)
        console.print(f"{time.monotonic() - start:6.1f} s  {blow}: {recovery.seconds:.2f} s")
        recoveries.append(recovery)
    time.sleep(max(0.0, start + seconds - time.monotonic()))
    return recoveries


def _seconds(outcome: Outcome, blow: Blow) -> list[float]:
    return [recovery.seconds for recovery in outcome.recoveries if recovery.blow is blow]


if __name__ == "__main__":
    main()
