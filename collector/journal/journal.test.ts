// The journal on a disk that can be full, broken, or lose power: what was answered is there exactly once, and nothing else
// is there that a retry would double.

import { appendIndex, type Block } from '@tallylight/storage/clickhouse/block.ts'
import { dictionaryEntries, SegmentFull } from '@tallylight/storage/clickhouse/dictionary.ts'
import { appendText, appendUint16, appendUint64 } from '@tallylight/storage/clickhouse/stream.ts'
import { quarantineTable } from '@tallylight/storage/clickhouse/tables.ts'
import { expect, test, vi } from 'vitest'
import { internBytes } from '../otlp/walk.ts'
import { Malformed } from '../otlp/wire.ts'
import { noneBySignal } from './frame.ts'
import { type Journal, openJournal } from './journal.ts'
import { type MemoryDisk, openMemoryDisk } from './memory-disk.ts'
import type { JournalProblem } from './problem.ts'
import type { SealedSegment } from './sealed-segments.ts'
import { segmentFileName } from './segment.ts'

const today = Math.floor(Date.now() / 86_400_000)

type Opened = { readonly journal: Journal; readonly sealed: SealedSegment[]; readonly problems: JournalProblem[] }

async function open(
  disk: MemoryDisk,
  bounds: {
    readonly segmentBytesMax?: number
    readonly segmentBytesSealed?: number
    readonly sealedBytesMax?: number
  } = {},
  now: () => number = Date.now,
): Promise<Opened> {
  const sealed: SealedSegment[] = []
  const problems: JournalProblem[] = []
  const journal = await openJournal({
    directory: '/journal',
    files: disk.files,
    now,
    insertSettings: { insert_settings_of_a_test: 1 },
    bounds: {
      segmentBytesMax: bounds.segmentBytesMax ?? 1024 * 1024,
      segmentBytesSealed: bounds.segmentBytesSealed ?? bounds.segmentBytesMax ?? 1024 * 1024,
      segmentRowsMax: 10_000,
      liveAgeMsMax: 60_000,
      lateAgeMsMax: 60_000,
      journalBytesMax: 1024 * 1024 * 1024,
      reserveBytes: () => 0,
      spaceCheckMs: 0,
      gatherMsMax: 1,
      gatherRequestsMin: 8,
      sealedBytesMax: bounds.sealedBytesMax ?? 0,
      blocksPerSegmentMax: 16,
      answeredMs: 300_000,
    },
    onSealed: (segment) => sealed.push(segment),
    onProblem: (problem) => problems.push(problem),
  })
  return { journal, sealed, problems }
}

/** Appends rows with these ids, some of a late day. True when they were made durable. */
async function append(journal: Journal, ids: readonly string[], lateFrom = ids.length): Promise<boolean> {
  const outcome = journal.append((openBlock) => {
    for (const [at, id] of ids.entries()) {
      const { columns } = appendRow(openBlock(quarantineTable, at < lateFrom ? today : today - 10))
      // A dictionary that grows with every row, so that losing or cutting a frame shows in the rows behind it.
      appendIndex(columns.Reason, internBytes(columns.Reason, Buffer.from(`reason ${id}`)))
      appendText(columns.Record.data, Buffer.from(id))
    }
    return { signal: 'logs', digest: digestOf(ids), kept: ids.length, rejected: 0, message: '' }
  })
  return outcome.kind === 'appended' && (await outcome.durable)
}

function appendRow(block: Block<typeof quarantineTable>): Block<typeof quarantineTable> {
  const { columns } = block
  appendIndex(columns.TenantId, internBytes(columns.TenantId, Buffer.from('t')))
  appendUint16(columns.RetentionDays.data, 30)
  appendUint64(columns.Time.data, 1, 0)
  appendIndex(columns.Signal, internBytes(columns.Signal, Buffer.from('logs')))
  appendText(columns.Message.data, Buffer.from('m'))
  appendIndex(columns.Format, internBytes(columns.Format, Buffer.from('otlp')))
  block.rows++
  return block
}

function digestOf(ids: readonly string[]): Buffer {
  return Buffer.from(ids.join(',').padEnd(16, '.').slice(0, 16))
}

