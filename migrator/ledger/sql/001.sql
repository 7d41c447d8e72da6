-- The ledger, first form.
CREATE TABLE migrator.upgrades (
  version integer PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE migrator.changes (
  id text PRIMARY KEY,
  tag text NOT NULL UNIQUE,
  table_schema text NOT NULL,
  table_name text NOT NULL,
  columns text[],
  title text NOT NULL,
  pattern text NOT NULL,
  parameters jsonb NOT NULL,
  digest text NOT NULL,
  state text NOT NULL,
  state_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished boolean NOT NULL DEFAULT false
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
  -- Progress of a step that goes in chunks.
  next_block bigint,
  end_block bigint,
  file_node bigint,
  rows bigint NOT NULL DEFAULT 0,
  mismatches bigint NOT NULL DEFAULT 0
);
CREATE INDEX ON migrator.steps (change);

CREATE SEQUENCE migrator.tokens;

-- The token is a key: a lease cannot change hands while a transaction that has
-- checked it (FOR KEY SHARE) is open, and a heartbeat does not wait for one.
CREATE TABLE migrator.leases (
  scope text PRIMARY KEY,
  token bigint NOT NULL UNIQUE,
  host text NOT NULL,
  pid integer NOT NULL,
  expires_at timestamptz NOT NULL
);

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
