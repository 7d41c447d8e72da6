-- Windows: parts of a chunked step, each worked on under one lease. A step's
-- next_block is the end of the last window that was given out.
CREATE TABLE migrator.windows (
  step bigint NOT NULL REFERENCES migrator.steps,
  start_block bigint NOT NULL,
  stop_block bigint NOT NULL,
  token bigint NOT NULL,
  rows bigint NOT NULL DEFAULT 0,
  mismatches bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (step, start_block)
);
