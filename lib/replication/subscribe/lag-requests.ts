// What a subscription asks the stream of its source to know how far it is behind.

import type { RemoteTable } from '../../host/host.ts'
import { readStreamMetadata } from '../stream-metadata.ts'
import { Frame } from '../wire/frame.ts'
import type { Cursor } from './cursor.ts'
import type { Lag } from './lag.ts'
import type { SubscriberContext } from './subscriber-options.ts'

type Context = Pick<SubscriberContext, 'mesh' | 'requestTimeout'>
type Parts = { source: RemoteTable; cursor: Pick<Cursor, 'checkpoint'>; lag: Lag }

/** The last message tells how many transactions the subscription is behind. Does not reject. */
export async function countLag(
  { mesh, requestTimeout: timeout }: Context,
  { source, cursor, lag }: Parts,
  sequence: number,
  signal?: AbortSignal,
): Promise<void> {
  try {
    const entry = await mesh.messageAt(source, sequence, { timeout, signal })
    const { epoch, last: index } = entry ? Frame.read(entry) : {}
    const { checkpoint } = cursor
    if (epoch === checkpoint.epoch) lag.observeLast({ sequence, index }, checkpoint)
  } catch {
    // Then the lag counts messages until the source reports its position.
  }
}

/**
 * For a subscription that reads nothing: the source reports only positions that change, and does not say how old the oldest message is that
 * is not applied. Does not reject.
 */
export async function observeLag(context: Context, parts: Parts): Promise<void> {
  const { mesh, requestTimeout: timeout } = context
  const { source, cursor, lag } = parts
  try {
    const state = await mesh.streamState(source, { timeout })
    const { checkpoint } = cursor
    // Where the subscription begins is decided when it reads first. A checkpoint in a stream without epochs has an index.
    if (checkpoint.epoch === '' && checkpoint.index === undefined) return
    // A stream of HarperDB has no epochs.
    const { epoch = '' } = state ? (readStreamMetadata(state.description).epochs.at(-1) ?? {}) : {}
    if (!state || epoch !== checkpoint.epoch) return
    lag.observeLast({ sequence: state.lastSequence }, checkpoint)
    if (!lag.isBehind(checkpoint)) return
    const oldest = Math.max(checkpoint.sequence + 1, state.firstSequence)
    const entry = await mesh.messageAt(source, oldest, { timeout })
    if (entry) lag.setOldest(entry.time)
    await countLag(context, parts, state.lastSequence)
  } catch {
    // It is asked again when the source is back.
  }
}
