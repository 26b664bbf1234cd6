// Decodes the messages of a source, and merges their timestamps into the local clock.

import { reasonOf } from '../../errors.ts'
import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import type { Entry } from '../../mesh/mesh.ts'
import { decode } from '../wire.ts'
import type { Applier } from './applier.ts'

/** With `fault`, the message goes to quarantine; the transaction is there when only its timestamp is the fault. */
export type DecodedEntry =
  | { transaction: RemoteTransaction; fault?: undefined }
  | { transaction?: RemoteTransaction; fault: string }

export type EntryDecoderOptions = { source: RemoteTable; clock: HybridClock; applier: Applier }

export class EntryDecoder {
  readonly #options: EntryDecoderOptions

  constructor(options: EntryDecoderOptions) {
    this.#options = options
  }

  decode(entry: Entry): DecodedEntry {
    const { source, clock, applier } = this.#options
    try {
      const transaction = decode(source, entry)
      if (clock.merge(transaction.timestamp) || applier.isApplied(source, transaction)) return { transaction }
      // Its rows would win over every other write until that time.
      const fault = `timestamp ${transaction.timestamp} is too far in the future: the clock of one node is wrong`
      return { transaction, fault }
    } catch (error) {
      return { fault: reasonOf(error) }
    }
  }
}
