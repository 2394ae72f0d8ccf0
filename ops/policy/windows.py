"""Release windows: when releases are allowed and when they are denied. Pure.

A window starts whenever the clock of its time zone matches its cron, and is open for its
duration in elapsed time. When clocks are set back, a time that occurs twice starts it twice; when
they are set forward, a skipped time starts it as if the clocks had not changed. Windows may
overlap. Deny wins over allow; if there is any allow window, releases are allowed only inside one.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import chain, islice
from typing import Annotated, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterBadDateError, croniter  # type: ignore[import-untyped]
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from ops.config.duration import LastingDuration, written
from ops.config.yaml_document import COMPLETE, nearest
from serve.settings import Settings

# How far ahead a change is searched for.
HORIZON = timedelta(days=731)
# Largest gap between dates of a cron: 29 February around the year 2100.
YEARS_BETWEEN_DATES = 8
DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
# L is the last day of a month. The library's letters for random times are excluded.
CRON_WORDS = frozenset((*DAYS, *MONTHS, "L"))
DAY = timedelta(days=1)
LONGEST_PIECE = 7 * DAY
MAX_WINDOWS = 20
# Limit for all allow windows, or all deny windows; adjacent openings count as one. Searching two
# years ahead with this many of both takes up to two seconds.
MAX_OPENINGS_A_DAY = 144


class ReleaseWindow(Settings):
    """A recurring time window.

    Attributes:
        cron: Start times: minute, hour, day of month, month, day of week.
        duration: Duration, in elapsed time.
        time_zone: Time zone of the cron; a name of the IANA database.
    """

    cron: str
    duration: LastingDuration
    time_zone: str = "UTC"

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        words = re.findall(r"[A-Z]+", cron.upper())
        if "W" in words or "LW" in words or re.search(r"\dW", cron.upper()):
            raise ValueError(
                "W, the weekday nearest to a date, is not supported: name the days of the week"
            )
        if re.search(r"\dL|L-", cron.upper()):
            raise ValueError(
                "L is supported alone, for the last day of a month, and before a day of the week: "
                "L5 for its last Friday"
            )
        if (
            len(cron.split()) != 5
            or not CRON_WORDS.issuperset(words)
            or not croniter.is_valid(cron)
        ):
            raise ValueError(
                "a cron has five fields: minute, hour, day of month, month, day of week, such as "
                '"0 9 * * 1-5" for 09:00 from Monday to Friday'
            )
        return cron

    @field_validator("time_zone")
    @classmethod
    def _known(cls, time_zone: str) -> str:
        if time_zone not in _time_zones():
            message = f"there is no time zone {time_zone!r}{_nearest_zone(time_zone)}"
            raise PydanticCustomError(COMPLETE, "{message}", {"message": message})
        return time_zone

    def __str__(self) -> str:
        return f'"{self.cron}" for {written(self.duration)} in {self.time_zone}'


class Windows(Settings):
    """Times at which releases may start; without any window, always.

    Attributes:
        allow: If not empty, releases may start only inside one of these.
        deny: Releases may not start inside any of these.
    """

    allow: Annotated[tuple[ReleaseWindow, ...], Field(max_length=MAX_WINDOWS)] = ()
    deny: Annotated[tuple[ReleaseWindow, ...], Field(max_length=MAX_WINDOWS)] = ()

    @field_validator("allow", "deny")
    @classmethod
    def _few(cls, windows: tuple[ReleaseWindow, ...]) -> tuple[ReleaseWindow, ...]:
        times = sum(len(_within_a_day(window.cron, window.duration)) for window in windows)
        if times > MAX_OPENINGS_A_DAY:
            message = (
                f"they open {times} times a day, but at most {MAX_OPENINGS_A_DAY} are allowed: "
                "make them less frequent or longer"
            )
            raise PydanticCustomError(COMPLETE, "{message}", {"message": message})
        return windows


class WindowState(NamedTuple):
    """State of the windows at a given time.

    Attributes:
        reason: The window that decides.
        next_change: When ``open`` changes; None if not within two years.
        time_zone: Time zone for showing ``next_change`` to people.
    """

    open: bool
    reason: str
    next_change: datetime | None
    time_zone: str


class _Stretch(NamedTuple):
    """Interval from ``begin`` (inclusive) to ``end`` (exclusive), both UTC."""

    begin: datetime
    end: datetime


@lru_cache(maxsize=64)  # an explanation asks several times for one moment
def is_open(windows: Windows, now: datetime) -> WindowState:
    """Return whether releases are allowed; this holds until ``next_change``.

    Args:
        now: Current time; aware.
    """
    now, until = now.astimezone(UTC), now.astimezone(UTC) + HORIZON
    openings = _openings(windows, now, until)
    stretch = next(openings, None)
    if stretch is None or stretch.begin > now:
        reason, zone = _why_closed(windows, now)
        return WindowState(False, reason, stretch.begin if stretch else None, zone)
    end = stretch.end
    for following in openings:
        if following.begin > end:
            break
        end = following.end
    change = end if end < until else None
    allowing = next((window for window in windows.allow if _holds(window, now)), None)
    if allowing is not None:
        return WindowState(True, f"the window {allowing} is open", change, allowing.time_zone)
    zone = windows.deny[0].time_zone if windows.deny else "UTC"
    return WindowState(True, "no window forbids it", change, zone)


def next_opening(windows: Windows, now: datetime) -> datetime | None:
    """Return the first open time from ``now`` on; None if there is none within two years."""
    state = is_open(windows, now)
    return now if state.open else state.next_change


def next_starts(window: ReleaseWindow, now: datetime, count: int = 5) -> list[datetime]:
    """Return the next start times of a window, in its time zone.

    Args:
        now: Current time; aware.
    """
    zone = ZoneInfo(window.time_zone)
    found = (one.begin for one in _stretches(window, now, now + HORIZON) if one.begin >= now)
    return [begin.astimezone(zone) for begin in islice(found, count)]


def ever_starts(window: ReleaseWindow, now: datetime) -> bool:
    """Return whether any date matches its cron; 30 February does not."""
    return next(_dates(window.cron, now.date()), None) is not None


def _why_closed(windows: Windows, now: datetime) -> tuple[str, str]:
    denying = next((window for window in windows.deny if _holds(window, now)), None)
    if denying is not None:
        return f"the window {denying} forbids it", denying.time_zone
    return "it is outside every window that allows it", windows.allow[0].time_zone


def _holds(window: ReleaseWindow, now: datetime) -> bool:
    nearby = _stretches(window, now, now + timedelta(microseconds=1))
    return any(stretch.begin <= now < stretch.end for stretch in nearby)


def _openings(windows: Windows, now: datetime, until: datetime) -> Iterator[_Stretch]:
    """Return the open intervals from now on, in order and without overlap."""
    allowed: Iterable[_Stretch] = (_Stretch(now, until),)
    if windows.allow:
        allowed = _union(_stretches(window, now, until) for window in windows.allow)
    denied = _union(_stretches(window, now, until) for window in windows.deny)
    return (stretch for stretch in _without(allowed, denied) if stretch.end > now)


def _union(several: Iterable[Iterator[_Stretch]]) -> Iterator[_Stretch]:
    """Merge overlapping intervals; each iterator is in order.

    An interval of years is yielded in adjacent pieces, so that it need not be computed as a
    whole when only the next days matter.
    """
    last: _Stretch | None = None
    for stretch in heapq.merge(*several):
        if last is None:
            last = stretch
        elif stretch.begin > last.end:
            yield last
            last = stretch
        elif stretch.begin - last.begin < LONGEST_PIECE:
            last = _Stretch(last.begin, max(last.end, stretch.end))
        else:
            yield _Stretch(last.begin, stretch.begin)
            last = _Stretch(stretch.begin, max(last.end, stretch.end))
    if last is not None:
        yield last


def _without(allowed: Iterable[_Stretch], denied: Iterator[_Stretch]) -> Iterator[_Stretch]:
    """Subtract the second from the first; both are in order and without overlap."""
    deny = next(denied, None)
    for allow in allowed:
        rest = allow.begin
        while deny is not None and deny.begin < allow.end:
            if rest < deny.begin:
                yield _Stretch(rest, deny.begin)
            rest = max(rest, deny.end)
            if rest >= allow.end:
                break
            deny = next(denied, None)
        if rest < allow.end:
            yield _Stretch(rest, allow.end)


def _stretches(window: ReleaseWindow, since: datetime, until: datetime) -> Iterator[_Stretch]:
    """Yield a window's open intervals in order, from before ``since`` up to ``until``."""
    zone = ZoneInfo(window.time_zone)
    # Two extra days: a zone is up to a day away, and its clocks may be set back.
    first = (since - window.duration).date() - 2 * DAY
    for day in _dates(window.cron, first):
        for stretch in _stretches_of(day, window, zone):
            if stretch.begin >= until:
                return
            yield stretch


