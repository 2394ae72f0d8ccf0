"""Windows: against a slow oracle around changes of the clock, and by example."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops.policy.windows import HORIZON, ReleaseWindow, Windows, is_open, next_opening, next_starts

MINUTE = timedelta(minutes=1)
SPAN = timedelta(days=3)
LONGEST = timedelta(hours=40)
# Days on which these clocks change: by an hour, by half an hour, at midnight, and not at all.
CHANGES = [
    ("Europe/Berlin", datetime(2027, 3, 28, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2027, 4, 3, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 4, 23, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 10, 29, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, tzinfo=UTC)),
    ("Pacific/Kiritimati", datetime(2026, 12, 31, tzinfo=UTC)),
    ("UTC", datetime(2028, 2, 28, tzinfo=UTC)),
]


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))


def daily(cron: str, duration: str, time_zone: str = "Europe/Berlin") -> ReleaseWindow:
    return ReleaseWindow(cron=cron, duration=duration, time_zone=time_zone)


def fits(field: str, value: int) -> bool:
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            low, high = "0", "99"
        if int(low) <= value <= int(high or low) and (value - int(low)) % int(step or 1) == 0:
            return True
    return False


def shows(cron: str, local: datetime) -> bool:
    minute, hour, day, month, weekday = cron.split()
    days = [fits(day, local.day), fits(weekday, local.isoweekday() % 7)]
    day_fits = any(days) if day != "*" and weekday != "*" else all(days)
    return (
        fits(minute, local.minute)
        and fits(hour, local.hour)
        and fits(month, local.month)
        and day_fits
    )


@cache
def clock(time_zone: str, first: datetime, end: datetime) -> dict[datetime, list[datetime]]:
    """When a clock shows each time, by looking at it every minute."""
    zone = ZoneInfo(time_zone)
    shown: dict[datetime, list[datetime]] = defaultdict(list)
    before = first.astimezone(zone).replace(tzinfo=None) - MINUTE
    for index in range((end - first) // MINUTE):
        now = first + index * MINUTE
        local = now.astimezone(zone).replace(tzinfo=None, fold=0)
        while before + MINUTE < local:
            # Skipped: it would have come then, had the clock not been put forward.
            before += MINUTE
            shown[before].append(now + (before - local) + skipped(now, zone))
        shown[local].append(now)
        before = local
    return shown


def open_minutes(window: ReleaseWindow, start: datetime, end: datetime) -> list[bool]:
    """Whether each minute is within the window."""
    result = [False] * ((end - start) // MINUTE)
    margin = timedelta(days=1)
    for local, instants in clock(window.time_zone, start - LONGEST - margin, end + margin).items():
        for instant in instants if shows(window.cron, local) else ():
            low = max(0, (instant - start) // MINUTE)
            high = min(len(result), (instant + window.duration - start) // MINUTE)
            if low < high:
                result[low:high] = [True] * (high - low)
    return result


def skipped(now: datetime, zone: ZoneInfo) -> timedelta:
    after, before = (moment.astimezone(zone).utcoffset() for moment in (now, now - MINUTE))
    assert after is not None
    assert before is not None
    return after - before


def told_minutes(windows: Windows, start: datetime, end: datetime) -> list[bool]:
    """The same, by going from one change to the next."""
    result: list[bool] = []
    now = start
    while now < end:
        state = is_open(windows, now)
        following = min(state.next_change or end, end)
        assert following > now
        result += [state.open] * ((following - now) // MINUTE)
        now = following
    return result


crons = st.tuples(
    st.sampled_from(["0", "30", "59", "*", "*/20", "5-10", "0,45"]),
    st.sampled_from(["0", "1", "2", "3", "23", "*", "1-3", "9", "*/6"]),
    st.sampled_from(["*", "*", "*", "1", "28-31"]),
    st.sampled_from(["*", "*", "2-4", "10-12"]),
    st.sampled_from(["*", "*", "0", "6", "1-5"]),
).map(" ".join)
durations = st.sampled_from(["1m", "20m", "30m", "60m", "90m", "5h", "24h", "40h"])


@given(
    st.sampled_from(CHANGES),
    st.lists(st.tuples(crons, durations), max_size=2),
    st.lists(st.tuples(crons, durations), max_size=2),
)
# A clock that is put back over midnight.
@pytest.mark.slow
@example(("America/St_Johns", datetime(2010, 11, 7, tzinfo=UTC)), [("30 23 * * *", "1m")], [])
@settings(max_examples=60, deadline=None)
def test_agrees_with_a_clock_read_every_minute(
    change: tuple[str, datetime], allow: list[tuple[str, str]], deny: list[tuple[str, str]]
) -> None:
    zone, start = change
    start, end = start - timedelta(days=1), start - timedelta(days=1) + SPAN
    windows = Windows(
        allow=tuple(daily(*window, zone) for window in allow),
        deny=tuple(daily(*window, zone) for window in deny),
    )
    allowed = [open_minutes(window, start, end) for window in windows.allow]
    denied = [open_minutes(window, start, end) for window in windows.deny]
    expected = [
        (not allowed or any(minutes[i] for minutes in allowed))
        and not any(minutes[i] for minutes in denied)
        for i in range(SPAN // MINUTE)
    ]
    assert told_minutes(windows, start, end) == expected


def test_without_windows_it_is_always_open() -> None:
    state = is_open(Windows(), berlin("2026-11-21T12:00"))
    assert (state.open, state.next_change) == (True, None)


def test_inside_and_outside_office_hours() -> None:
    office = Windows(allow=(daily("0 9 * * 1-5", "8h"),))
    saturday, monday = berlin("2026-11-21T12:00"), berlin("2026-11-23T09:00")
    state = is_open(office, saturday)
    assert (state.open, state.next_change) == (False, monday)
    assert "outside every window" in state.reason
    state = is_open(office, monday)
    assert (state.open, state.next_change) == (True, berlin("2026-11-23T17:00"))
    assert '"0 9 * * 1-5" for 8h in Europe/Berlin is open' in state.reason
    assert not is_open(office, berlin("2026-11-23T17:00")).open
    assert next_opening(office, saturday) == monday
    assert next_opening(office, monday) == monday


def test_deny_wins_and_is_named() -> None:
    windows = Windows(allow=(daily("0 9 * * *", "8h"),), deny=(daily("0 0 24 12 *", "72h", "UTC"),))
    state = is_open(windows, berlin("2026-12-24T10:00"))
    assert '"0 0 24 12 *" for 3d in UTC forbids it' in state.reason
    assert state.next_change == berlin("2026-12-27T09:00")
    assert state.time_zone == "UTC"


@pytest.mark.parametrize(
    ("start", "hours_of_wall_clock"), [("2027-03-27T22:00", 9), ("2026-10-24T22:00", 7)]
)
def test_duration_is_elapsed_time(start: str, hours_of_wall_clock: int) -> None:
    windows = Windows(allow=(daily("0 22 * * 6", "8h"),))
    change = is_open(windows, berlin(start)).next_change
    assert change is not None
    closing = change.astimezone(ZoneInfo("Europe/Berlin"))
    assert closing.replace(tzinfo=None) == datetime.fromisoformat(start) + timedelta(
        hours=hours_of_wall_clock
    )


def test_windows_that_touch_are_one() -> None:
    windows = Windows(allow=(daily("0 9 * * *", "3h"), daily("0 12 * * *", "3h")))
    assert is_open(windows, berlin("2026-11-21T10:00")).next_change == berlin("2026-11-21T15:00")


@pytest.mark.parametrize("cron", ["* * * * *", "0 0 * * *"])
def test_change_that_never_comes_is_none(cron: str) -> None:
    always = daily(cron, "24h", "UTC")
    now = berlin("2026-11-21T12:00")
    assert is_open(Windows(allow=(always,)), now)[::2] == (True, None)
    assert is_open(Windows(deny=(always,)), now)[::2] == (False, None)


def test_change_beyond_the_horizon_is_not_told() -> None:
    leap_day = Windows(deny=(daily("0 0 29 2 *", "24h"),))
    opening = berlin("2028-02-29T00:00")
    assert is_open(leap_day, opening - HORIZON - MINUTE).next_change is None
    assert is_open(leap_day, opening - HORIZON + MINUTE).next_change == opening


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 0 13 * 5", ["27 Nov", "04 Dec", "11 Dec", "13 Dec", "18 Dec"]),  # either of them
        ("0 0 L * *", ["30 Nov", "31 Dec", "31 Jan", "28 Feb", "31 Mar"]),
        ("0 0 * * L5", ["27 Nov", "25 Dec", "29 Jan", "26 Feb", "26 Mar"]),
        ("0 0 * * 5#2", ["11 Dec", "08 Jan", "12 Feb", "12 Mar", "09 Apr"]),
        ("0 0 31 2 *", []),
    ],
)
def test_next_starts(cron: str, days: list[str]) -> None:
    window = ReleaseWindow(cron=cron, duration="1h")
    found = next_starts(window, datetime(2026, 11, 27, tzinfo=UTC))
    assert [f"{moment:%d %b}" for moment in found] == days


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 0 15W * *", "W, the weekday nearest"),
        ("0 0 LW * *", "W, the weekday nearest"),
        ("0 0 * * 5L", "L5 for its last Friday"),
        ("0 0 L-2 * *", "L is supported alone"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(cron: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ReleaseWindow(cron=cron, duration="1h")
