// What can be seen of the boards without an engine: that the committed files are what the code makes, and that nothing in them
// is doubled, overlaps, is without a word, or leads nowhere. The rules are those of Grafana's own linter, as far as they are not
// about Prometheus.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Dashboard, Panel } from '@grafana/grafana-foundation-sdk/dashboard'
import { describe, expect, test } from 'vitest'
import { buildBoards } from './boards.ts'
import { generatedFiles } from './generated-files.ts'
import { gridColumns } from './panels.ts'
import type { Query } from './sources.ts'

const boards = buildBoards()
const generated = fileURLToPath(new URL('./generated/', import.meta.url))

function allPanels(board: Dashboard): readonly Panel[] {
  return (board.panels ?? []) as readonly Panel[]
}
const panelsOf = (board: Dashboard): readonly Panel[] => allPanels(board).filter(({ type }) => type !== 'row')
const queriesOf = (panel: Panel): readonly Query[] => (panel.targets ?? []) as unknown as readonly Query[]

function linksOf(thing: unknown): readonly string[] {
  return [...JSON.stringify(thing).matchAll(/"url":"(\/d\/[^"]+)"/g)].map(([, url]) => url as string)
}

test('generated: the committed files are what the code makes; `npm run dashboards` writes them', () => {
  const there = readdirSync(generated, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(generated.length))
  const wanted = generatedFiles()
  expect(there.toSorted()).toEqual([...wanted.keys()].toSorted())
  for (const [path, text] of wanted) expect(readFileSync(join(generated, path), 'utf8') === text, path).toBe(true)
})

test('boards: no two share a uid or a title', () => {
  expect(new Set(boards.map(({ uid }) => uid)).size).toBe(boards.length)
  expect(new Set(boards.map(({ title }) => title)).size).toBe(boards.length)
})

describe.each(boards.map((board) => [board.title, board] as const))('%s', (_title, board) => {
  test('panels have ids of their own, lie inside the grid and beside each other', () => {
    const ids = allPanels(board).map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
    const taken = new Set<string>()
    const doubled: string[] = []
    for (const { title, gridPos } of allPanels(board)) {
      const { x, y, w, h } = gridPos ?? { x: 0, y: 0, w: 0, h: 0 }
      expect(x + w, title).toBeLessThanOrEqual(gridColumns)
      expect(w * h, title).toBeGreaterThan(0)
      for (let column = x; column < x + w; column++)
        for (let row = y; row < y + h; row++) {
          if (taken.has(`${column} ${row}`)) doubled.push(`${title} at ${column}, ${row}`)
          taken.add(`${column} ${row}`)
        }
    }
    expect(doubled).toEqual([])
  })

  test('every panel says what it shows, in which unit, and why it may be empty', () => {
    for (const panel of panelsOf(board)) {
      expect(panel.description?.length, panel.title).toBeGreaterThan(15)
      expect(panel.fieldConfig?.defaults.noValue?.length, panel.title).toBeGreaterThan(10)
      expect(panel.targets?.length, panel.title).toBeGreaterThan(0)
      if (panel.type !== 'traces') expect(panel.fieldConfig?.defaults.unit, panel.title).toBeTruthy()
    }
  })

  test('every chart leads to ranked rows, and every link to a panel or board that there is', () => {
    for (const panel of panelsOf(board)) {
      const urls = linksOf(panel)
      if (panel.type === 'timeseries' || panel.type === 'stat') expect(urls.length, panel.title).toBeGreaterThan(0)
      for (const url of urls) {
        const [, uid, query = ''] = /^\/d\/([\w-]+)\?(.*)$/.exec(url) ?? []
        const target = boards.find((each) => each.uid === uid)
        expect(target, `${panel.title}: ${url}`).toBeDefined()
        const viewed = /viewPanel=panel-(\d+)/.exec(query)?.[1]
        if (viewed !== undefined) {
          const found = panelsOf(target as Dashboard).find(({ id }) => id === Number(viewed))
          expect(found?.type, `${panel.title}: ${url}`).toBe('table')
        }
        for (const [, variable] of query.matchAll(/var-(\w+)=/g))
          expect(
            target?.templating.list?.map(({ name }) => name),
            url,
          ).toContain(variable)
      }
    }
  })

  test('every query names a source that can be chosen, is bounded in time, and quotes its variables', () => {
    const names = new Set(board.templating.list?.map(({ name }) => name))
    for (const panel of panelsOf(board)) {
      for (const { rawSql, datasource } of queriesOf(panel)) {
        expect(
          [...names].map((name) => `\${${name}}`),
          panel.title,
        ).toContain(datasource.uid)
        for (const [all, name, format] of rawSql.matchAll(/\$\{(\w+)(?::(\w+))?\}/g)) {
          expect(names, `${panel.title}: ${all}`).toContain(name)
          expect(['singlequote', 'sqlstring', 'percentencode'], `${panel.title}: ${all}`).toContain(format)
        }
        // Parts and balances are as they are now.
        const isBounded = /\$__timeFilter|interval '|system\.parts|TraceId = wanted/.test(rawSql)
        expect(isBounded, `${panel.title}: ${rawSql}`).toBe(true)
        if (panel.type === 'timeseries') expect(rawSql, panel.title).toMatch(/ORDER BY (time|1)\b/)
        if (panel.type === 'table') expect(rawSql, panel.title).toMatch(/LIMIT \d+|GROUP BY/)
      }
    }
  })

  test('choices are asked for again when the range changes, the sources are labelled, and nobody edits it in place', () => {
    for (const variable of board.templating.list ?? []) {
      if (variable.type === 'query') expect(variable.refresh, variable.name).toBe(2)
      expect(variable.label, variable.name).toBeTruthy()
    }
    expect(board.editable).toBe(false)
    expect(board.id).toBeNull()
    expect(board.refresh).toBe('1m')
  })
})
