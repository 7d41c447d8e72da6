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
