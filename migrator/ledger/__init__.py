"""The `migrator` schema in the database: what was done, and what may be."""
