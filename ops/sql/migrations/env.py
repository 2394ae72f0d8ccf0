"""Run by Alembic, in the transaction that ``ops.sql.database`` has opened for it."""

from __future__ import annotations

from alembic import context

from ops.sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
