-- The value that ALTER SYSTEM gave to a parameter.
SELECT f.setting AS text
  FROM pg_catalog.pg_file_settings f
 WHERE lower(f.name) = lower(%(name)s)
   AND f.sourcefile = current_setting('data_directory') || '/postgresql.auto.conf'
 ORDER BY f.seqno DESC LIMIT 1