/** Every row of every sealed segment as `record|reason`. */
async function rowsIn({ journal, sealed }: Opened): Promise<string[]> {
  const rows: string[] = []
  for (const segment of sealed) {
    const loaded = await journal.load(segment)
    for (const { block } of loaded.parts) {
      const records = block.columns.Record
      const reasons = block.columns.Reason
      if (records?.kind !== 'string' || reasons?.kind !== 'lowCardinality') throw new Error('not the quarantine')
      const texts = stringsOf(records.data.bytes.subarray(0, records.data.length))
      const entries = dictionaryEntries(reasons.dictionary).map(String)
      for (const [at, text] of texts.entries())
        rows.push(`${text}|${entries[reasons.indexes.view.getUint16(at * 2, true)]}`)
      expect(texts).toHaveLength(block.rows)
    }
    loaded.release()
  }
  return rows.sort()
}

function stringsOf(bytes: Buffer): string[] {
  const texts: string[] = []
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt8(at)
    texts.push(bytes.toString('utf8', at + 1, at + 1 + length))
    at += 1 + length
  }
  return texts
}

const rowsOf = (ids: readonly string[]): string[] => ids.map((id) => `${id}|reason ${id}`).sort()

test('journal: rows of many requests are found in order after a stop, with their dictionaries', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  const ids = Array.from({ length: 50 }, (_, at) => `row-${at}`)
  for (const id of ids) expect(await append(first.journal, [id])).toBe(true)
  await first.journal.stop()
  expect(await rowsIn(first)).toEqual(rowsOf(ids))
  expect(await rowsIn(await open(disk))).toEqual(rowsOf(ids))
})

test('journal: sinks that load a segment at once get rows of their own, which one that is done with them leaves alone', async () => {
  const opened = await open(openMemoryDisk(), { sealedBytesMax: 1024 * 1024 })
  expect(await append(opened.journal, ['a', 'b'])).toBe(true)
  await opened.journal.stop()
  const [segment] = opened.sealed
  if (segment === undefined) throw new Error('nothing was sealed')
  const first = await opened.journal.load(segment)
  expect(await rowsIn(opened)).toEqual(rowsOf(['a', 'b']))
  expect(first.parts.map(({ block }) => block.rows)).toEqual([2])
  first.release()
  expect(await rowsIn(opened)).toEqual(rowsOf(['a', 'b']))
})

test('journal: rows stay in memory for the sink until more wait than may; behind those they are read back', async () => {
  const disk = openMemoryDisk()
  let reads = 0
  const openFile: MemoryDisk['files']['open'] = (path, mode) => {
    if (mode === 'read') reads++
    return disk.files.open(path, mode)
  }
  const sealedWith = async (opened: Opened, id: string): Promise<SealedSegment> => {
    const at = opened.sealed.length
    expect(await append(opened.journal, [id])).toBe(true)
    return vi.waitUntil(() => opened.sealed[at])
  }
  const { bytes } = await sealedWith(await open(openMemoryDisk(), { segmentBytesSealed: 1 }), 'x')
  const bounds = { segmentBytesSealed: 1, sealedBytesMax: 1.5 * bytes }
  const opened = await open({ ...disk, files: { ...disk.files, open: openFile } }, bounds)
  const readsOf = async (segment: SealedSegment): Promise<number> => {
    const before = reads
    expect(await rowsIn({ ...opened, sealed: [segment] })).toHaveLength(1)
    return reads - before
  }
  const first = await sealedWith(opened, 'a')
  const second = await sealedWith(opened, 'b')
  expect([await readsOf(first), await readsOf(second)]).toEqual([0, 1])
  for (const segment of [first, second])
    opened.journal.settle(segment, 'part', { ...noneBySignal(), logs: 1 }, noneBySignal())
  expect(await readsOf(await sealedWith(opened, 'c'))).toBe(0)
})

test('journal: a power cut keeps what was answered, and tells retries of it from new requests', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  expect(await append(first.journal, ['a', 'b'], 1)).toBe(true)
  const unanswered = append(first.journal, ['c'])
  const second = await open(disk.powerCut())
  expect(await rowsIn(second)).toEqual(rowsOf(['a', 'b']))
  expect(second.journal.answered.map((request) => request.digest.toString())).toEqual([digestOf(['a', 'b']).toString()])
  expect(second.journal.status().inJournal.logs).toBe(2)
  expect(second.journal.status().accepted.logs).toBe(2)
  await unanswered
})

