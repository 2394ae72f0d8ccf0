"""The demonstration of releases: under constant load a better version goes live, and three bad ones
are rolled back automatically. Owns the sequence; the versions are in ``versions.py``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.text import Text

from ops.cli import upload
from ops.cli.api_client import ApiClient, connected
from ops.cli.releases import shown, story_lines
from ops.cli.terminal import err, json_line, out
from ops.cli.training import train_with_progress
from ops.demo import versions as demo_models
from ops.demo.events import events
from ops.demo.stream import REVIEWS, demo_config, own_folder, step
from ops.demo.traffic import AnswerCounts, Traffic
from ops.errors import OpsError
from ops.platform import bring_up, operator_process
from ops.releases.state_machine import STEPS, ReleaseState
from serve.artifact import load
from serve.settings import EngineSettings, ModelSettings

MODEL = "sentiment"
RATE_PER_S = 40.0
RARE_EVERY = 20
SEED = 23
RELEASE_DEADLINE_S = 240.0
REFRESH_S = 0.5
# Short, to keep the demonstration short: the defaults take most of an hour.
POLICY = """
model: sentiment
rollout:
  shadow: {records: 300, timeout: 2m}
  canary:
    - {weight: 0.2, records: 150, timeout: 2m}
    - {weight: 0.5, records: 200, timeout: 2m}
  bake: {duration: 10s, records: 200, timeout: 2m}
