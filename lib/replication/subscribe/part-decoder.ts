// Decodes the transactions of a source, and merges their timestamps into the local clock.

import { reasonOf } from '../../errors.ts'
import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import { decodeMessage, type StoredPart } from '../wire/frame.ts'
import { type MessageExtras, MissingTableError, type TableLookup } from '../wire/message-chain.ts'
import type { Applier } from './applier.ts'
import type { LocalTables } from './local-tables.ts'

/**
 * With `fault`, it goes to quarantine; the transaction is there when only its timestamp is the fault. With `unsupported`, a reason,
 * the transaction is applied, and the message has more than that, for which it goes to quarantine.
 */
export type DecodedPart =
  | { transaction: RemoteTransaction; extras?: MessageExtras | undefined; unsupported?: string; fault?: undefined }
  | { transaction?: RemoteTransaction; extras?: undefined; unsupported?: undefined; fault: string }

export type PartDecoderOptions = {
  source: RemoteTable
  clock: HybridClock
  applier: Applier
  tables: Pick<LocalTables, 'knownPrimaryKey' | 'refresh'>
  /** Whether the local node subscribes to this table of a remote node. */
  isSubscribed(table: RemoteTable): boolean
}

export class PartDecoder {
  readonly #options: PartDecoderOptions
  readonly #lookup: TableLookup

  constructor(options: PartDecoderOptions) {
    this.#options = options
    const { source, tables, isSubscribed } = options
    this.#lookup = {
      primaryKeyOf: (table) => tables.knownPrimaryKey({ ...source, table }),
      isSubscribed: (table) => isSubscribed({ ...source, table }),
    }
  }

  /** Throws MissingTableError when the transaction also writes a subscribed table that does not exist here, as far as that is known. */
  decode(stored: StoredPart): DecodedPart {
    const { source, clock, applier } = this.#options
    try {
      const { transaction, extras } = decodeMessage(source, stored, this.#lookup)
      if (clock.merge(transaction.timestamp) || applier.isApplied(source, transaction))
        return extras ? { transaction, extras, ...unsupportedIn(extras) } : { transaction }
      // Its rows would win over every other write until that time.
      const fault = `timestamp ${transaction.timestamp} is too far in the future: the clock of one node is wrong`
      return { transaction, fault }
    } catch (error) {
      if (error instanceof MissingTableError) throw error
      return { fault: reasonOf(error) }
    }
  }

  /** As `decode`, with the tables that exist now. Rejects with MissingTableError, and as the host does. */
  async decodeAgain(stored: StoredPart): Promise<DecodedPart> {
    await this.#options.tables.refresh()
    return this.decode(stored)
  }
}

function unsupportedIn({ unsupported }: MessageExtras): { unsupported?: string } {
  if (unsupported.length === 0) return {}
  const operations = unsupported.map((operation) => `'${operation}'`).join(', ')
  return {
    unsupported: `contains the operation ${operations}, which cannot be applied here; its other writes are applied`,
  }
}
