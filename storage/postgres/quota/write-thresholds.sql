-- Thresholds that a batch has crossed: $1 and $2 are outbox and audit of `Changes` of statements.ts.
with outbox as (
  insert into quota_outbox (tenant, kind, body)
  select o.tenant, o.kind, o.body from json_to_recordset($1::json) as o (tenant text, kind text, body jsonb)
)
insert into quota_audit (tenant, actor, action, resource, before, after)
select u.tenant, u.actor, u.action, u.resource, u.before, u.after
from json_to_recordset($2::json)
  as u (tenant text, actor text, action text, resource text, before jsonb, after jsonb)
