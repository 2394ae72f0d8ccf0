"""Actions of the control API: start, approve, pause, abort and roll back releases.

The operator does everything else by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select

from ops.access import ledger
from ops.access.permissions import Permission
from ops.access.transactions import Access, Actor, Attempt
from ops.catalogue.deployments import deployment
from ops.catalogue.versions import VersionId, find
from ops.errors import Conflict, Invalid, NotAllowed, OutsideWindow, UnknownRelease
from ops.policy.policy import Policy
from ops.policy.windows import is_open
from ops.releases.approvals import Vote
from ops.releases.releases import (
    UNLOADED,
    Release,
    Start,
    get,
    history,
    move,
    open_of,
    policy_in_force,
    rollback_target,
    start,
)
from ops.releases.routes import all_routes
from ops.releases.state_machine import Event, ReleaseState
from ops.sql.tables import approvals, releases
from stream.schema import ControlRecord

MAX_MOVES = 100
# Records are counted for up to this long.
COUNTED = timedelta(hours=1)
# Returns how many records the versions of a model received since a moment, by their labels.
Records = Callable[[str, datetime], Mapping[str, int]]
# The permission that each command requires.
REQUIRED_PERMISSION = {
    Event.PAUSE: Permission.RELEASE,
    Event.RESUME: Permission.RELEASE,
    Event.PROMOTE: Permission.RELEASE,
    Event.ABORT: Permission.RELEASE,
    Event.ROLLBACK: Permission.ROLLBACK,
}


def no_records(_model: str, _since: datetime) -> Mapping[str, int]:
    """Return no counts, in a process that does not read telemetry."""
    return {}


@dataclass(frozen=True, slots=True)
class ReleaseHistory:
    """A release and its progress so far.

    Attributes:
        route: Current route of its model.
        moves: Rows of the ledger on the release, oldest first.
        since: Start of counting ``records``: the start of the step, at most an hour ago.
        records: Number of records that each version received since then, by its label.
    """

    release: Release
    route: ControlRecord | None
    moves: list[ledger.LedgerRow]
    since: datetime
    records: Mapping[str, int]


class ReleaseActions:
    """Releases as one person may use them."""

    def __init__(
        self,
        access: Access,
        serving: Mapping[str, Mapping[str, Any]],
        wake: Callable[[], None],
        records: Records,
    ) -> None:
        """Store the dependencies.

        Args:
            serving: How each configured model is served, by its name.
            wake: Makes the operator start its next round at once.
            records: Counts the records of versions.
        """
        self._access = access
        self._records = records
        self._serving = serving
        self._wake = wake

    def start(
        self, actor: Actor, version: VersionId, *, note: str = "", break_glass: bool = False
    ) -> Release:
        """Start the release of a version; requires ``release``, or ``break-glass`` to skip rules.

        Raises:
            Invalid: ``break_glass`` without a reason, or the model is not configured.
            UnknownVersion, ReleaseOpen, VersionIsLive, OutsideWindow, NotAllowed: Not retriable.
        """
        permission = Permission.BREAK_GLASS if break_glass else Permission.RELEASE
        if break_glass and not note.strip():
            raise Invalid("break-glass requires a reason: give one with --note")
        attempt = Attempt("release.start", permission, version.model, version.number)
        with self._access.permitted(actor, attempt) as connection:
            if version.model not in self._serving:
                raise Invalid(
                    f"model {version.model} is not served here; add it to `models` in the "
                    "configuration and run `bertstream up`"
                )
            now = self._access.clock()
            if not break_glass:
                _require_window(connection, version.model, now)
            wanted = Start(
                model=version.model,
                version=version.number,
                actor=actor.name,
                note=note,
                settings=self._serving[version.model],
                break_glass=break_glass,
            )
            release = start(connection, wanted, now)
        self._wake()
        return release

    def decide(self, actor: Actor, model: str, decision: Vote, *, comment: str = "") -> Release:
        """Approve or reject the open release of a model; requires ``approve``.

        An approval withdraws the actor's rejection, even if that has ended the release, and even
        if the actor registered the version; an approval by its author never counts.

        Raises:
            Conflict: The release has begun to load, and approvals no longer change anything.
            NotAllowed: The permission is missing, or the actor registered the version.
            UnknownRelease: No release is open. Not retriable.
        """
        attempt = Attempt(f"release.{decision}", Permission.APPROVE, model)
        with self._access.change(actor, attempt) as change:
            is_approval = decision is Vote.APPROVE
            ended = _rejected_by(change.connection, actor, model) if is_approval else None
            release = ended or _open(change.connection, model)
            if ended is None and _has_loaded(release):
                raise Conflict(
                    f"{release} is already {release.position.state}; roll it back with "
                    f"`bertstream rollback {model}`"
                )
            author = find(change.connection, VersionId(model, release.version)).author
            takes_back = is_approval and _has_rejected(change.connection, actor, release)
            if is_approval and author == actor.name and not takes_back:
                raise NotAllowed(
                    f"{actor.name} registered {model}@{release.version} and cannot approve it; "
                    "`bertstream policy explain` shows who can"
                )
            _, policy_digest = policy_in_force(change.connection, model)
            teams = sorted(actor.groups)
            values = {
                "release_id": release.id,
                "person": actor.name,
                "team": ", ".join(teams),
                "decision": decision,
                "comment": comment,
                "version_digest": release.version_digest,
                "policy_digest": policy_digest,
                "at": change.now,
            }
            change.connection.execute(insert(approvals).values(values))
            change.describe(
                version=release.version,
                release_id=release.id,
                reason=comment,
                evidence={"teams": teams} | ({"takes_back": "rejection"} if takes_back else {}),
                version_digest=release.version_digest,
                policy_digest=policy_digest,
            )
        self._wake()
        return release

    def command(self, actor: Actor, model: str, event: Event, *, reason: str = "") -> Release:
        """Pause, resume, promote, abort or roll back the open release of a model.

        Raises:
            EventRefused: ``event`` is not possible in the state of the release.
            ReleaseMoved: The operator changed its state at the same moment. Retriable.
            UnknownRelease, NotAllowed: Not retriable.
        """
        attempt = Attempt(f"release.{event}", REQUIRED_PERMISSION[event], model)
        with self._access.permitted(actor, attempt) as connection:
            release = move(
                connection,
                _open(connection, model),
                event,
                actor=actor.name,
                reason=reason or f"requested by {actor.name}",
                evidence={},
                now=self._access.clock(),
            )
        self._wake()
        return release

    def rollback(self, actor: Actor, model: str, *, reason: str = "") -> Release:
        """Return to the version that was live before; requires ``rollback``.

        A release that has loaded is rolled back; otherwise the version before the live one is
        loaded and answers all records. Windows, intervals and approvals do not apply.

        Raises:
            UnknownRelease: There is no earlier version.
            NotAllowed: Not retriable.
        """
        attempt = Attempt("release.rollback", Permission.ROLLBACK, model)
        with self._access.reading(actor, attempt) as connection:
            going_on = open_of(connection, model)
        if going_on is not None and _has_loaded(going_on):
            return self.command(actor, model, Event.ROLLBACK, reason=reason)
        with self._access.permitted(actor, attempt) as connection:
            now = self._access.clock()
            if going_on is not None:
                move(
                    connection,
                    going_on,
                    Event.ABORT,
                    actor=actor.name,
                    reason=f"{actor.name} rolls back the model",
                    evidence={},
                    now=now,
                )
            live = rollback_target(connection, model)
            if live is None or live.previous is None or live.previous_label is None:
                raise UnknownRelease(f"{model} has no earlier version to go back to")
            wanted = Start(
                model=model,
                version=live.previous,
                actor=actor.name,
                note=reason,
                settings=deployment(connection, model, live.previous_label),
                is_rollback=True,
            )
            release = start(connection, wanted, now)
        self._wake()
        return release

    def show(self, actor: Actor, release: int) -> ReleaseHistory:
        """Return one release and its progress; requires ``read``.

        Raises:
            UnknownRelease, NotAllowed: Not retriable.
        """
        with self._access.reading(actor, Attempt("release.show", None)) as connection:
            model = get(connection, release).model
        with self._access.reading(
            actor, Attempt("release.show", Permission.READ, model)
        ) as connection:
            return self._history(connection, get(connection, release))

    def newest(self, actor: Actor, model: str) -> ReleaseHistory:
        """Return the open release of a model, or its last one; requires ``read``.

        Raises:
            UnknownRelease, NotAllowed: Not retriable.
        """
        with self._access.reading(
            actor, Attempt("release.show", Permission.READ, model)
        ) as connection:
            found = history(connection, model, limit=1)
            if not found:
                raise UnknownRelease(f"{model} has had no release yet")
            return self._history(connection, found[0])

    def history(
        self, actor: Actor, model: str | None, *, limit: int, before_id: int | None = None
    ) -> list[Release]:
        """Return releases, newest first; requires ``read`` on the model, or on all models."""
        on = Attempt("release.history", Permission.READ, model or "*")
        with self._access.reading(actor, on) as connection:
            return history(connection, model, limit=limit, before_id=before_id)

    def _history(self, connection: Connection, release: Release) -> ReleaseHistory:
        query = ledger.LedgerQuery(release_id=release.id, limit=MAX_MOVES)
        moves = ledger.entries(connection, query)[::-1]
        since = max(release.entered_at, self._access.clock() - COUNTED)
        route = all_routes(connection).get(release.model)
        return ReleaseHistory(release, route, moves, since, self._records(release.model, since))


def _has_loaded(release: Release) -> bool:
    state, _, resume = release.position
    return (resume or state) not in UNLOADED


def _open(connection: Connection, model: str) -> Release:
    found = open_of(connection, model)
    if found is None:
        raise UnknownRelease(
            f"no release of {model} is open; `bertstream release history {model}` shows those that "
            "have ended"
        )
    return found


def _rejected_by(connection: Connection, actor: Actor, model: str) -> Release | None:
    """Return a model's last release if it was aborted and the actor's last vote rejected it."""
    last = next(iter(history(connection, model, limit=1)), None)
    if last is None or last.position.state is not ReleaseState.ABORTED:
        return None
    return last if _has_rejected(connection, actor, last) else None


def _has_rejected(connection: Connection, actor: Actor, release: Release) -> bool:
    """Return whether the actor's last vote on the version is a rejection."""
    said = (
        select(approvals.c.decision)
        .join(releases, releases.c.id == approvals.c.release_id)
        .where(releases.c.model == release.model, releases.c.version == release.version)
        .where(approvals.c.person == actor.name)
        .order_by(approvals.c.id.desc())
    )
    return connection.scalars(said).first() == Vote.REJECT


def _require_window(connection: Connection, model: str, now: Any) -> None:
    """Raise outside the windows if the policy refuses then; if it waits, the operator waits."""
    text, _ = policy_in_force(connection, model)
    policy = Policy.model_validate_json(text)
    window = is_open(policy.windows, now)
    if policy.outside_windows == "refuse" and not window.open:
        raise OutsideWindow(
            f"{model} may not be released now: {window.reason}. `bertstream policy explain` shows "
            "when; --break-glass skips windows and requires `break-glass`"
        )
