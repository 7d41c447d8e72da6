"""Change a live PostgreSQL schema while two releases of an application use it."""

__version__ = "0.1.0"
