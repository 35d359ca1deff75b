// Alerts on the ledger of quotas.
import { slowerPaceSql, usedSql } from '../quota-queries.ts'
import { askLedger, type Rule } from './rule.ts'

const hourSeconds = 3600

export const quotaRules: readonly Rule[] = [
  {
    uid: 'cost-burn-fast',
    title: 'A cost limit burns fast',
    severity: 'page',
    query: askLedger(slowerPaceSql('1 h', '6 h', 6)),
    overSeconds: hourSeconds,
    fires: { when: 'above', bound: 6 },
    forSeconds: 120,
    summary:
      '{{ $labels.tenant }} spends its limit {{ $labels.limit }} {{ printf "%.0f" $values.B.Value }} times too fast, over 1 and over 6 hours',
    board: 'tenants',
    panelId: 11,
  },
  {
    uid: 'cost-burn-slow',
    title: 'A cost limit burns slowly',
    severity: 'ticket',
    query: askLedger(slowerPaceSql('6 h', '3 d', 1)),
    overSeconds: hourSeconds,
    fires: { when: 'above', bound: 1 },
    forSeconds: 900,
    summary: '{{ $labels.tenant }} will use up its limit {{ $labels.limit }} before its window ends',
    board: 'tenants',
    panelId: 11,
  },
  {
    uid: 'quota-near',
    title: 'A limit is nearly used up',
    severity: 'ticket',
    query: askLedger(usedSql(0.9, '0.999')),
    overSeconds: hourSeconds,
    fires: { when: 'above', bound: 0.9 },
    forSeconds: 0,
    summary: '{{ $labels.tenant }} has used {{ humanizePercentage $values.B.Value }} of its limit {{ $labels.limit }}',
    board: 'tenants',
    panelId: 10,
  },
  {
    uid: 'quota-exhausted',
    title: 'A limit is used up',
    severity: 'page',
    query: askLedger(usedSql(0.999, `'infinity'`)),
    overSeconds: hourSeconds,
    fires: { when: 'above', bound: 0.999 },
    forSeconds: 0,
    summary:
      '{{ $labels.tenant }} has used {{ humanizePercentage $values.B.Value }} of its limit {{ $labels.limit }}; calls are denied where it blocks',
    board: 'tenants',
    panelId: 10,
  },
]
