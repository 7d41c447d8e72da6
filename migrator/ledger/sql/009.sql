-- The state that a way back leads to, from the first step that it has taken back until
-- that state is reached.
ALTER TABLE migrator.changes ADD COLUMN going_back text;

-- A way back that was cut off before there was such a column.
UPDATE migrator.changes c SET going_back = e.detail ->> 'to' FROM migrator.events e
  WHERE e.kind = 'rollback' AND e.id = (SELECT max(id) FROM migrator.events
    WHERE change = c.id AND kind IN ('rollback', 'state'))
  AND EXISTS (SELECT FROM migrator.events s WHERE s.change = c.id AND s.kind = 'step'
    AND s.id > e.id AND s.detail ->> 'status' IN ('reversed', 'parked')
    AND s.detail ->> 'phase' <> 'verify');