test('journal: power cuts at every operation of a run lose no answered row and double none that is sent again', async () => {
  let cuts = 0
  for (let stopAfter = 1; ; stopAfter++) {
    const disk = openMemoryDisk()
    const { journal } = await open(disk)
    const answered: string[] = []
    disk.stopAfter(stopAfter)
    for (let at = 0; at < 4; at++) {
      const ids = [`${at}a`, `${at}b`]
      if (await append(journal, ids, at % 2 === 0 ? 1 : 2)) answered.push(...ids)
    }
    const isOver = !disk.hasStopped()
    const after = await open(disk.powerCut())
    const known = new Set(after.journal.answered.map((request) => request.digest.toString()))
    // The client sends again what was not answered; what the journal remembers is answered and not stored again.
    for (let at = 0; at < 4; at++) {
      const ids = [`${at}a`, `${at}b`]
      if (!answered.includes(ids[0] as string) && !known.has(digestOf(ids).toString()))
        expect(await append(after.journal, ids, 1)).toBe(true)
    }
    await after.journal.stop()
    expect(await rowsIn(after), `power cut after operation ${stopAfter}`).toEqual(
      rowsOf(['0a', '0b', '1a', '1b', '2a', '2b', '3a', '3b']),
    )
    if (isOver) break
    cuts++
  }
  expect(cuts).toBeGreaterThan(8)
})

test('journal: what comes while a commit looks for room is on the disk with its digest, or not at all', async () => {
  let isOver = false
  for (let stopAfter = 1; !isOver; stopAfter++) {
    const disk = openMemoryDisk()
    let late: Promise<boolean> | undefined
    const space: MemoryDisk['files']['space'] = async (directory) => {
      if (first !== undefined) late ??= append(journal, ['late'])
      return disk.files.space(directory)
    }
    let first: Promise<boolean> | undefined
    const { journal } = await open({ ...disk, files: { ...disk.files, space } })
    disk.stopAfter(stopAfter)
    first = append(journal, ['first'])
    const answered = [await first, await late]
    isOver = !disk.hasStopped()
    const after = await open(disk.powerCut())
    const known = new Set(after.journal.answered.map((request) => request.digest.toString()))
    for (const [at, id] of ['first', 'late'].entries())
      if (answered[at] !== true && !known.has(digestOf([id]).toString()))
        expect(await append(after.journal, [id])).toBe(true)
    await after.journal.stop()
    expect(await rowsIn(after), `power cut after operation ${stopAfter}`).toEqual(rowsOf(['first', 'late']))
  }
})

test('journal: a write that fails answers no, leaves nothing behind, and the next one works', async () => {
  for (const operation of ['write', 'sync', 'open'] as const) {
    const disk = openMemoryDisk()
    const opened = await open(disk)
    expect(await append(opened.journal, ['before'])).toBe(true)
    if (operation === 'open') await opened.journal.stop()
    const running = operation === 'open' ? await open(disk) : opened
    disk.failNext(operation, Object.assign(new Error('no space left on device'), { code: 'ENOSPC' }))
    expect(await append(running.journal, ['failed']), operation).toBe(false)
    expect(await append(running.journal, ['after']), operation).toBe(true)
    await running.journal.stop()
    expect(await rowsIn(running), operation).toEqual(rowsOf(['before', 'after']))
    expect(await rowsIn(await open(disk.powerCut())), operation).toEqual(rowsOf(['before', 'after']))
  }
})

/** `onClose` before the file of a segment is closed. */
function closing(disk: MemoryDisk, onClose: () => void): MemoryDisk {
  const openFile: MemoryDisk['files']['open'] = async (path, mode) => {
    const file = await disk.files.open(path, mode)
    const close = async (): Promise<void> => {
      if (path.endsWith('.segment')) onClose()
      await file.close()
    }
    return { ...file, close }
  }
  return { ...disk, files: { ...disk.files, open: openFile } }
}

