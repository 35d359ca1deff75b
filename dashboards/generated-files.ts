// Everything that is written for Grafana, by its path under generated/.
import { buildBoards } from './boards.ts'

export function generatedFiles(): ReadonlyMap<string, string> {
  const files = new Map<string, string>()
  for (const board of buildBoards()) files.set(`dashboards/${board.uid}.json`, jsonOf(board))
  return files
}

function jsonOf(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`
}
