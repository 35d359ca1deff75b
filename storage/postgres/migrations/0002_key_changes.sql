-- Collectors keep the keys in memory. They ask for this number every few seconds, and read the keys again when it is
-- another one; the notification only makes that sooner, for a pooler in between may lose it. A row and not a sequence,
-- because its lock makes changes commit in the order of their numbers: a reader that saw 7 has seen all up to 7.
create table key_changes (
  only_row boolean primary key default true check (only_row),
  version bigint not null
);
insert into key_changes (version) values (1);

create function note_key_change() returns trigger language plpgsql as $$
begin
  update key_changes set version = version + 1;
  notify tallylight_keys;
  return null;
end $$;

-- Per statement, so that a change by hand in psql is seen like any other.
create trigger keys_changed after insert or update or delete or truncate on keys
  for each statement execute function note_key_change();
create trigger tenants_changed after insert or update or delete or truncate on tenants
  for each statement execute function note_key_change();