test('journal: what comes while a write that failed is taken back is there once, whatever its answer', async () => {
  let meanwhile: Promise<boolean> | undefined
  const disk = openMemoryDisk()
  const opened = await open(closing(disk, () => (meanwhile ??= append(opened.journal, ['meanwhile']))))
  const { journal } = opened
  expect(await append(journal, ['before'])).toBe(true)
  disk.failNext('sync', Object.assign(new Error('no space left on device'), { code: 'ENOSPC' }))
  expect(await append(journal, ['failed'])).toBe(false)
  if ((await meanwhile) === false) expect(await append(journal, ['meanwhile'])).toBe(true)
  await journal.stop()
  expect(await rowsIn(opened)).toEqual(rowsOf(['before', 'meanwhile']))
  const { accepted, inJournal } = journal.status()
  expect(inJournal).toEqual(accepted)
})

test('journal: a file that does not close takes no answer back, and its rows go on', async () => {
  let isBroken = false
  const opened = await open(
    closing(openMemoryDisk(), () => {
      if (isBroken) throw Object.assign(new Error('close: i/o error'), { code: 'EIO' })
    }),
    { segmentBytesSealed: 1 },
  )
  isBroken = true
  expect(await append(opened.journal, ['kept'])).toBe(true)
  await opened.journal.stop()
  isBroken = false
  expect(await rowsIn(opened)).toEqual(rowsOf(['kept']))
  expect(opened.problems).toMatchObject([{ kind: 'close_failed' }])
})

test('journal: a volume that does not say how much room it has takes nothing until it does, and everybody is answered', async () => {
  const disk = openMemoryDisk()
  let failures = 0
  const space: MemoryDisk['files']['space'] = async (directory) => {
    if (failures-- > 0) throw Object.assign(new Error('statfs: i/o error'), { code: 'EIO' })
    return disk.files.space(directory)
  }
  const opened = await open({ ...disk, files: { ...disk.files, space } })
  expect(await append(opened.journal, ['before'])).toBe(true)
  failures = 2
  // Taken before the volume was asked.
  expect(await append(opened.journal, ['first'])).toBe(true)
  expect(opened.journal.status().isFull).toBe(true)
  expect(await append(opened.journal, ['refused'])).toBe(false)
  await vi.waitFor(async () => expect(await append(opened.journal, ['after'])).toBe(true))
  await opened.journal.stop()
  expect(await rowsIn(opened)).toEqual(rowsOf(['before', 'first', 'after']))
  expect(opened.problems).toMatchObject([{ kind: 'full' }])
})

test('journal: a directory that is put back from an older copy names no segment as one was named before', async () => {
  let nowMs = Date.now()
  const now = (): number => nowMs
  const disk = openMemoryDisk()
  const first = await open(disk, {}, now)
  expect(await append(first.journal, ['saved'])).toBe(true)
  await first.journal.stop()
  const copy = disk.powerCut()
  const names: string[] = []
  for (const each of [disk, copy]) {
    nowMs += 3_600_000
    const opened = await open(each, { segmentBytesSealed: 1 }, now)
    for (const id of ['a', 'b', 'c']) expect(await append(opened.journal, [id])).toBe(true)
    await opened.journal.stop()
    names.push(...opened.sealed.filter(({ isFresh }) => isFresh).map(({ name }) => name))
  }
  expect(names).toHaveLength(6)
  expect(new Set(names).size).toBe(6)
  expect(names.toSorted()).toEqual(names)
})

test('journal: a corrupt frame is set aside, and every row of the others is kept', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  for (const id of ['one', 'two', 'three']) expect(await append(first.journal, [id])).toBe(true)
  await first.journal.stop()
  disk.corrupt(/\.segment$/, Buffer.from('two'))
  const second = await open(disk)
  expect(await rowsIn(second)).toEqual(['one|reason one', 'three|reason three'])
  expect(second.journal.status().corruptFrames).toBe(1)
  const { accepted, quarantined, inJournal } = second.journal.status()
  expect({ accepted: accepted.logs, quarantined: quarantined.logs, inJournal: inJournal.logs }).toEqual({
    accepted: 3,
    quarantined: 1,
    inJournal: 2,
  })
})

