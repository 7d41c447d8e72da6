-- Tables without a primary key: in a database whose publication has all tables, rows
-- could not be deleted from them otherwise.
ALTER TABLE migrator.samples REPLICA IDENTITY FULL;
ALTER TABLE migrator.mismatches REPLICA IDENTITY FULL;
ALTER TABLE migrator.failures REPLICA IDENTITY FULL;
