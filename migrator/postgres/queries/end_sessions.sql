-- Ends sessions of a scope that bear a token below the given one. The name is
-- migrator:<tag of the scope>:<token>.
SELECT pid, pg_catalog.pg_terminate_backend(pid) AS told
  FROM pg_catalog.pg_stat_activity
 WHERE datname = current_database()
   AND starts_with(application_name, %(prefix)s)
   AND CASE WHEN split_part(application_name, ':', 3) ~ '^[0-9]+$'
            THEN split_part(application_name, ':', 3)::bigint < %(below)s END
   AND pid <> pg_catalog.pg_backend_pid()