/** accepted, and what became of them, in records of logs. */
function books({ journal }: Opened): Readonly<Record<string, number>> {
  const { accepted, stored, inJournal, quarantined, duplicate } = journal.status()
  expect(accepted.logs).toBe(stored.logs + inJournal.logs + quarantined.logs + duplicate.logs)
  return { accepted: accepted.logs, quarantined: quarantined.logs, inJournal: inJournal.logs }
}

test('journal: a corrupt frame is booked once, however often it is read, also after a crash before the books were written', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  for (const id of ['one', 'two', 'three']) expect(await append(first.journal, [id])).toBe(true)
  await first.journal.stop()
  disk.corrupt(/\.segment$/, Buffer.from('two'))
  for (const isClean of [false, true, true]) {
    const opened = await open(disk)
    for (const _ of ['read', 'read again']) expect(await rowsIn(opened)).toHaveLength(2)
    expect(books(opened)).toEqual({ accepted: 3, quarantined: 1, inJournal: 2 })
    expect(opened.journal.status().corruptFrames).toBe(1)
    if (isClean) await opened.journal.stop()
  }
})

test('journal: the records of a frame of which not even the head can be read are booked as quarantined, and its bytes kept', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  for (const id of ['one', 'two', 'three']) expect(await append(first.journal, [id])).toBe(true)
  await first.journal.stop()
  // The digest of its request is in the head.
  disk.corrupt(/\.segment$/, digestOf(['two']))
  for (const isClean of [false, true, true]) {
    const opened = await open(disk)
    expect(books(opened)).toEqual({ accepted: 3, quarantined: 1, inJournal: 2 })
    expect(await rowsIn(opened)).toEqual(['one|reason one', 'three|reason three'])
    expect(books(opened)).toEqual({ accepted: 3, quarantined: 1, inJournal: 2 })
    expect(opened.journal.status().corruptFrames).toBe(1)
    if (isClean) await opened.journal.stop()
  }
  expect(disk.listing().find(([name]) => name.endsWith('.corrupt'))?.[1]).toContain('reason two')
})

test('journal: a segment that lost its end, or all but its name, is booked as quarantined, and the others are read', async () => {
  for (const cutTo of [0, 7, -10]) {
    const disk = openMemoryDisk()
    const first = await open(disk)
    for (const id of ['one', 'two']) expect(await append(first.journal, [id])).toBe(true)
    await first.journal.stop()
    const second = await open(disk)
    expect(await append(second.journal, ['three'])).toBe(true)
    await second.journal.stop()
    disk.cut(/\.segment$/, cutTo)
    for (const isClean of [false, true, true]) {
      const opened = await open(disk)
      const rows = await rowsIn(opened)
      expect(rows).toContain('three|reason three')
      expect(books(opened)).toEqual({ accepted: 3, quarantined: 3 - rows.length, inJournal: rows.length })
      if (isClean) await opened.journal.stop()
    }
  }
})

test('journal: rows behind a broken header are read, as long as it is one that this program would have written', async () => {
  for (const broken of ['TLSEG', 'insert_settings_of_a_test']) {
    const disk = openMemoryDisk()
    const first = await open(disk)
    expect(await append(first.journal, ['one', 'late'], 1)).toBe(true)
    await first.journal.stop()
    disk.corrupt(/\.segment$/, Buffer.from(broken))
    const second = await open(disk)
    expect(second.problems.map((problem) => problem.kind)).toEqual(['corrupt_header'])
    expect(await rowsIn(second)).toEqual(rowsOf(['late', 'one']))
    expect(books(second)).toEqual({ accepted: 2, quarantined: 0, inJournal: 2 })
  }
})

test('journal: garbage behind the last frame is cut off as a torn tail', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  expect(await append(first.journal, ['kept'])).toBe(true)
  await first.journal.stop()
  disk.append(/\.segment$/, Buffer.from('TLF1 half a frame'))
  const second = await open(disk)
  expect(await rowsIn(second)).toEqual(rowsOf(['kept']))
  expect(second.problems.map((problem) => problem.kind)).toEqual(['torn_tail'])
})

