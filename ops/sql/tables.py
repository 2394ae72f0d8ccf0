"""The tables of ops, the same on SQLite and PostgreSQL.

The migrations create the actual tables; a test compares both. Times are timezone-aware, in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A time, stored from any time zone and read in UTC, with microseconds, on both databases."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Convert to UTC; SQLite has no time zones and gets a naive time.

        Raises:
            ValueError: The time has no time zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; pass a timezone-aware time")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """Return the time in UTC, whatever the time zone of the session is."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

NAME = sa.String(63)
SHA256 = sa.String(64)
LONG_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
# A Python None is SQL's NULL and never the JSON value null.
DOCUMENT = sa.JSON(none_as_null=True)


def _number() -> sa.Column[int]:
    """Return a key column that the database numbers, never reusing a number."""
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)


models = sa.Table(
    "models",
    metadata,
    sa.Column("name", NAME, primary_key=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("model", NAME, sa.ForeignKey("models.name"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("digest", SHA256, nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("card", DOCUMENT, nullable=False),
    sa.Column("files", DOCUMENT, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("deleted_at", UtcDateTime),
    sa.Column("source", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("model", "number"),
    sa.UniqueConstraint("model", "digest"),
    sa.Index(None, "model", "deleted_at", "number"),
)

policies = sa.Table(
    "policies",
    metadata,
    _number(),
    sa.Column("model", NAME, nullable=False),
    sa.Column("digest", SHA256, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index(None, "model", "id"),
    sqlite_autoincrement=True,
)

principals = sa.Table(
    "principals",
    metadata,
    _number(),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("disabled_at", UtcDateTime),
    sa.CheckConstraint("kind IN ('person', 'team', 'department')", name="kind"),
    sqlite_autoincrement=True,
)

memberships = sa.Table(
    "memberships",
    metadata,
    sa.Column("member_id", sa.Integer, sa.ForeignKey("principals.id"), nullable=False),
    sa.Column("group_id", sa.Integer, sa.ForeignKey("principals.id"), nullable=False),
    sa.PrimaryKeyConstraint("member_id", "group_id"),
    sa.Index(None, "group_id"),
)

grants = sa.Table(
    "grants",
    metadata,
    _number(),
    sa.Column("principal_id", sa.Integer, sa.ForeignKey("principals.id"), nullable=False),
    sa.Column("permission", sa.String(16), nullable=False),
    sa.Column("pattern", sa.Text, nullable=False),
    sa.Column("granted_by", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index(None, "principal_id"),
    sqlite_autoincrement=True,
)

tokens = sa.Table(
    "tokens",
    metadata,
    _number(),
    sa.Column("principal_id", sa.Integer, sa.ForeignKey("principals.id"), nullable=False),
    sa.Column("hash", SHA256, nullable=False, unique=True),
    sa.Column("prefix", sa.String(16), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("last_used_at", UtcDateTime),
    sa.Index(None, "principal_id"),
    sqlite_autoincrement=True,
)

releases = sa.Table(
    "releases",
    metadata,
    _number(),
    sa.Column("model", NAME, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("label", NAME, nullable=False),
    sa.Column("version_digest", SHA256, nullable=False),
    sa.Column("policy_digest", SHA256, nullable=False),
    sa.Column("policy_text", sa.Text, nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("step", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("resume_state", sa.String(32)),
    sa.Column("previous", sa.Integer),
    sa.Column("previous_label", NAME),
    sa.Column("is_rollback", sa.Boolean, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("entered_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("evidence", DOCUMENT, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.number"]),
    sa.Index(None, "model", "id"),
    sa.Index(None, "model", "version", "id"),
    sa.Index(
        "one_open_release",
        "model",
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
    sqlite_autoincrement=True,
)

approvals = sa.Table(
    "approvals",
    metadata,
    _number(),
    sa.Column("release_id", sa.Integer, sa.ForeignKey("releases.id"), nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("comment", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("version_digest", SHA256, nullable=False),
    sa.Column("policy_digest", SHA256, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("voided_at", UtcDateTime),
    sa.Column("voided_why", sa.Text),
    sa.CheckConstraint("decision IN ('approve', 'reject')", name="decision"),
    sa.Index(None, "release_id"),
    sqlite_autoincrement=True,
)

# A version with the settings it is served with. The label is its name on the wire: the number,
# and where the same version was released again with other settings, ``number.1`` and so on.
deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("model", NAME, nullable=False),
    sa.Column("label", NAME, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("settings", DOCUMENT, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.PrimaryKeyConstraint("model", "label"),
)

# The outbox of the control topic: an epoch above the published one is still to be sent.
routes = sa.Table(
    "routes",
    metadata,
    sa.Column("model", NAME, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("record", DOCUMENT, nullable=False),
    sa.Column("published_epoch", sa.BigInteger),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", NAME, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("until", UtcDateTime, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
)

ledger = sa.Table(
    "ledger",
    metadata,
    # Numbered by the ledger itself, without gaps; a gap means that a row was removed.
    sa.Column("id", LONG_KEY, primary_key=True, autoincrement=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("model", sa.Text),
    sa.Column("version", sa.Integer),
    sa.Column("release_id", sa.Integer),
    sa.Column("from_state", sa.String(32)),
    sa.Column("to_state", sa.String(32)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", DOCUMENT, nullable=False),
    sa.Column("version_digest", SHA256),
    sa.Column("policy_digest", SHA256),
    sa.Column("denied", sa.Boolean, nullable=False),
    sa.Column("break_glass", sa.Boolean, nullable=False),
    sa.Column("previous_hash", SHA256, nullable=False),
    sa.Column("hash", SHA256, nullable=False),
    sa.Index(None, "model", "id"),
    sa.Index(None, "release_id", "id"),
    sa.Index(None, "actor", "id"),
    sa.Index(None, "at", "id"),
)

# One row: where the chain ends. Without it the last rows could be removed unnoticed.
ledger_head = sa.Table(
    "ledger_head",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("last_id", sa.BigInteger, nullable=False),
    sa.Column("hash", SHA256, nullable=False),
    sa.CheckConstraint("one = 1", name="one"),
)

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("hour", UtcDateTime, nullable=False),
    sa.Column("model", NAME, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("pipeline", NAME, nullable=False),
    sa.Column("node_type", NAME, nullable=False),
    sa.Column("replica_s", sa.Float, nullable=False),
    sa.Column("cpu_s", sa.Float, nullable=False),
    sa.Column("gpu_s", sa.Float, nullable=False),
    sa.Column("predictions", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("hour", "model", "version", "pipeline", "node_type"),
    sa.Index(None, "model", "hour"),
)

# What the replicas of a version did, under the size and bounds that they had; other sizes and
# bounds would have given other numbers.
workloads = sa.Table(
    "workloads",
    metadata,
    sa.Column("hour", UtcDateTime, nullable=False),
    sa.Column("model", NAME, nullable=False),
    sa.Column("label", NAME, nullable=False),
    sa.Column("precision", sa.String(8), nullable=False),
    sa.Column("could_bf16", sa.Boolean, nullable=False),
    sa.Column("num_cpus", sa.Float, nullable=False),
    sa.Column("num_gpus", sa.Float, nullable=False),
    sa.Column("min_replicas", sa.Integer, nullable=False),
    sa.Column("max_replicas", sa.Integer, nullable=False),
    sa.Column("until", UtcDateTime, nullable=False),
    sa.Column("watched_s", sa.Float, nullable=False),
    sa.Column("replica_s", sa.Float, nullable=False),
    sa.Column("at_min_s", sa.Float, nullable=False),
    sa.Column("busy_at_min_s", sa.Float, nullable=False),
    sa.Column("lagging_s", sa.Float, nullable=False),
    sa.PrimaryKeyConstraint(
        "hour",
        "model",
        "label",
        "precision",
        "could_bf16",
        "num_cpus",
        "num_gpus",
        "min_replicas",
        "max_replicas",
    ),
    sa.Index(None, "model", "hour"),
)

alerts = sa.Table(
    "alerts",
    metadata,
    _number(),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("closed_at", UtcDateTime),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("since", UtcDateTime, nullable=False),
    sa.Column("hurts", sa.Text, nullable=False),
    sa.Column("todo", sa.Text, nullable=False),
    sa.Index(None, "opened_at"),
    sa.Index(
        "one_open_alert",
        "key",
        unique=True,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    ),
    sqlite_autoincrement=True,
)