"""
# A team in a hurry: without a shadow, the canary must find the problem.
HASTY_POLICY = POLICY.replace("  shadow: {records: 300, timeout: 2m}\n", "  shadow: null\n")


class Chapter(NamedTuple):
    """One release of the demonstration."""

    title: str
    name: str
    make: Callable[[], Path]
    policy: str


class Ending(NamedTuple):
    """How a release ended; times in seconds."""

    label: str
    state: str
    detect_s: float
    decided_at: float | None
    reason: str


def run() -> int:
    """Run the demonstration, print its counts as the last line on stdout, return the exit code."""
    began = time.monotonic()
    folder = Path(".bertstream") / "demo-release"
    with own_folder(folder):
        step("Training version 1 on a few reviews, encoder frozen")
        demo_models.first(REVIEWS, folder / "v1", train_with_progress)
        model = ModelSettings(
            name=MODEL, path=folder / "v1", num_cpus=0.5, engine=EngineSettings(threads=1)
        )
        # Two cores fit two versions: a second replica of one would take the core of the other.
        config = demo_config(folder, model, scaling=None)
        state = bring_up.up(config, step)
        step(f"Ray dashboard: {state.dashboard} (token in {folder / 'ray-token'})")
        client = connected(None, folder)
        traffic = Traffic(
            state.kafka(config.kafka), config.pipelines[0], _rare(SEED), rate_per_s=RATE_PER_S
        )
        with traffic:
            endings = {
                chapter.name: _release(chapter, client, traffic.counts)
                for chapter in _chapters(folder)
            }
            traffic.finish()
        summary = _summary(endings, traffic.counts, traffic.sent)
        bring_up.down(config.state_dir, step)
    out.print(f"Done in {time.monotonic() - began:.0f} s; everything that was started is stopped.")
    json_line(orjson.dumps(summary).decode())
    return 0 if _is_as_promised(summary) else 1


def _chapters(folder: Path) -> list[Chapter]:
    """Return the releases: version 2 is good, each of the others fails in its own way."""
    train = train_with_progress

    def failing() -> Path:
        return demo_models.failing(load(folder / "better"), folder / "failing").path

    return [
        Chapter(
            "Version 2, trained on all reviews",
            "good",
            lambda: demo_models.better(REVIEWS, folder / "better", train).path,
            POLICY,
        ),
        Chapter(
            "Version 3, with wrong labels in its training data",
            "worse_answers",
            lambda: demo_models.worse(REVIEWS, folder / "worse", train).path,
            POLICY,
        ),
        Chapter(
            "Version 4, with three times as many layers; with a policy without shadow",
            "slow",
            lambda: demo_models.slow(REVIEWS, folder / "slow", train).path,
            HASTY_POLICY,
        ),
        Chapter(
            f"Version 5, which fails on the word {demo_models.RARE_WORD}; also without shadow",
            "failing",
            failing,
            HASTY_POLICY,
        ),
    ]


def _release(chapter: Chapter, client: ApiClient, counts: AnswerCounts) -> Ending:
    """Create a version, register and release it, and watch the release until it ends."""
    step(chapter.title)
    directory = chapter.make()
    client.request("PUT", "/policies", body={"text": chapter.policy})
    kept = upload.register(client, MODEL, str(directory))
    client.request("POST", f"/models/{MODEL}/releases", body={"version": kept["version"]})
    deadline = time.monotonic() + RELEASE_DEADLINE_S
    with shown() as show:
        while time.monotonic() < deadline:
            story = client.get(f"/models/{MODEL}/release")
            show(_with_counts(story_lines(story, err.width if err.is_terminal else None), counts))
            if story["release"]["ended_at"]:
                return _ending(story)
            time.sleep(REFRESH_S)
    raise OpsError(
        f"the release is still {story['release']['state']} after {RELEASE_DEADLINE_S:g} s; see "
        f"{operator_process.LOG} in the demonstration's folder"
    )


def _with_counts(lines: list[Text], counts: AnswerCounts) -> list[Text]:
    head, *moves = lines
    return [head.append(f"   answered {counts.in_words()}", style="dim"), *moves]


def _ending(story: dict[str, Any]) -> Ending:
    moves = story["moves"]
    stepped = [move for move in moves if move["to_state"] in STEPS]
    decided = next((move for move in moves if move["to_state"] == ReleaseState.ROLLING_BACK), None)
    last = decided or moves[-1]
    began = _seconds((stepped or moves)[0])
    return Ending(
        label=story["release"]["label"],
        state=story["release"]["state"],
        detect_s=_seconds(last) - began,
        decided_at=_seconds(decided) if decided else None,
        reason=last["reason"],
    )


def _seconds(move: dict[str, Any]) -> float:
    return datetime.fromisoformat(move["at"]).timestamp()


def _rare(seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of endless events, one in ``RARE_EVERY`` with the rare word."""
    number = 0
    while True:
        for event in events(1_000, seed):
            if event.is_bad or event.value is None:
                continue
            content = orjson.loads(event.value)
            content["id"] = number
            if number % RARE_EVERY == 0:
                content["text"] += f" And the {demo_models.RARE_WORD} was wet."
            number += 1
            yield event.key, orjson.dumps(content)
        seed += 1


def _summary(endings: dict[str, Ending], counts: AnswerCounts, sent: int) -> dict[str, Any]:
    bad = {name: ending for name, ending in endings.items() if name != "good"}
    labels = {ending.label for ending in bad.values()}
    switches = [
        counts.last_at(ending.label) - ending.decided_at
        for ending in bad.values()
        if ending.decided_at is not None and counts.count(ending.label)
    ]
    return {
        "good": endings["good"].state,
        "bad": {name: ending.state for name, ending in bad.items()},
        "lost": sent - len(counts.sources),
        "duplicated": counts.duplicated(),
        "reordered": counts.reordered,
        "bad_share": round(sum(map(counts.count, labels)) / max(1, sent), 4),
        "detect_s": {name: round(ending.detect_s, 1) for name, ending in bad.items()},
        "switch_s": round(max([0.0, *switches]), 2),
        "longest_gap_s": round(counts.longest_gap_s, 2),
        "produced": sent,
        "dead_letters": counts.dead_letters,
        "reasons": {name: ending.reason for name, ending in endings.items()},
    }


def _is_as_promised(summary: dict[str, Any]) -> bool:
    ended = summary["good"] == "live" and set(summary["bad"].values()) == {"rolled_back"}
    return ended and not (summary["lost"] or summary["duplicated"] or summary["reordered"])
