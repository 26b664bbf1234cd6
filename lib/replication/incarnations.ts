// The incarnations of a stream, as its description tells them: a stream that lost something goes on in a new one.

import type { TableName } from '../mesh/mesh.ts'

/** An incarnation of a stream: it began at sequence `from`; `last`, of one that is over, was its highest acknowledged sequence. */
export type Incarnation = { epoch: string; from: number; last?: number }

/**
 * The incarnations of a stream that its description tells, oldest first; the last one is going on. A subscriber sees from
 * them exactly what it can no longer get.
 */
export type Label = Incarnation[]

const MAX_INCARNATIONS = 8

export const formatLabel = ({ database, table }: TableName, label: Label): string =>
  [
    `${database}.${table}`,
    ...label
      .slice(-MAX_INCARNATIONS)
      .map(({ epoch, from, last }) => `epoch=${epoch}@${from}${last === undefined ? '' : `..${last}`}`),
  ].join(' ')

/** Empty when the stream's writer has no epochs. */
export const parseLabel = (description: string): Label =>
  [...description.matchAll(/\bepoch=(\w+)@(\d+)(?:\.\.(\d+))?/g)].map(([, epoch = '', from, last]) => ({
    epoch,
    from: Number(from),
    ...(last === undefined ? {} : { last: Number(last) }),
  }))

/** The epoch in which the message behind `sequence` was or will be stored; '' when there are no epochs. */
export const epochBehind = (label: Label, sequence: number): string =>
  label.findLast(({ from }) => from <= sequence + 1)?.epoch ?? label[0]?.epoch ?? ''