def _stretches_of(day: date, window: ReleaseWindow, zone: ZoneInfo) -> Iterator[_Stretch]:
    midnight, following = (datetime.combine(d, time(), zone) for d in (day, day + DAY))
    offsets = {moment.utcoffset() for moment in (midnight, following, following.replace(fold=1))}
    if len(offsets) == 1:
        base = midnight.astimezone(UTC)
        for begin, end in _within_a_day(window.cron, window.duration):
            yield _Stretch(base + begin, base + end)
        return
    local = (midnight + timedelta(minutes=m) for m in _minutes(window.cron))
    starts = set(chain.from_iterable(_instants(moment) for moment in local))
    yield from (_Stretch(start, start + window.duration) for start in sorted(starts))


def _instants(local: datetime) -> Iterator[datetime]:
    """Yield each UTC time of a local time; for a skipped one, as if it were not skipped."""
    first = local.astimezone(UTC)
    yield first
    second = local.replace(fold=1).astimezone(UTC)
    if second > first:
        yield second


@lru_cache(maxsize=1024)
def _within_a_day(cron: str, duration: timedelta) -> tuple[tuple[timedelta, timedelta], ...]:
    """Return start and end after midnight on a matching date; adjacent ones are merged."""
    merged: list[tuple[timedelta, timedelta]] = []
    for start in (timedelta(minutes=minute) for minute in _minutes(cron)):
        touches = merged and start <= merged[-1][1]
        begin = merged.pop()[0] if touches else start
        merged.append((begin, start + duration))
    return tuple(merged)


