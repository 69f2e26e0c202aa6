"""How a database comes to its schema: one file a step, never edited once it was released.

A step runs inside the transaction that brings the whole database up, on SQLite and PostgreSQL alike; on
SQLite, columns are changed by ``op.batch_alter_table``. A new step sets ``tables.SCHEMA`` to its revision.
"""
