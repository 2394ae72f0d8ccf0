"""Creates the first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TIME = sa.DateTime(timezone=True)
OPEN_ALERT = sa.text("closed_at IS NULL")
OPEN_RELEASE = sa.text("ended_at IS NULL")

# Rows of the ledger are only added: the database itself refuses every other change.
SQLITE_GUARDS = (
    """
    CREATE TRIGGER ledger_stays BEFORE UPDATE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
    """,
    """
    CREATE TRIGGER ledger_keeps BEFORE DELETE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
    """,
    # INSERT OR REPLACE deletes without running the trigger above.
    """
    CREATE TRIGGER ledger_replaces_nothing BEFORE INSERT ON ledger
    WHEN EXISTS (SELECT 1 FROM ledger WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
    """,
)
POSTGRESQL_GUARDS = (
    """
    CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$
    """,
    """
    CREATE TRIGGER ledger_stays BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change()
    """,
    """
    CREATE TRIGGER ledger_keeps BEFORE TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()
    """,
)


def upgrade() -> None:
    """Create the tables, the triggers that guard the ledger, and its empty hash chain."""
    _registry()
    _people()
    _releases()
    _operation()
    _ledger()
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in SQLITE_GUARDS if sqlite else POSTGRESQL_GUARDS:
        op.execute(statement)
    op.execute(f"INSERT INTO ledger_head (one, last_id, hash) VALUES (1, 0, '{'0' * 64}')")


def _registry() -> None:
    """Create the tables of models, their versions and their policies."""
    op.create_table(
        "models",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_models"),
    )
    op.create_table(
        "versions",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("deleted_at", TIME),
        sa.Column("source", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name="fk_versions_model_models"),
        sa.PrimaryKeyConstraint("model", "number", name="pk_versions"),
        sa.UniqueConstraint("model", "digest", name="uq_versions_model_digest"),
    )
    op.create_table(
        "policies",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_policies"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_versions_model_deleted_at_number", "versions", ["model", "deleted_at", "number"]
    )
    op.create_index("ix_policies_model_id", "policies", ["model", "id"])


def _people() -> None:
    """Create the tables of principals, memberships, grants and tokens."""
    op.create_table(
        "principals",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("disabled_at", TIME),
        sa.CheckConstraint("kind IN ('person', 'team', 'department')", name="ck_principals_kind"),
        sa.PrimaryKeyConstraint("id", name="pk_principals"),
        sa.UniqueConstraint("name", name="uq_principals_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "memberships",
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["principals.id"], name="fk_memberships_group_id_principals"
        ),
        sa.ForeignKeyConstraint(
            ["member_id"], ["principals.id"], name="fk_memberships_member_id_principals"
        ),
        sa.PrimaryKeyConstraint("member_id", "group_id", name="pk_memberships"),
    )
    op.create_index("ix_memberships_group_id", "memberships", ["group_id"])
    op.create_table(
        "grants",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        sa.Column("permission", sa.String(length=16), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("granted_by", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_grants_principal_id_principals"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_grants_principal_id", "grants", ["principal_id"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("principal_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("revoked_at", TIME),
        sa.Column("last_used_at", TIME),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principals.id"], name="fk_tokens_principal_id_principals"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tokens_principal_id", "tokens", ["principal_id"])


def _releases() -> None:
    """Create the tables of releases and their approvals."""
    op.create_table(
        "releases",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=63), nullable=False),
        sa.Column("version_digest", sa.String(length=64), nullable=False),
        sa.Column("policy_digest", sa.String(length=64), nullable=False),
        sa.Column("policy_text", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("step", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("resume_state", sa.String(length=32)),
        sa.Column("previous", sa.Integer()),
        sa.Column("previous_label", sa.String(length=63)),
        sa.Column("is_rollback", sa.Boolean(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("entered_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"],
            ["versions.model", "versions.number"],
            name="fk_releases_model_version_versions",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_releases"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_releases_model_id", "releases", ["model", "id"])
    op.create_index("ix_releases_model_version_id", "releases", ["model", "version", "id"])
    op.create_index(
        "one_open_release",
        "releases",
        ["model"],
        unique=True,
        sqlite_where=OPEN_RELEASE,
        postgresql_where=OPEN_RELEASE,
    )
    op.create_table(
        "approvals",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("comment", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("version_digest", sa.String(length=64), nullable=False),
        sa.Column("policy_digest", sa.String(length=64), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("voided_at", TIME),
        sa.Column("voided_why", sa.Text()),
        sa.CheckConstraint("decision IN ('approve', 'reject')", name="ck_approvals_decision"),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name="fk_approvals_release_id_releases"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_approvals"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_approvals_release_id", "approvals", ["release_id"])


def _operation() -> None:
    """Create the tables of the operator: deployments, routes, leases, usage, workloads, alerts."""
    op.create_table(
        "deployments",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("label", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("model", "label", name="pk_deployments"),
    )
    op.create_table(
        "routes",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("published_epoch", sa.BigInteger()),
        sa.PrimaryKeyConstraint("model", name="pk_routes"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "usage",
        sa.Column("hour", TIME, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("node_type", sa.String(length=63), nullable=False),
        sa.Column("replica_s", sa.Float(), nullable=False),
        sa.Column("cpu_s", sa.Float(), nullable=False),
        sa.Column("gpu_s", sa.Float(), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "hour", "model", "version", "pipeline", "node_type", name="pk_usage"
        ),
    )
    op.create_index("ix_usage_model_hour", "usage", ["model", "hour"])
    op.create_table(
        "workloads",
        sa.Column("hour", TIME, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("label", sa.String(length=63), nullable=False),
        sa.Column("precision", sa.String(length=8), nullable=False),
        sa.Column("could_bf16", sa.Boolean(), nullable=False),
        sa.Column("num_cpus", sa.Float(), nullable=False),
        sa.Column("num_gpus", sa.Float(), nullable=False),
        sa.Column("min_replicas", sa.Integer(), nullable=False),
        sa.Column("max_replicas", sa.Integer(), nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("watched_s", sa.Float(), nullable=False),
        sa.Column("replica_s", sa.Float(), nullable=False),
        sa.Column("at_min_s", sa.Float(), nullable=False),
        sa.Column("busy_at_min_s", sa.Float(), nullable=False),
        sa.Column("lagging_s", sa.Float(), nullable=False),
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
            name="pk_workloads",
        ),
    )
    op.create_index("ix_workloads_model_hour", "workloads", ["model", "hour"])
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("closed_at", TIME),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("hurts", sa.Text(), nullable=False),
        sa.Column("todo", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_alerts_opened_at", "alerts", ["opened_at"])
    op.create_index(
        "one_open_alert",
        "alerts",
        ["key"],
        unique=True,
        sqlite_where=OPEN_ALERT,
        postgresql_where=OPEN_ALERT,
    )


def _ledger() -> None:
    """Create the ledger and the table with the head of its hash chain."""
    op.create_table(
        "ledger",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("model", sa.Text()),
        sa.Column("version", sa.Integer()),
        sa.Column("release_id", sa.Integer()),
        sa.Column("from_state", sa.String(length=32)),
        sa.Column("to_state", sa.String(length=32)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("version_digest", sa.String(length=64)),
        sa.Column("policy_digest", sa.String(length=64)),
        sa.Column("denied", sa.Boolean(), nullable=False),
        sa.Column("break_glass", sa.Boolean(), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
    )
    op.create_index("ix_ledger_actor_id", "ledger", ["actor", "id"])
    op.create_index("ix_ledger_at_id", "ledger", ["at", "id"])
    op.create_index("ix_ledger_model_id", "ledger", ["model", "id"])
    op.create_index("ix_ledger_release_id_id", "ledger", ["release_id", "id"])
    op.create_table(
        "ledger_head",
        sa.Column("one", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint("one = 1", name="ck_ledger_head_one"),
        sa.PrimaryKeyConstraint("one", name="pk_ledger_head"),
    )
