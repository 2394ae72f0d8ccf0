"""Releases in SQL: starting them, moving them between states and reading them.

A move is one transaction: the release row, the resulting route and the ledger row are written
together or not at all. What must happen outside of SQL follows from these rows, so an operator
that dies between any two statements leaves nothing half done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from sqlalchemy import Connection, Row, desc, func, insert, select, update

from ops.access.ledger import OPERATOR, Entry, append
from ops.catalogue.deployments import deployment, ensure_label
from ops.catalogue.versions import lock_model, number_of
from ops.errors import (
    EventRefused,
    ReleaseMoved,
    ReleaseOpen,
    UnknownRelease,
    UnknownVersion,
    VersionIsLive,
)
from ops.policy import store as policy_store
from ops.policy.policy import Policy
from ops.releases.routes import live_label, put_route
from ops.releases.state_machine import (
    ENDED,
    Event,
    Plan,
    Position,
    ReleaseState,
    Sides,
    after,
    asked,
    routes_of,
)
from ops.sql.tables import releases, routes, versions
from stream.schema import ControlRecord

# Until a release loads, a change of policy sends it back to its gates; from then on it follows
# the policy that it was gated and approved by.
UNLOADED = frozenset(
    {ReleaseState.DRAFT, ReleaseState.GATED, ReleaseState.AWAITING_APPROVAL, ReleaseState.SCHEDULED}
)


@dataclass(frozen=True)
class Release:
    """A release as read from its row.

    Attributes:
        label: Name of the version and its settings in the routing table.
        previous: The version that was live when the release began; ``previous_label`` is its
            label. None for a model's first.
        entered_at: When it entered its state.
        is_rollback: Whether it returns to a formerly live version: no gates, no steps.
        revision: Number that grows with every move.
    """

    id: int
    model: str
    version: int
    label: str
    version_digest: str
    policy_digest: str
    policy_text: str
    position: Position
    previous: int | None
    previous_label: str | None
    previous_digest: str | None
    is_rollback: bool
    author: str
    note: str
    created_at: datetime
    entered_at: datetime
    ended_at: datetime | None
    evidence: Mapping[str, Any]
    revision: int

    @cached_property
    def policy(self) -> Policy:
        """Return the policy by which its gates were judged."""
        return _policy(self.policy_text)

    @cached_property
    def plan(self) -> Plan:
        """Return the steps; none for a model's first version and for a rollback."""
        if self.is_rollback or self.previous_label is None:
            return Plan(shadow=False, weights=(), bake=False)
        rollout = self.policy.rollout
        weights = tuple(step.weight for step in rollout.canary)
        return Plan(rollout.shadow is not None, weights, rollout.bake is not None)

    @property
    def sides(self) -> Sides:
        """Return both versions by their labels."""
        digests: dict[str, str | None] = {self.label: self.version_digest}
        if self.previous_label is not None:
            digests[self.previous_label] = self.previous_digest
        return Sides(self.previous_label, self.label, digests)

    @property
    def breaks_glass(self) -> bool:
        """Return whether approvals and windows are bypassed."""
        return bool(self.evidence.get("break_glass"))

    def __str__(self) -> str:
        return f"release {self.id} of {self.model}@{self.label}"


