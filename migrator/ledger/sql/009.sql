-- The state that a way back leads to, from the first step that it has taken back until
-- that state is reached.
ALTER TABLE migrator.changes ADD COLUMN going_back text;
