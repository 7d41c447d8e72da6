-- Ends sessions of a change that bear another token than the present one.
SELECT pid, pg_catalog.pg_terminate_backend(pid) AS told
  FROM pg_catalog.pg_stat_activity
 WHERE datname = current_database()
   AND starts_with(application_name, %(prefix)s)
   AND application_name <> %(keep)s
   AND pid <> pg_catalog.pg_backend_pid()