@lru_cache(maxsize=1024)
def _policy(text: str) -> Policy:
    """Parse a policy; cached, as the operator reads every open release at every round."""
    return Policy.model_validate_json(text)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A person's request to start a release.

    Attributes:
        settings: Settings to serve the version with; None takes those of the live version.
        break_glass: Bypass approvals, windows and cadence; the note gives the reason.
    """

    model: str
    version: int
    actor: str
    note: str = ""
    settings: Mapping[str, Any] | None = None
    break_glass: bool = False
    is_rollback: bool = False


def start(connection: Connection, wanted: Start, now: datetime) -> Release:
    """Start a release; the operator advances it from there.

    Raises:
        UnknownVersion: The version does not exist.
        ReleaseOpen: Another release of the model has not ended.
        VersionIsLive: It already serves, with the same settings.
    """
    lock_model(connection, wanted.model)
    digest = _digest_of(connection, wanted.model, wanted.version)
    running = open_of(connection, wanted.model)
    if running is not None:
        raise ReleaseOpen(
            f"{running} is {running.position.state}: wait for it, or end it with "
            f"`bertstream release abort {wanted.model}`"
        )
    live = live_label(connection, wanted.model)
    live_settings = deployment(connection, wanted.model, live) if live else {}
    settings = dict(live_settings if wanted.settings is None else wanted.settings)
    label = ensure_label(connection, wanted.model, wanted.version, settings, now)
    if label == live:
        raise VersionIsLive(f"{wanted.model}@{label} is already live with the same settings")
    policy_text, policy_digest = policy_in_force(connection, wanted.model)
    state = ReleaseState.LOADING if wanted.is_rollback else ReleaseState.DRAFT
    values = {
        "model": wanted.model,
        "version": wanted.version,
        "label": label,
        "version_digest": digest,
        "policy_digest": policy_digest,
        "policy_text": policy_text,
        "state": state,
        "step": 0,
        "previous": number_of(live) if live else None,
        "previous_label": live,
        "is_rollback": wanted.is_rollback,
        "author": wanted.actor,
        "note": wanted.note,
        "created_at": now,
        "entered_at": now,
        "evidence": {"break_glass": True} if wanted.break_glass else {},
        "revision": 0,
    }
    made = insert(releases).values(values).returning(releases.c.id)
    release = get(connection, connection.scalars(made).one())
    what = "rollback" if wanted.is_rollback else "release"
    entry = _entry(release, f"{what}.start", wanted.actor, wanted.note, {"settings": settings}, now)
    append(connection, _broken_glass(entry, release))
    return release


def move(
    connection: Connection,
    release: Release,
    event: Event,
    *,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any],
    now: datetime,
) -> Release:
    """Apply an event to a release, and write its route and its row in the ledger.

    Raises:
        EventRefused: The release's state does not accept the event.
        ReleaseMoved: Another process has moved it since it was read, or the policy has changed
            since it was gated. Retriable: read it again.
    """
    reached = after(release.position, event, release.plan)
    if reached is None:
        can = ", ".join(asked(release.position)) or "nothing"
        raise EventRefused(
            f"{release} is {release.position.state} and does not accept {event}; it accepts {can}"
        )
    ended = reached.state in ENDED
    values = {
        "state": reached.state,
        "step": reached.step,
        "resume_state": reached.resume,
        "entered_at": now if reached != release.position else release.entered_at,
        # The time it went live, which a later release does not change.
        "ended_at": release.ended_at or (now if ended else None),
        "revision": release.revision + 1,
    }
    if event in (Event.MAY_GO, Event.POLICY_CHANGED):
        text, digest = policy_in_force(connection, release.model)
        if event is Event.MAY_GO and digest != release.policy_digest:
            raise ReleaseMoved(f"the policy of {release.model} has changed; read it again")
        values |= {"policy_text": text, "policy_digest": digest}
    this = (releases.c.id == release.id) & (releases.c.revision == release.revision)
    if connection.execute(update(releases).where(this).values(values)).rowcount != 1:
        raise ReleaseMoved(f"{release} was moved by another process meanwhile; read it again")
    moved = get(connection, release.id)
    _follow(connection, moved)
    if reached.state is ReleaseState.LIVE:
        _supersede(connection, moved, now)
    entry = _entry(moved, f"release.{event}", actor, reason, evidence, now)
    append(
        connection,
        _broken_glass(
            replace(entry, from_state=release.position.state, to_state=reached.state), release
        ),
    )
    return moved


def _follow(connection: Connection, release: Release) -> None:
    """Write the route for the release's position if it differs from the one in force."""
    query = select(routes.c.epoch, routes.c.record).where(routes.c.model == release.model)
    held = connection.execute(query).one_or_none()
    epoch = held.epoch + 1 if held else 1
    record = routes_of(
        release.position, release.plan, release.sides, model=release.model, epoch=epoch
    )
    if record is None:
        return
    before = ControlRecord.model_validate(held.record) if held else None
    if before is None or before.model_copy(update={"epoch": epoch}) != record:
        put_route(connection, record)


def policy_in_force(connection: Connection, model: str) -> tuple[str, str]:
    """Return the policy's canonical JSON and digest; the default policy's if none was set."""
    kept = policy_store.in_force(connection, model)
    policy = Policy(model=model) if kept is None else kept.policy()
    return policy.canonical().decode(), policy.digest()


def get(connection: Connection, key: int) -> Release:
    """Return one release.

    Raises:
        UnknownRelease: No release has that number.
    """
    found = connection.execute(_query().where(releases.c.id == key)).one_or_none()
    if found is None:
        raise UnknownRelease(f"there is no release {key}; see `bertstream release history`")
    return _release(found)


def open_releases(connection: Connection) -> list[Release]:
    """Return the open releases, ordered by model."""
    query = _query().where(releases.c.ended_at.is_(None)).order_by(releases.c.model)
    return [_release(row) for row in connection.execute(query)]


