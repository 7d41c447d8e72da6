-- The ledger's present form, made at once behind `lease.sql` where there is none yet.
--
-- One that is there is brought to it by the numbered files, one after another. A test
-- compares what both ways make.

-- The forms that it has been through.
CREATE TABLE migrator.upgrades (
  version integer PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE migrator.changes (
  id text PRIMARY KEY,
  tag text NOT NULL UNIQUE,
  table_schema text NOT NULL,
  table_name text NOT NULL,
  title text NOT NULL,
  pattern text NOT NULL,
  parameters jsonb NOT NULL,
  digest text NOT NULL,
  state text NOT NULL,
  state_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished boolean NOT NULL DEFAULT false,
  -- All that it touches: a list of tables with their columns, null for all.
  footprints jsonb NOT NULL,
  -- The state that a way back leads to, from the first step that it has taken back until
  -- that state is reached.
  going_back text
);

CREATE TABLE migrator.steps (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  change text NOT NULL REFERENCES migrator.changes,
  phase text NOT NULL,
  name text NOT NULL,
  step jsonb NOT NULL,
  -- pending, running, done, reversed, parked, cleared
  status text NOT NULL DEFAULT 'pending',
  status_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Progress of a step that goes in chunks: blocks, or rows where it goes by keys.
  -- next_block is the end of the last window that was given out.
  next_block bigint,
  end_block bigint,
  file_node bigint,
  rows bigint NOT NULL DEFAULT 0,
  mismatches bigint NOT NULL DEFAULT 0,
  next_key text[],
  end_key text[],
  busy_ms float8 NOT NULL DEFAULT 0,
  waited_ms float8 NOT NULL DEFAULT 0,
  -- Size of the last chunks, where the next run begins.
  chunk bigint
);
CREATE INDEX ON migrator.steps (change);

CREATE TABLE migrator.events (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  change text NOT NULL,
  kind text NOT NULL,
  actor text NOT NULL DEFAULT session_user,
  detail jsonb NOT NULL DEFAULT '{}'
);

CREATE FUNCTION migrator.refuse_edit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the event log of migrator is append-only';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON migrator.events
  FOR EACH STATEMENT EXECUTE FUNCTION migrator.refuse_edit();

-- Parts of a chunked step, each worked on under one lease.
CREATE TABLE migrator.windows (
  step bigint NOT NULL REFERENCES migrator.steps,
  start_block bigint NOT NULL,
  stop_block bigint NOT NULL,
  token bigint NOT NULL,
  rows bigint NOT NULL DEFAULT 0,
  mismatches bigint NOT NULL DEFAULT 0,
  start_key text[],
  stop_key text[],
  -- How far it is, in blocks or rows, and where its time went; why it waits now.
  done float8 NOT NULL DEFAULT 0,
  busy_ms float8 NOT NULL DEFAULT 0,
  waited_ms float8 NOT NULL DEFAULT 0,
  waiting text NOT NULL DEFAULT '',
  PRIMARY KEY (step, start_block)
);

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

-- Tables without a primary key: in a database whose publication has all tables, rows
-- could not be deleted from them otherwise.
ALTER TABLE migrator.samples REPLICA IDENTITY FULL;
ALTER TABLE migrator.mismatches REPLICA IDENTITY FULL;
ALTER TABLE migrator.failures REPLICA IDENTITY FULL;

-- Deployments of releases, in order: which changes a release knows, when its
-- deployment began, and when all of the application ran it.
CREATE TABLE migrator.deployments (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  release text NOT NULL,
  changes text[] NOT NULL,
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz,
  actor text NOT NULL DEFAULT session_user
);
