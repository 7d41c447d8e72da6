-- All that a change touches: a list of tables with their columns, null for all.
ALTER TABLE migrator.changes ADD COLUMN footprints jsonb;
UPDATE migrator.changes SET footprints = jsonb_build_array(jsonb_build_object(
  'table', jsonb_build_object('schema', table_schema, 'name', table_name),
  'columns', to_jsonb(columns)));
ALTER TABLE migrator.changes ALTER COLUMN footprints SET NOT NULL;
ALTER TABLE migrator.changes DROP COLUMN columns;
