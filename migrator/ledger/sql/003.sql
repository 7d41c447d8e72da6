-- What people say to a change while it runs, from any machine.
CREATE TABLE migrator.control (
  change text PRIMARY KEY REFERENCES migrator.changes,
  -- run, pause, abort
  mode text NOT NULL DEFAULT 'run',
  reason text NOT NULL DEFAULT '',
  actor text NOT NULL DEFAULT session_user,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  max_rows_per_s float8,
  max_wal_bytes_per_s float8,
  target_ms float8,
  workers integer
);