def open_of(connection: Connection, model: str) -> Release | None:
    """Return the open release of a model; None if there is none."""
    query = _query().where(releases.c.model == model, releases.c.ended_at.is_(None))
    found = connection.execute(query).one_or_none()
    return _release(found) if found else None


def history(
    connection: Connection, model: str | None, *, limit: int = 50, before_id: int | None = None
) -> list[Release]:
    """Return releases of one model or of all, newest first, with ids below ``before_id``."""
    query = _query().order_by(desc(releases.c.id)).limit(limit)
    if before_id is not None:
        query = query.where(releases.c.id < before_id)
    if model is not None:
        query = query.where(releases.c.model == model)
    return [_release(row) for row in connection.execute(query)]


def last_good(connection: Connection, model: str) -> Release | None:
    """Return the release that made the live version live; None if none did."""
    query = _query().where(releases.c.model == model, releases.c.state == ReleaseState.LIVE)
    found = connection.execute(query.order_by(desc(releases.c.id)).limit(1)).one_or_none()
    return _release(found) if found else None


def rollback_target(connection: Connection, model: str) -> Release | None:
    """Return the release whose ``previous`` version a rollback returns to; None if there is none.

    A version restored by a rollback keeps the predecessor it had when it first went live.
    """
    live = last_good(connection, model)
    while live is not None and live.is_rollback:
        query = _query().where(
            releases.c.model == model,
            releases.c.label == live.label,
            releases.c.id < live.id,
            releases.c.state.in_([ReleaseState.LIVE, ReleaseState.SUPERSEDED]),
        )
        found = connection.execute(query.order_by(desc(releases.c.id)).limit(1)).one_or_none()
        live = _release(found) if found else None
    return live if live is not None and live.previous_label is not None else None


def last_live_at(connection: Connection, model: str) -> datetime | None:
    """Return when a version of the model last went live; rollbacks do not count."""
    went_live = releases.c.state.in_([ReleaseState.LIVE, ReleaseState.SUPERSEDED])
    query = select(func.max(releases.c.ended_at)).where(
        releases.c.model == model, went_live, releases.c.is_rollback.is_(False)
    )
    return connection.scalars(query).first()


def _supersede(connection: Connection, live: Release, now: datetime) -> None:
    """Mark the release that was live before as superseded."""
    before = (
        (releases.c.model == live.model)
        & (releases.c.state == ReleaseState.LIVE)
        & (releases.c.id != live.id)
    )
    for row in connection.execute(_query().where(before)).all():
        old = _release(row)
        values = {"state": ReleaseState.SUPERSEDED, "revision": old.revision + 1}
        connection.execute(update(releases).where(releases.c.id == old.id).values(values))
        reason = f"{live.model}@{live.label} is live"
        entry = _entry(old, f"release.{Event.SUPERSEDE}", OPERATOR, reason, {}, now)
        append(
            connection,
            replace(entry, from_state=ReleaseState.LIVE, to_state=ReleaseState.SUPERSEDED),
        )


def _digest_of(connection: Connection, model: str, version: int) -> str:
    query = select(versions.c.digest).where(
        versions.c.model == model, versions.c.number == version, versions.c.deleted_at.is_(None)
    )
    found = connection.scalars(query).first()
    if found is None:
        raise UnknownVersion(
            f"there is no {model}@{version}; `bertstream models list {model}` lists its versions"
        )
    return str(found)


def _query() -> Any:
    """Select releases, each with the digest of the version that was live before."""
    before = (versions.c.model == releases.c.model) & (versions.c.number == releases.c.previous)
    return select(releases, versions.c.digest.label("previous_digest")).outerjoin(versions, before)


def _release(row: Row[Any]) -> Release:
    names = [name for name in Release.__dataclass_fields__ if name != "position"]
    resume = ReleaseState(row.resume_state) if row.resume_state else None
    position = Position(ReleaseState(row.state), row.step, resume)
    return Release(position=position, **{name: getattr(row, name) for name in names})


def _entry(
    release: Release,
    action: str,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any],
    now: datetime,
) -> Entry:
    return Entry(
        at=now,
        actor=actor,
        action=action,
        model=release.model,
        version=release.version,
        release_id=release.id,
        to_state=release.position.state,
        reason=reason,
        evidence=evidence,
        version_digest=release.version_digest,
        policy_digest=release.policy_digest,
    )


def _broken_glass(entry: Entry, release: Release) -> Entry:
    return replace(entry, break_glass=True) if release.breaks_glass else entry
