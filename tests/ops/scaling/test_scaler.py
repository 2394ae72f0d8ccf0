"""From what is known of a platform to sizes of apps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from ops.config.scaling import ModelScaling, ScalingSettings
from ops.releases.releases import Release
from ops.releases.state_machine import Plan, Position, ReleaseState
from ops.scaling.backlog import Backlog
from ops.scaling.rates import OffsetSample, Rates
from ops.scaling.scaler import PlatformSnapshot, Scaler, TargetSize
from ops.serving.observed_app import ObservedApp
from serve.settings import ModelSettings
from stream.schema import ControlRecord, VersionRoute
from stream.settings import PipelineSettings
from tests.ops.scaling.windows import window

SCALING = ScalingSettings(
    max_replicas=8, target_drain_s=10, up_delay_s=0, down_delay_s=10, smoothing_s=1
)
MODEL = ModelSettings(name="m", path=Path("."))
WORDS = PipelineSettings(name="words", model="m", input_topics=("in",), output_topic="out")
ROUTE = ControlRecord(model="m", epoch=1, versions={"1": VersionRoute(weight=1.0)})
RESOURCES = {"CPU": 1.0}


class Going:
    """As much of a release as is asked for."""

    def __init__(self, position: Position) -> None:
        self.position, self.model = position, "m"
        self.plan = Plan(shadow=False, weights=(0.5,), bake=True)
        self.label, self.previous_label = "2", "1"


def app(replicas: int = 1, *, status: str = "RUNNING", target: int | None = None) -> ObservedApp:
    size = replicas if target is None else target
    return ObservedApp(status, replicas, "", target=size, resources=RESOURCES)


def backlog(lag: float = 0.0, *, arrival: float = 0.0, drain: float = 0.0, **more: Any) -> Backlog:
    rates = Rates(OffsetSample(100.0, lag, 0.0), arrival, drain)
    return Backlog(rates, 4, 100.0, 0.0)._replace(**more)


def sight(**changes: Any) -> PlatformSnapshot:
    known: Mapping[str, Any] = {
        "now_s": 100.0,
        "now_ms": 10_000,
        "apps": {"m@1": app(), "pipeline-words": app()},
        "routes": {"m": ROUTE},
        "releases": (),
        "backlogs": {"words": backlog()},
        "windows": {"m": [window()]},
    }
    return PlatformSnapshot(**{**known, **changes})


def targets(seen: PlatformSnapshot, scaler: Scaler | None = None) -> dict[str, TargetSize]:
    scaler = scaler or Scaler(SCALING, [MODEL], [WORDS])
    return {target_size.app: target_size for target_size in scaler.targets(seen)}


def test_quiet_platform_is_left_alone() -> None:
    assert targets(sight()) == {}


def test_backlog_of_busy_replicas_takes_more_of_them() -> None:
    # 4,000 records at 80/s each, by two in 12.5 s, and by others in what is left after 10 s.
    apps = {"m@1": app(2), "pipeline-words": app()}
    windows = {"m": [window(answers=2000, busy_s=20.0)]}
    found = targets(sight(apps=apps, windows=windows, backlogs={"words": backlog(4000, drain=200)}))
    assert set(found) == {"m@1"}  # consumers are not what is slow
    target_size = found["m@1"]
    assert (target_size.before, target_size.target, target_size.model, target_size.version) == (
        2,
        8,
        "m",
        1,
    )
    assert target_size.reason.startswith("8 replicas instead of 2: lag 4,000")
    assert target_size.evidence["lag"] == 4000


def test_backlog_before_idle_replicas_takes_consumers_up_to_the_partitions() -> None:
    seen = sight(
        windows={"m": [window(busy_s=0.5)]}, backlogs={"words": backlog(20_000, drain=100)}
    )
    found = targets(seen)
    assert set(found) == {"pipeline-words"}
    target_size = found["pipeline-words"]
    assert (target_size.target, target_size.version, target_size.model) == (4, None, "m")
    assert target_size.reason.startswith("4 consumers instead of 1")


@pytest.mark.parametrize(
    "known",
    [
        Backlog(),
        backlog(4000, drain=100, reachable_since_s=None),
        backlog(4000, drain=100, read_at_s=60.0),
    ],
    ids=["unknown", "away", "old"],
)
def test_what_is_not_known_now_holds(known: Backlog) -> None:
    apps = {"m@1": app(3), "pipeline-words": app(2)}
    scaler = Scaler(SCALING, [MODEL], [WORDS])
    for second in range(60):
        seen = sight(now_s=100.0 + second, apps=apps, backlogs={"words": known})
        assert targets(seen, scaler) == {}


def test_one_pipeline_of_two_that_is_not_known_holds_the_model() -> None:
    other = WORDS.model_copy(update={"name": "other"})
    scaler = Scaler(SCALING, [MODEL], [WORDS, other])
    seen = sight(backlogs={"words": backlog(4000, drain=100)})
    assert "m@1" not in targets(seen, scaler)
    both = seen._replace(backlogs={"words": backlog(2000), "other": backlog(2000, drain=100)})
    assert targets(both, scaler)["m@1"].target == 4


def test_size_that_somebody_else_changed_is_put_right() -> None:
    scaler = Scaler(SCALING, [MODEL], [WORDS])
    busy = sight(backlogs={"words": backlog(1200, drain=100)})
    assert targets(busy, scaler)["m@1"].target == 2
    assert targets(busy, scaler)["m@1"].target == 2  # Serve has not been told, or forgot
    done = {"m@1": app(1, target=2), "pipeline-words": app()}
    assert "m@1" not in targets(busy._replace(apps=done), scaler)


def test_replicas_that_came_later_have_not_been_idle_before() -> None:
    scaler = Scaler(SCALING, [MODEL], [WORDS])
    full = backlog(4000, drain=100)
    assert targets(sight(backlogs={"words": full}), scaler)["m@1"].target == 4
    # What telemetry tells is still of the one that was alone.
    apps = {"m@1": app(4), "pipeline-words": app()}
    later = sight(now_ms=11_000, apps=apps, backlogs={"words": full})
    assert {name: target_size.target for name, target_size in targets(later, scaler).items()} == {
        "m@1": 5
    }


def test_configured_sizes_are_the_least() -> None:
    scaler = Scaler(SCALING, [MODEL.model_copy(update={"replicas": 3})], [WORDS])
    assert targets(sight(), scaler)["m@1"].target == 3
    large = Scaler(SCALING, [MODEL.model_copy(update={"replicas": 20})], [WORDS])
    assert targets(sight(), large)["m@1"].target == 20


def test_model_has_its_own_pace_and_bounds() -> None:
    scaling = SCALING.model_copy(update={"models": {"m": ModelScaling(max_replicas=3)}})
    seen = sight(backlogs={"words": backlog(4000, drain=100)})
    assert targets(seen, Scaler(scaling, [MODEL], [WORDS]))["m@1"].target == 3
    other = SCALING.model_copy(update={"models": {"n": ModelScaling(max_replicas=3)}})
    assert targets(seen, Scaler(other, [MODEL], [WORDS]))["m@1"].target == 4


def test_version_that_waits_for_its_share_is_not_taken_for_useless() -> None:
    """A backlog stands, and the old version that may have to take all back does nothing."""
    weights = {"1": VersionRoute(weight=0.0), "2": VersionRoute(weight=1.0)}
    full = backlog(9000, arrival=300, drain=300)
    seen = sight(
        apps={"m@1": app(8), "m@2": app(8), "pipeline-words": app()},
        routes={"m": ROUTE.model_copy(update={"versions": weights})},
        windows={
            "m": [window("1", answers=10, busy_s=0.1), window("2", answers=8000, busy_s=80.0)]
        },
    )
    bakes = [cast(Release, Going(Position(ReleaseState.BAKE)))]
    for releases, sizes in ((bakes, {8}), ([], {4})):
        scaler, found = Scaler(SCALING, [MODEL], [WORDS]), {8}
        for second in (0, 10):
            read = full._replace(read_at_s=100.0 + second)
            later = seen._replace(now_s=100.0 + second, releases=releases, backlogs={"words": read})
            found |= {w.target for w in scaler.targets(later) if w.app == "m@1"}
        assert found - {8} == sizes - {8}


def test_ceiling_of_cost_caps_replicas_at_once() -> None:
    apps = {"m@1": app(5), "pipeline-words": app()}
    found = targets(sight(apps=apps, caps={"m": 2}))
    assert found["m@1"].target == 2


def test_cluster_without_room_takes_no_more_than_fits() -> None:
    seen = sight(backlogs={"words": backlog(4000, drain=100)}, free={"CPU": 2.0, "GPU": 0.0})
    target_size = targets(seen)["m@1"]
    assert target_size.target == 3
    assert "no capacity for more" in target_size.reason
    assert targets(seen._replace(free={"CPU": 0.9})) == {}


def test_room_is_given_once() -> None:
    other = ModelSettings(name="n", path=Path("."))
    more = WORDS.model_copy(update={"name": "more", "model": "n"})
    scaler = Scaler(SCALING, [MODEL, other], [WORDS, more])
    busy = backlog(4000, drain=100)
    seen = sight(
        apps={"m@1": app(), "n@1": app()},
        routes={"m": ROUTE, "n": ROUTE.model_copy(update={"model": "n"})},
        backlogs={"words": busy, "more": busy},
        windows={"m": [window()], "n": [window()]},
        free={"CPU": 4.0},
    )
    found = targets(seen, scaler)
    assert (found["m@1"].target, found["n@1"].target) == (4, 2)


def test_version_that_has_grown_makes_room_for_one_that_waits_for_it() -> None:
    scaler = Scaler(SCALING, [MODEL], [WORDS])
    waiting = app(0, status="DEPLOYING", target=1)
    full = {"words": backlog(4000, drain=300)}
    windows = {"m": [window(answers=3000, busy_s=30.0)]}
    apps = {"m@1": app(3), "m@2": waiting, "pipeline-words": app()._replace(resources={})}
    seen = sight(apps=apps, backlogs=full, windows=windows, free={"CPU": -1.0})
    target_size = targets(seen, scaler)["m@1"]
    assert (target_size.before, target_size.target) == (3, 2)
    assert target_size.reason.startswith("frees capacity for another app, ")
    # Still there and still counted, but on its way out: nothing more is given back for it.
    apps["m@1"] = app(3, target=2)
    assert "m@1" not in targets(seen._replace(apps=apps), scaler)


def test_nobody_makes_room_beyond_its_least() -> None:
    apps = {"m@1": app(1), "m@2": app(0, status="DEPLOYING", target=1)}
    assert targets(sight(apps=apps, free={"CPU": -1.0})) == {}


def test_version_that_does_not_run_is_left_alone() -> None:
    apps = {"m@1": app(status="DEPLOYING"), "pipeline-words": app(status="DEPLOYING")}
    assert targets(sight(apps=apps, backlogs={"words": backlog(90_000, drain=100)})) == {}


def test_candidate_is_sized_for_its_coming_share_before_it_has_answered() -> None:
    # 300 records/s at 100/s each: the live version needs 4, half of it needs 2.
    apps = {"m@1": app(4), "m@2": app(1), "pipeline-words": app()}
    release = cast(Release, Going(Position(ReleaseState.LOADING)))
    windows = {"m": [window(answers=3000, busy_s=30.0)]}
    scaler = Scaler(SCALING, [MODEL], [WORDS])
    seen = sight(
        apps=apps,
        releases=[release],
        windows=windows,
        backlogs={"words": backlog(0, arrival=300, drain=300)},
    )
    found = targets(seen, scaler)
    assert set(found) == {"m@2"}
    assert found["m@2"].target == 2


def test_old_version_keeps_what_it_needs_to_take_all_back() -> None:
    """While the new one bakes the old one answers nothing, and is not scaled away."""
    route = ROUTE.model_copy(
        update={"versions": {"1": VersionRoute(weight=0.0), "2": VersionRoute(weight=1.0)}}
    )
    apps = {"m@1": app(4), "m@2": app(4), "pipeline-words": app()}
    windows = {
        "m": [window("1", answers=3000, busy_s=30.0), window("2", answers=3000, busy_s=30.0)]
    }
    scaler = Scaler(SCALING, [MODEL], [WORDS])
    seen = sight(
        apps=apps,
        routes={"m": route},
        releases=[cast(Release, Going(Position(ReleaseState.BAKE)))],
        windows=windows,
        backlogs={"words": backlog(0, arrival=300, drain=300)},
    )
    for second in range(60):
        read = backlog(0, arrival=300, drain=300, read_at_s=100.0 + second)
        assert targets(seen._replace(now_s=100.0 + second, backlogs={"words": read}), scaler) == {}
    over = seen._replace(releases=[])
    sizes = []
    for second in range(60, 120):
        read = backlog(0, arrival=300, drain=300, read_at_s=100.0 + second)
        found = targets(over._replace(now_s=100.0 + second, backlogs={"words": read}), scaler)
        sizes += [target_size.target for name, target_size in found.items() if name == "m@1"]
    assert sizes
    assert min(sizes) == 1


def test_model_without_pipeline_is_left_alone() -> None:
    scaler = Scaler(SCALING, [MODEL], [])
    assert targets(sight(apps={"m@1": app(5)}), scaler) == {}