def _minutes(cron: str) -> list[int]:
    """Return the minutes after midnight at which a window starts on a matching date."""
    minutes, hours = croniter.expand(cron)[0][:2]
    return [
        60 * hour + minute
        for hour in (range(24) if hours == ["*"] else sorted(hours))
        for minute in (range(60) if minutes == ["*"] else sorted(minutes))
    ]


def _dates(cron: str, first: date) -> Iterator[date]:
    """Yield the matching dates from ``first`` on."""
    dates = croniter(
        " ".join(("0 0", *cron.split()[2:])),
        datetime.combine(first, time()) - timedelta(minutes=1),
        max_years_between_matches=YEARS_BETWEEN_DATES,
    )
    while True:
        try:
            yield dates.get_next(datetime).date()
        except CroniterBadDateError:
            return


@lru_cache(maxsize=1)
def _time_zones() -> frozenset[str]:
    # "localtime" differs between machines.
    return frozenset(available_timezones() - {"localtime"})


def _nearest_zone(name: str) -> str:
    """Suggest a zone by its full name, or by its city alone."""
    cities = {zone.rsplit("/", 1)[-1].lower(): zone for zone in sorted(_time_zones())}
    city = cities.get(name.strip().rsplit("/", 1)[-1].replace(" ", "_").lower())
    if city is not None:
        return f"; did you mean {city}?"
    near = nearest(name, _time_zones())
    return near if "did you mean" in near else "; write it as in Europe/Berlin"
