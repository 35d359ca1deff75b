-- What the readers' role may see, said again at every start, so that a server of your own gets it as soon as it has a role
-- of this name. Keys are not in the list: their hashes are nobody's to read.
do $$
begin
  if exists (select from pg_roles where rolname = 'tallylight_read') then
    grant select on tenants, schema_migrations, quota_limits, quota_balances, quota_entries, quota_spending, quota_reservations,
      quota_open_leases, quota_orphans, quota_unrecorded, quota_reconciliation, quota_differences, quota_refused_events,
      quota_drift, quota_outbox, quota_audit to tallylight_read;
  end if;
end $$;
