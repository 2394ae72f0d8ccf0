"""The tables of ops, the same on SQLite and PostgreSQL.

What is in force is made by the migrations; a test compares both. Times are aware and in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A time that goes in aware and comes out in UTC, with microseconds, on both databases."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; SQLite has no zones and gets the bare numbers.

        Raises:
            ValueError: The time has no zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; times here are aware")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """In UTC, whatever the zone of the session is."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

NAME = String(63)
SHA256 = String(64)
# A Python None is SQL's NULL and never the JSON value null.
DOCUMENT = JSON(none_as_null=True)


def _number() -> Column[int]:
    """A key that the database counts and gives to no second row."""
    return Column("id", Integer, primary_key=True, autoincrement=True)


models = Table(
    "models",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("model", NAME, ForeignKey("models.name"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", SHA256, nullable=False),
    Column("uri", Text, nullable=False),
    Column("card", DOCUMENT, nullable=False),
    Column("files", DOCUMENT, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("author", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime),
    Column("source", Text, nullable=False),
    PrimaryKeyConstraint("model", "number"),
    UniqueConstraint("model", "digest"),
    Index(None, "model", "deleted_at", "number"),
)

policies = Table(
    "policies",
    metadata,
    _number(),
    Column("model", NAME, nullable=False),
    Column("digest", SHA256, nullable=False),
    Column("text", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "model", "id"),
    sqlite_autoincrement=True,
)

principals = Table(
    "principals",
    metadata,
    _number(),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    CheckConstraint("kind IN ('person', 'team', 'department')", name="kind"),
    sqlite_autoincrement=True,
)

memberships = Table(
    "memberships",
    metadata,
    Column("member_id", Integer, ForeignKey("principals.id"), nullable=False),
    Column("group_id", Integer, ForeignKey("principals.id"), nullable=False),
    PrimaryKeyConstraint("member_id", "group_id"),
    Index(None, "group_id"),
)

grants = Table(
    "grants",
    metadata,
    _number(),
    Column("principal_id", Integer, ForeignKey("principals.id"), nullable=False),
    Column("permission", String(16), nullable=False),
    Column("pattern", Text, nullable=False),
    Column("granted_by", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "principal_id"),
    sqlite_autoincrement=True,
)

tokens = Table(
    "tokens",
    metadata,
    _number(),
    Column("principal_id", Integer, ForeignKey("principals.id"), nullable=False),
    Column("hash", SHA256, nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Index(None, "principal_id"),
    sqlite_autoincrement=True,
)

releases = Table(
    "releases",
    metadata,
    _number(),
    Column("model", NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("label", NAME, nullable=False),
    Column("version_digest", SHA256, nullable=False),
    Column("policy_digest", SHA256, nullable=False),
    Column("policy_text", Text, nullable=False),
    Column("state", String(32), nullable=False),
    Column("step", Integer, nullable=False, server_default=text("0")),
    Column("resume_state", String(32)),
    Column("previous", Integer),
    Column("previous_label", NAME),
    Column("is_rollback", Boolean, nullable=False),
    Column("author", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("created_at", UtcDateTime, nullable=False),
    Column("entered_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("evidence", DOCUMENT, nullable=False),
    Column("revision", Integer, nullable=False, server_default=text("0")),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.number"]),
    Index(None, "model", "id"),
    Index(None, "model", "version", "id"),
    Index(
        "one_open_release",
        "model",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    sqlite_autoincrement=True,
)

approvals = Table(
    "approvals",
    metadata,
    _number(),
    Column("release_id", Integer, ForeignKey("releases.id"), nullable=False),
    Column("person", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("comment", Text, nullable=False, server_default=text("''")),
    Column("version_digest", SHA256, nullable=False),
    Column("policy_digest", SHA256, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("voided_at", UtcDateTime),
    Column("voided_why", Text),
    CheckConstraint("decision IN ('approve', 'reject')", name="decision"),
    Index(None, "release_id"),
    sqlite_autoincrement=True,
)

# A version with the settings it is served with. The label is its name on the wire: the number,
# and where the same version was released again with other settings, ``number.1`` and so on.
deployments = Table(
    "deployments",
    metadata,
    Column("model", NAME, nullable=False),
    Column("label", NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("settings", DOCUMENT, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("model", "label"),
)

# The outbox of the control topic: an epoch above the published one is still to be sent.
routes = Table(
    "routes",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("record", DOCUMENT, nullable=False),
    Column("published_epoch", BigInteger),
)

leases = Table(
    "leases",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("fence", BigInteger, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    # Counted by the ledger itself, without gaps; a gap is a row that was taken out.
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    ),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("model", Text),
    Column("version", Integer),
    Column("release_id", Integer),
    Column("from_state", String(32)),
    Column("to_state", String(32)),
    Column("reason", Text, nullable=False),
    Column("evidence", DOCUMENT, nullable=False),
    Column("version_digest", SHA256),
    Column("policy_digest", SHA256),
    Column("denied", Boolean, nullable=False),
    Column("break_glass", Boolean, nullable=False),
    Column("previous_hash", SHA256, nullable=False),
    Column("hash", SHA256, nullable=False),
    Index(None, "model", "id"),
    Index(None, "release_id", "id"),
    Index(None, "actor", "id"),
    Index(None, "at", "id"),
)

# One row: where the chain ends. Without it the last rows could go and nothing would show.
ledger_head = Table(
    "ledger_head",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("last_id", BigInteger, nullable=False),
    Column("hash", SHA256, nullable=False),
    CheckConstraint("one = 1", name="one"),
)

usage = Table(
    "usage",
    metadata,
    Column("hour", UtcDateTime, nullable=False),
    Column("model", NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("pipeline", NAME, nullable=False),
    Column("node_type", NAME, nullable=False),
    Column("replica_s", Float, nullable=False),
    Column("cpu_s", Float, nullable=False),
    Column("gpu_s", Float, nullable=False),
    Column("predictions", BigInteger, nullable=False),
    PrimaryKeyConstraint("hour", "model", "version", "pipeline", "node_type"),
    Index(None, "model", "hour"),
)

# What the replicas of a version did, under the size and bounds that they had: with others it
# would have been something else.
workloads = Table(
    "workloads",
    metadata,
    Column("hour", UtcDateTime, nullable=False),
    Column("model", NAME, nullable=False),
    Column("label", NAME, nullable=False),
    Column("precision", String(8), nullable=False),
    Column("could_bf16", Boolean, nullable=False),
    Column("num_cpus", Float, nullable=False),
    Column("num_gpus", Float, nullable=False),
    Column("min_replicas", Integer, nullable=False),
    Column("max_replicas", Integer, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("watched_s", Float, nullable=False),
    Column("replica_s", Float, nullable=False),
    Column("at_min_s", Float, nullable=False),
    Column("busy_at_min_s", Float, nullable=False),
    Column("lagging_s", Float, nullable=False),
    PrimaryKeyConstraint(
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
    Index(None, "model", "hour"),
)

alerts = Table(
    "alerts",
    metadata,
    _number(),
    Column("key", Text, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("severity", String(16), nullable=False),
    Column("what", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("hurts", Text, nullable=False),
    Column("todo", Text, nullable=False),
    Index(None, "opened_at"),
    Index(
        "one_open_alert",
        "key",
        unique=True,
        sqlite_where=text("closed_at IS NULL"),
        postgresql_where=text("closed_at IS NULL"),
    ),
    sqlite_autoincrement=True,
)
