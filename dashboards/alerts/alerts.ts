// What Grafana is given of alerting: rules with their evaluation, whom they reach, by which way, and in which words. In the
// shape of its provisioning files, which is not that of its API: `for` and `interval` are texts, `folder` is a title, and a
// dollar in whatever Grafana expands (labels, titles, settings, templates; not models and annotations) would be doubled.
import { uids } from '../links.ts'
import { callRules } from './calls.ts'
import { collectorRules } from './collector.ts'
import { quotaRules } from './quota.ts'
import type { Rule } from './rule.ts'

export const rules: readonly Rule[] = [...callRules, ...collectorRules, ...quotaRules]

export const folder = 'Tallylight'
export const receivers = { page: 'tallylight pages', ticket: 'tallylight tickets' } as const
const templateName = 'tallylight.message'

const groups = { calls: callRules, collector: collectorRules, quota: quotaRules } as const
const evaluationInterval = '1m'

export type Whom = { readonly pageUrl: string; readonly ticketEmail: string }

/** `runbooksUrl` is where the pages of runbooks/ can be read. */
export function ruleGroups(runbooksUrl: string): object {
  return {
    apiVersion: 1,
    groups: Object.entries(groups).map(([name, members]) => ({
      ...{ orgId: 1, name: `tallylight ${name}`, folder, interval: evaluationInterval },
      rules: members.map((rule) => ruleOf(rule, runbooksUrl)),
    })),
  }
}

function ruleOf(rule: Rule, runbooksUrl: string): object {
  const { _implementsDataqueryVariant, ...model } = rule.query
  const expression = { type: '__expr__', uid: '__expr__' }
  const relativeTimeRange = { from: rule.overSeconds, to: 0 }
  return {
    // An organisation's rules share their names with those of others.
    uid: `tallylight-${rule.uid}`,
    title: rule.title,
    condition: 'C',
    data: [
      { refId: 'A', relativeTimeRange, datasourceUid: rule.query.datasource.uid, model },
      {
        ...{ refId: 'B', relativeTimeRange, datasourceUid: '__expr__' },
        model: { refId: 'B', datasource: expression, type: 'reduce', expression: 'A', reducer: 'last' },
      },
      {
        ...{ refId: 'C', relativeTimeRange, datasourceUid: '__expr__' },
        model: {
          ...{ refId: 'C', datasource: expression, type: 'threshold', expression: 'B' },
          conditions: [{ evaluator: { type: rule.fires.when === 'above' ? 'gt' : 'lt', params: [rule.fires.bound] } }],
        },
      },
    ],
    for: `${rule.forSeconds}s`,
    noDataState: rule.isSilenceAlarming === true ? 'Alerting' : 'OK',
    // With the embedded engines a dead collector is a source that does not answer.
    execErrState: rule.isSilenceAlarming === true ? 'Alerting' : 'Error',
    dashboardUid: uids[rule.board],
    panelId: rule.panelId,
    annotations: { summary: rule.summary, runbook_url: `${runbooksUrl}/${rule.uid}` },
    labels: { severity: rule.severity, source: 'tallylight' },
  }
}

export function contactPoints({ pageUrl, ticketEmail }: Whom): object {
  const message = `{{ template "${templateName}" . }}`
  return {
    apiVersion: 1,
    contactPoints: [
      {
        ...{ orgId: 1, name: receivers.page },
        receivers: [{ uid: 'tallylight-pages', type: 'webhook', settings: { url: pageUrl, message } }],
      },
      {
        ...{ orgId: 1, name: receivers.ticket },
        receivers: [
          {
            uid: 'tallylight-tickets',
            type: 'email',
            settings: { addresses: ticketEmail, singleEmail: true, message },
          },
        ],
      },
    ],
  }
}

/** Replaces the whole tree of an organisation, so it is for a Grafana of its own. */
export function policies(): object {
  return {
    apiVersion: 1,
    policies: [
      {
        ...{ orgId: 1, receiver: receivers.ticket, group_by: ['grafana_folder', 'alertname'] },
        ...{ group_wait: '30s', group_interval: '5m', repeat_interval: '12h' },
        routes: [
          {
            receiver: receivers.page,
            object_matchers: [['severity', '=', 'page']],
            group_wait: '10s',
            repeat_interval: '2h',
          },
        ],
      },
    ],
  }
}

export function templates(): object {
  // The dot is the data of the notification; dollars are doubled, because Grafana expands them here.
  const template = `{{ define "${templateName}" }}{{ range .Alerts }}
[{{ .Status }}] {{ .Labels.alertname }}: {{ .Annotations.summary }}
what to do: {{ .Annotations.runbook_url }}
{{ if .PanelURL }}panel: {{ .PanelURL }}
{{ end }}{{ end }}{{ end }}`
  return { apiVersion: 1, templates: [{ orgId: 1, name: templateName, template }] }
}
