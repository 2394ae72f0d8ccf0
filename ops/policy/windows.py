"""When a release may go out: windows that allow and windows that deny. Pure.

A window starts whenever the clock of its zone shows a moment of its cron, and is open for its
duration in elapsed time. When clocks are put back, a moment that they show twice starts it
twice; when they are put forward, a moment that they skip starts it as if they had not been.
Windows may overlap. Deny wins over allow; where there is any allow window, it is open only
inside one.
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
from ops.config.yaml_document import TOLD, nearest
from serve.settings import Settings

# How far a change is looked for.
HORIZON = timedelta(days=731)
# The longest that a date of a cron can be away: 29 February around a year 2100.
YEARS_BETWEEN_DATES = 8
DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
# L is the last day of a month. What is left out are the library's letters for chance.
CRON_WORDS = frozenset((*DAYS, *MONTHS, "L"))
DAY = timedelta(days=1)
LONGEST_PIECE = 7 * DAY
MAX_WINDOWS = 20
# Of all windows that allow, or that deny; what touches is one. To look two years ahead takes up to
# two seconds with so many of both.
MAX_OPENINGS_A_DAY = 144


class ReleaseWindow(Settings):
    """A time that comes again and again.

    Attributes:
        cron: When it starts: minute, hour, day of month, month, day of week.
        duration: How long it lasts, in elapsed time.
        time_zone: Whose clock the cron is read from; a name of the IANA database.
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
                "W, the weekday nearest to a date, is not understood: name the days of the week"
            )
        if re.search(r"\dL|L-", cron.upper()):
            raise ValueError(
                "L is understood alone, for the last day of a month, and in front of a day of the "
                "week: L5 for its last Friday"
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
            raise PydanticCustomError(TOLD, "{message}", {"message": message})
        return time_zone

    def __str__(self) -> str:
        return f'"{self.cron}" for {written(self.duration)} in {self.time_zone}'


class Windows(Settings):
    """When releases may go out; without any window, always.

    Attributes:
        allow: Where there is one, only inside one of them.
        deny: Never inside one of them.
    """

    allow: Annotated[tuple[ReleaseWindow, ...], Field(max_length=MAX_WINDOWS)] = ()
    deny: Annotated[tuple[ReleaseWindow, ...], Field(max_length=MAX_WINDOWS)] = ()

    @field_validator("allow", "deny")
    @classmethod
    def _few(cls, windows: tuple[ReleaseWindow, ...]) -> tuple[ReleaseWindow, ...]:
        times = sum(len(_within_a_day(window.cron, window.duration)) for window in windows)
        if times > MAX_OPENINGS_A_DAY:
            message = (
                f"they open {times} times a day, and {MAX_OPENINGS_A_DAY} are the most: let them "
                "start less often or last longer"
            )
            raise PydanticCustomError(TOLD, "{message}", {"message": message})
        return windows


class WindowState(NamedTuple):
    """Whether a release may go out as far as the windows say.

    Attributes:
        reason: Which window decides.
        next_change: When ``open`` will be the other; None where that is not within two years.
        time_zone: In which people read ``next_change``.
    """

    open: bool
    reason: str
    next_change: datetime | None
    time_zone: str


class _Stretch(NamedTuple):
    """From ``begin`` up to ``end``, both UTC."""

    begin: datetime
    end: datetime


@lru_cache(maxsize=64)  # an explanation asks several times for one moment
def is_open(windows: Windows, now: datetime) -> WindowState:
    """Whether it is open; it stays so until ``next_change``.

    Args:
        now: Aware.
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
    """The first moment from ``now`` on when it is open; None where none is within two years."""
    state = is_open(windows, now)
    return now if state.open else state.next_change


def next_starts(window: ReleaseWindow, now: datetime, count: int = 5) -> list[datetime]:
    """When a window opens next, by the clock of its zone.

    Args:
        now: Aware.
    """
    zone = ZoneInfo(window.time_zone)
    found = (one.begin for one in _stretches(window, now, now + HORIZON) if one.begin >= now)
    return [begin.astimezone(zone) for begin in islice(found, count)]


def ever_starts(window: ReleaseWindow, now: datetime) -> bool:
    """Whether any date fits its cron; 30 February does not."""
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
    """When it is open, from now on; in order, without overlap."""
    allowed: Iterable[_Stretch] = (_Stretch(now, until),)
    if windows.allow:
        allowed = _union(_stretches(window, now, until) for window in windows.allow)
    denied = _union(_stretches(window, now, until) for window in windows.deny)
    return (stretch for stretch in _without(allowed, denied) if stretch.end > now)


def _union(several: Iterable[Iterator[_Stretch]]) -> Iterator[_Stretch]:
    """The same without overlap; each iterator is in order.

    What is open for years comes in pieces that touch, so that it need not be looked at as a
    whole where the next days are all that matters.
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
    """What of the first is not in the second; both in order and without overlap."""
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
    """When one window is open, in order: from before ``since`` to what begins by ``until``."""
    zone = ZoneInfo(window.time_zone)
    # Two days more than needed: a zone is up to a day away, and its clocks are put back.
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
    """Each moment, UTC, at which a clock shows a time; the skipped one where it never does."""
    first = local.astimezone(UTC)
    yield first
    second = local.replace(fold=1).astimezone(UTC)
    if second > first:
        yield second


@lru_cache(maxsize=1024)
def _within_a_day(cron: str, duration: timedelta) -> tuple[tuple[timedelta, timedelta], ...]:
    """Begin and end, from midnight, of what starts on a date that fits; touching ones as one."""
    merged: list[tuple[timedelta, timedelta]] = []
    for start in (timedelta(minutes=minute) for minute in _minutes(cron)):
        touches = merged and start <= merged[-1][1]
        begin = merged.pop()[0] if touches else start
        merged.append((begin, start + duration))
    return tuple(merged)


def _minutes(cron: str) -> list[int]:
    """Minutes from midnight at which a window starts on a date that fits."""
    minutes, hours = croniter.expand(cron)[0][:2]
    return [
        60 * hour + minute
        for hour in (range(24) if hours == ["*"] else sorted(hours))
        for minute in (range(60) if minutes == ["*"] else sorted(minutes))
    ]


def _dates(cron: str, first: date) -> Iterator[date]:
    """Dates that fit, from ``first`` on."""
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
    # "localtime" is another one on every machine.
    return frozenset(available_timezones() - {"localtime"})


def _nearest_zone(name: str) -> str:
    """By its whole name, or by its city alone."""
    cities = {zone.rsplit("/", 1)[-1].lower(): zone for zone in sorted(_time_zones())}
    city = cities.get(name.strip().rsplit("/", 1)[-1].replace(" ", "_").lower())
    if city is not None:
        return f"; did you mean {city}?"
    near = nearest(name, _time_zones())
    return near if "did you mean" in near else "; write it as in Europe/Berlin"
