// Times of the JSON API: ISO 8601 in, UTC out.

const DATE_TIME = /^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?(Z|[+-]\d{2}(?::?\d{2})?)?$/i

/** Milliseconds since 1970 of an ISO 8601 date and time. Without an offset it is UTC. NaN if the text is invalid. */
function parse(text: string): number {
  const parts = DATE_TIME.exec(text)
  if (!parts) return Number.NaN
  const [year, month, day, hour, minute, second] = parts.slice(1, 7).map((part) => Number(part ?? 0)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  const fraction = Math.floor(Number(`0.${parts[7] ?? 0}`) * 1000)
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  // Date would turn the 30th of February into the 2nd of March.
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return Number.NaN
  if (hour > 23 || minute > 59 || second > 59) return Number.NaN
  date.setUTCHours(hour, minute, second, fraction)
  const zone = /^([+-])(\d{2}):?(\d{2})?$/.exec(parts[8] ?? '')
  const [hours, minutes] = [Number(zone?.[2] ?? 0), Number(zone?.[3] ?? 0)]
  if (hours > 23 || minutes > 59) return Number.NaN
  const offset = (zone?.[1] === '-' ? -1 : 1) * (hours * 60 + minutes)
  return date.getTime() - offset * 60_000
}

/** False for a date without a time. */
export const isDateTime = (text: string): boolean => !Number.isNaN(parse(text))

/** In UTC, for example `2022-09-02T20:06:35.993Z`. A time later than `now` (ms since 1970) becomes now. */
export const toUtc = (text: string, now: number): string => new Date(Math.min(parse(text), now)).toISOString()
