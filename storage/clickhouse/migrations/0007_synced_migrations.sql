-- As migrate.ts makes the table since: a database may have it from before.
ALTER TABLE {database}.schema_migrations MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;
