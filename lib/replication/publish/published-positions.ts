// Stores the published positions with the host, one call after the other. A position of an epoch that is over never replaces a newer one.

import type { PublishConfirmation, PublishedPosition } from '../../host/host.ts'
import type { Outbox } from '../../host/outbox.ts'
import type { TableName } from '../../mesh/mesh.ts'
import { TableMap } from '../../mesh/table-map.ts'
import { SerialQueue } from '../../util/serial-queue.ts'
import type { StreamPosition } from '../stream-metadata.ts'

export class PublishedPositions {
  readonly #outbox: Outbox
  /** The epoch that began last in this process; undefined while a table is still in the epoch that the host stored. */
  readonly #epochs = new TableMap<string | undefined>()
  readonly #calls = new SerialQueue()

  constructor(outbox: Outbox) {
    this.#outbox = outbox
  }

  /** The position that the host stored for this table. Rejects as the host does; so do the other methods. */
  load({ database, table }: TableName): Promise<PublishedPosition | undefined> {
    return this.#outbox.publishedPosition(database, table)
  }

  /** Stores where an epoch begins. From the call on, positions of earlier epochs are dropped, whatever the outcome is. */
  begin(table: TableName, position: StreamPosition): Promise<void> {
    this.#epochs.set(table, position.epoch)
    return this.#calls.run(() =>
      this.#outbox.confirmPublished({
        positions: [{ database: table.database, table: table.table, ...position, id: '' }],
      }),
    )
  }

  /** Stores the positions whose epoch is not over, and removes the transactions from the outbox. */
  confirm({ positions, ...rest }: PublishConfirmation): Promise<void> {
    return this.#calls.run(() => {
      const current = positions.filter((each) => (this.#epochs.get(each, unknown) ?? each.epoch) === each.epoch)
      return this.#outbox.confirmPublished({ ...rest, positions: current })
    })
  }
}

const unknown = () => undefined
