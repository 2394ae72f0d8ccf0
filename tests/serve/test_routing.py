from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serve.routing import route

KEYS = [b"user-%d" % number for number in range(20_000)]
WEIGHT = st.floats(0.001, 1.0)
WEIGHTS = st.dictionaries(st.text(min_size=1, max_size=8), WEIGHT, min_size=1, max_size=5)


def route_keys(*weights: tuple[str, float]) -> list[str]:
    return [route(key, b"", weights) for key in KEYS]


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_each_version_gets_its_share(share: float) -> None:
    versions = Counter(route_keys(("1", 1 - share), ("2", share)))

    deviation = math.sqrt(len(KEYS) * share * (1 - share))
    assert abs(versions["2"] - len(KEYS) * share) < 4 * deviation


def test_three_versions_get_their_shares_whatever_the_sum() -> None:
    versions = Counter(route_keys(("1", 6.0), ("2", 3.0), ("3", 1.0)))

    assert versions["1"] / len(KEYS) == pytest.approx(0.6, abs=0.02)
    assert versions["3"] / len(KEYS) == pytest.approx(0.1, abs=0.02)


def test_growing_canary_only_takes_keys() -> None:
    before = route_keys(("1", 0.95), ("2", 0.05))
    after = route_keys(("1", 0.75), ("2", 0.25))

    moved = {(old, new) for old, new in zip(before, after, strict=True) if old != new}
    assert moved == {("1", "2")}


@given(st.binary(max_size=40), WEIGHTS, st.data())
def test_growing_one_weight_moves_a_key_only_to_it(
    key: bytes, weights: dict[str, float], data: st.DataObject
) -> None:
    grown = data.draw(st.sampled_from(sorted(weights)))
    heavier = {**weights, grown: weights[grown] * data.draw(st.floats(1.0, 100.0))}

    before = route(key, b"", list(weights.items()))
    assert route(key, b"", list(heavier.items())) in (before, grown)


@given(st.binary(max_size=40), WEIGHTS, st.randoms(use_true_random=False))
def test_order_of_the_weights_is_irrelevant(
    key: bytes, weights: dict[str, float], random: object
) -> None:
    shuffled = list(weights.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert route(key, b"", shuffled) == route(key, b"", list(weights.items()))


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=40))
def test_fallback_stands_in_only_for_a_missing_key(key: bytes, fallback: bytes) -> None:
    assume(key != fallback)
    weights = [("1", 0.5), ("2", 0.5)]

    assert route(None, fallback, weights) == route(fallback, b"other", weights)
    assert route(key, fallback, weights) == route(key, b"other", weights)


def test_another_process_routes_alike() -> None:
    weights = [("1", 0.5), ("2", 0.3), ("3", 0.2)]
    code = (
        "from serve.routing import route\n"
        f"print(''.join(route(b'user-%d' % n, b'', {weights!r}) for n in range(500)))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    )

    assert other.stdout.strip() == "".join(route(key, b"", weights) for key in KEYS[:500])


@given(st.binary(max_size=40))
def test_version_without_weight_gets_nothing(key: bytes) -> None:
    assert route(key, b"", [("1", 0.0), ("2", 0.1), ("3", 0.0)]) == "2"


@pytest.mark.parametrize("weights", [[], [("1", 0.0)]])
def test_no_version_with_weight_is_an_error(weights: list[tuple[str, float]]) -> None:
    with pytest.raises(ValueError, match="no version to route to"):
        route(b"key", b"", weights)
