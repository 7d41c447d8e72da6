-- The part of the ledger that a command without changes needs.
--
-- It stays as it is where it is there: a form that changes it has to say here as well
-- how an older one is brought along.

CREATE SEQUENCE IF NOT EXISTS migrator.tokens;

-- The token is a key: a lease cannot change hands while a transaction that has
-- checked it (FOR KEY SHARE) is open, and a heartbeat does not wait for one.
CREATE TABLE IF NOT EXISTS migrator.leases (
  scope text PRIMARY KEY,
  token bigint NOT NULL UNIQUE,
  host text NOT NULL,
  pid integer NOT NULL,
  expires_at timestamptz NOT NULL
);
