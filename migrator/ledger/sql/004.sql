-- Keys, for steps that go over a table in the order of a unique index: next_block,
-- end_block, start_block and stop_block then count rows instead of blocks.
ALTER TABLE migrator.steps ADD COLUMN next_key text[], ADD COLUMN end_key text[];
ALTER TABLE migrator.windows ADD COLUMN start_key text[], ADD COLUMN stop_key text[];
