// Where a click leads: from a chart to the ranked table below it, from a row of a table to its trace or conversation.

export const uids = {
  overview: 'tallylight-overview',
  models: 'tallylight-models',
  tenants: 'tallylight-tenants',
  tools: 'tallylight-tools',
  conversations: 'tallylight-conversations',
  trace: 'tallylight-trace',
  collector: 'tallylight-collector',
  integrity: 'tallylight-integrity',
} as const
export type BoardName = keyof typeof uids

export type Link = { readonly title: string; readonly url: string }

const range = `\${__url_time_range}`
const all = `\${__all_variables}`
const field = (column: string): string => `\${__data.fields["${column}"]:percentencode}`

/** One panel of a board, alone, with the time and the choices of the reader. */
export function toPanel(board: BoardName, panelId: number, title: string): Link {
  return { title, url: `/d/${uids[board]}?viewPanel=panel-${panelId}&${range}&${all}` }
}

export function toBoard(board: BoardName, title: string): Link {
  return { title, url: `/d/${uids[board]}?${range}&${all}` }
}

/** For a table that has the column. */
export function toTrace(column = 'trace'): Link {
  return { title: 'The trace', url: `/d/${uids.trace}?var-trace=${field(column)}&${range}` }
}

/** For a table that has both columns: another tenant may have a conversation of the same name. */
export function toConversation(): Link {
  const chosen = `var-conversation=${field('conversation')}&var-tenant=${field('tenant')}`
  return { title: 'The conversation', url: `/d/${uids.conversations}?${chosen}&${range}` }
}

/** One panel alone, for the value of a row. */
export function toPanelOf(board: BoardName, panelId: number, variable: string, column: string, title: string): Link {
  return { title, url: `/d/${uids[board]}?viewPanel=panel-${panelId}&var-${variable}=${field(column)}&${range}` }
}

/** Another board with one value of a row chosen. */
export function toBoardOf(board: BoardName, variable: string, column: string, title: string): Link {
  return { title, url: `/d/${uids[board]}?var-${variable}=${field(column)}&${range}` }
}