test('journal: an unknown format refuses the start and touches nothing', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  expect(await append(first.journal, ['row'])).toBe(true)
  await first.journal.stop()
  disk.overwrite(/\.segment$/, 6, Buffer.from([9]))
  const before = disk.listing()
  await expect(open(disk)).rejects.toThrow(/journal format 9, and this collector knows 1/)
  expect(disk.listing()).toEqual(before)
})

test('journal: a request that is malformed half way leaves no row', async () => {
  const opened = await open(openMemoryDisk())
  expect(await append(opened.journal, ['good'])).toBe(true)
  const walk = () =>
    opened.journal.append((openBlock) => {
      const { columns } = appendRow(openBlock(quarantineTable, today))
      appendIndex(columns.Reason, internBytes(columns.Reason, Buffer.from('reason never')))
      appendText(columns.Record.data, Buffer.from('never'))
      throw new Malformed('broken, at byte 7')
    })
  expect(walk).toThrow('broken, at byte 7')
  expect(await append(opened.journal, ['next'])).toBe(true)
  await opened.journal.stop()
  expect(await rowsIn(opened)).toEqual(rowsOf(['good', 'next']))
})

test('journal: what is too large for a segment is refused, and what is too large for the rest of one begins the next', async () => {
  const opened = await open(openMemoryDisk())
  expect(await append(opened.journal, ['first'])).toBe(true)
  let walks = 0
  const second = opened.journal.append((openBlock) => {
    if (walks++ === 0) throw new SegmentFull('full')
    const { columns } = appendRow(openBlock(quarantineTable, today))
    appendIndex(columns.Reason, internBytes(columns.Reason, Buffer.from('reason second')))
    appendText(columns.Record.data, Buffer.from('second'))
    return { signal: 'logs', digest: digestOf(['second']), kept: 1, rejected: 0, message: '' }
  })
  expect(second.kind === 'appended' && (await second.durable)).toBe(true)
  const third = opened.journal.append(() => {
    throw new SegmentFull('the request unfolds to more rows than a segment holds')
  })
  expect(third).toMatchObject({ kind: 'too_large', reason: expect.stringContaining('smaller requests') })
  await opened.journal.stop()
  expect(opened.sealed.length).toBeGreaterThan(1)
  expect(await rowsIn(opened)).toEqual(rowsOf(['first', 'second']))
})

test('journal: the books balance through settling, removal and a restart', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  expect(await append(first.journal, ['a', 'b', 'c'], 2)).toBe(true)
  first.journal.countDuplicate('logs', 2)
  await first.journal.stop()
  for (const segment of first.sealed) {
    const loaded = await first.journal.load(segment)
    for (const part of loaded.parts)
      first.journal.settle(
        segment,
        `${part.table}:${part.day}`,
        { traces: 0, metrics: 0, logs: 0 },
        { traces: 0, metrics: 0, logs: part.rows },
      )
    await first.journal.remove(segment)
  }
  for (const status of [first.journal.status(), (await open(disk.powerCut())).journal.status()]) {
    const { accepted, stored, inJournal, quarantined, duplicate } = status
    expect(quarantined.logs).toBe(3)
    expect(accepted.logs).toBe(stored.logs + inJournal.logs + quarantined.logs + duplicate.logs)
  }
  const again = await open(disk.powerCut())
  expect(again.journal.answered.map((request) => request.digest.toString())).toEqual([
    digestOf(['a', 'b', 'c']).toString(),
  ])
})

test('journal: to drain seals what is open at once, and waits for its removal, not for what comes later', async () => {
  const opened = await open(openMemoryDisk())
  const { journal, sealed } = opened
  expect(await append(journal, ['a', 'b'], 1)).toBe(true)
  let isDrained = false
  const drained = journal.drain(new AbortController().signal).then(() => {
    isDrained = true
  })
  await expect.poll(() => sealed.length).toBe(2)
  expect(await append(journal, ['c'])).toBe(true)
  for (const segment of sealed) {
    expect(isDrained).toBe(false)
    await journal.remove(segment)
  }
  await drained
  const stopping = new AbortController()
  const given = journal.drain(stopping.signal)
  stopping.abort()
  await given
  expect(journal.status().segments).toBe(1)
  await journal.stop()
})

