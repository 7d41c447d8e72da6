-- How far a window is, in blocks or rows, and where its time went; why it waits now.
ALTER TABLE migrator.windows
  ADD COLUMN done float8 NOT NULL DEFAULT 0,
  ADD COLUMN busy_ms float8 NOT NULL DEFAULT 0,
  ADD COLUMN waited_ms float8 NOT NULL DEFAULT 0,
  ADD COLUMN waiting text NOT NULL DEFAULT '';
ALTER TABLE migrator.steps
  ADD COLUMN busy_ms float8 NOT NULL DEFAULT 0,
  ADD COLUMN waited_ms float8 NOT NULL DEFAULT 0,
  -- Size of the last chunks, where the next run begins.
  ADD COLUMN chunk bigint;

-- A step's progress every few seconds: its speed, and when it will be done.
CREATE TABLE migrator.samples (
  step bigint NOT NULL REFERENCES migrator.steps,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  done float8 NOT NULL,
  rows bigint NOT NULL
);
CREATE INDEX ON migrator.samples (step, at);

-- Rows that verification found out of step, by their keys.
CREATE TABLE migrator.mismatches (
  step bigint NOT NULL REFERENCES migrator.steps,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  key json NOT NULL,
  repaired boolean NOT NULL
);
CREATE INDEX ON migrator.mismatches (step);

-- Chunks that failed and were tried again; the error budget counts them.
CREATE TABLE migrator.failures (
  change text NOT NULL REFERENCES migrator.changes,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  reason text NOT NULL
);
CREATE INDEX ON migrator.failures (change, at);
