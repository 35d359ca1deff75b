// Where the days and hours of a time zone begin, as the server reckons them. Tables are partitioned by days and sorted by hours
// of their column's time zone, which is the server's unless the column names one. The server is asked and nothing is worked out
// here: what it sorts by counts, and its list of time zones may be older than ours.
import type { ClickHouse } from './client.ts'

export type Calendar = {
  readonly zone: string
  /** All days begin as those of UTC. */
  readonly hasDaysOfUtc: boolean
  /** Seconds past the full hour of UTC: 1800 in Asia/Kolkata. More than one where clocks are changed by a part of an hour. */
  readonly hoursBegin: readonly number[]
}

/** Of a column's type; each zone is asked for once. */
export type CalendarOf = (type: string) => Promise<Calendar>

/** More than a year to both sides, for every change of the clocks; in steps of a quarter, which no offset of today is finer than. */
const steps = 400 * 96
const stepSeconds = 900

export function openCalendars(client: ClickHouse): CalendarOf {
  const calendars = new Map<string, Promise<Calendar>>()

  async function read(zone: string | undefined): Promise<Calendar> {
    const moment = `toUnixTimestamp(now()) + (toInt64(number) - ${steps}) * ${stepSeconds}`
    const [row] = await client.query<{ zone: string; days: readonly number[]; hours: readonly number[] }>(
      `SELECT any(timezoneOf(moment)) AS zone, groupUniqArray(toUInt32(toUnixTimestamp(toStartOfDay(moment)) % 86400)) AS days,
         arraySort(groupUniqArray(toUInt32(toUnixTimestamp(toStartOfHour(moment)) % 3600))) AS hours
       FROM (SELECT toDateTime(${moment}${zone === undefined ? '' : ', {zone:String}'}) AS moment FROM numbers(${2 * steps}))`,
      zone === undefined ? {} : { zone },
    )
    if (row === undefined) throw new Error(`the server does not say when days begin in ${zone ?? 'its time zone'}`)
    return { zone: row.zone, hasDaysOfUtc: row.days.every((seconds) => seconds === 0), hoursBegin: row.hours }
  }

  return (type) => {
    const named = /DateTime(?:64)?\((?:\d+, ?)?'([^']+)'\)/.exec(type)?.[1]
    const known = calendars.get(named ?? '') ?? read(named)
    calendars.set(named ?? '', known)
    return known
  }
}