async function storeAll({ journal, sealed }: Opened): Promise<void> {
  const none = noneBySignal()
  for (const segment of sealed) {
    const { parts } = await journal.load(segment)
    for (const { table, day, rows } of parts) journal.settle(segment, `${table}:${day}`, { ...none, logs: rows }, none)
    await journal.remove(segment)
  }
}

test('journal: books or an id that are not what a journal writes refuse the start with the name of the file, and are left as they are', async () => {
  for (const [name, text, expected] of [
    ['books.json', '', /\/journal\/books\.json .* is not JSON/],
    ['books.json', '{"x":1}', /\/journal\/books\.json .*commit: .*number/],
    ['books.json', '{"commit":-1}', /commit: Too small/],
    ['id', '', /\/journal\/id does not hold the id of a journal, 10 hexadecimal digits/],
    ['id', 'no such id', /\/journal\/id does not hold/],
  ] as const) {
    const disk = openMemoryDisk()
    const first = await open(disk)
    expect(await append(first.journal, ['row'])).toBe(true)
    await first.journal.stop()
    disk.cut(new RegExp(`/${name}$`), 0)
    disk.append(new RegExp(`/${name}$`), Buffer.from(text))
    const before = disk.listing()
    await expect(open(disk), `${name} ${text}`).rejects.toThrow(expected)
    expect(disk.listing()).toEqual(before)
    await disk.files.remove(`/journal/${name}`)
    if (name === 'id')
      await expect(open(disk)).rejects.toThrow(/journal\/id is gone, and segments were written under it/)
    else expect(books(await open(disk))).toEqual({ accepted: 1, quarantined: 0, inJournal: 1 })
  }
})

test('journal: books that are gone are told with how many records they were about, no answered row is cut, and no number is used again', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  expect(first.problems).toEqual([])
  expect(await append(first.journal, ['one', 'two'])).toBe(true)
  await first.journal.stop()
  await storeAll(first)
  const used = first.sealed.map(({ sequence }) => sequence)
  const second = await open(disk)
  // Of its two commits the record is in the live segment, which is stored, and rows are in the late one, which is left.
  expect(await append(second.journal, ['three', 'late'], 1)).toBe(true)
  await second.journal.stop()
  const live = second.sealed.filter(({ lane }) => lane === 'live')
  await storeAll({ ...second, sealed: live })
  await disk.files.remove('/journal/books.json')

  const third = await open(disk)
  expect(third.problems.map(({ kind }) => kind)).toEqual(['books_gone'])
  expect(await rowsIn(third)).toEqual(rowsOf(['late']))
  expect(books(third)).toEqual({ accepted: 1, quarantined: 0, inJournal: 1 })
  expect(await append(third.journal, ['four'])).toBe(true)
  await third.journal.stop()
  expect(third.sealed.at(-1)?.sequence).toBeGreaterThan(
    Math.max(...used, ...second.sealed.map((each) => each.sequence)),
  )
  const kept = third.sealed.filter(({ lane }) => lane === 'late')
  await storeAll({ ...third, sealed: kept })
  await disk.files.remove('/journal/books.json')

  const fourth = await open(disk)
  // The commit's record says what was accepted before; what is in no segment any more is taken for stored.
  expect(fourth.problems).toEqual([{ kind: 'books_gone', traces: 0, metrics: 0, logs: 1 }])
  expect(books(fourth)).toEqual({ accepted: 2, quarantined: 0, inJournal: 1 })
  expect(fourth.journal.status().stored.logs).toBe(1)
  await fourth.journal.stop()
  expect((await open(disk)).problems).toEqual([])
})

test('journal: records of a segment that somebody deleted are told, not only counted', async () => {
  const disk = openMemoryDisk()
  const first = await open(disk)
  expect(await append(first.journal, ['one', 'two'])).toBe(true)
  await first.journal.stop()
  for (const { sequence } of first.sealed) await disk.files.remove(`/journal/${segmentFileName(sequence)}`)
  const second = await open(disk)
  expect(second.problems).toEqual([{ kind: 'records_lost', traces: 0, metrics: 0, logs: 2 }])
  expect(books(second)).toEqual({ accepted: 2, quarantined: 2, inJournal: 0 })
})
