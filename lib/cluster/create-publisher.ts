// The publisher as the options of the manager want it.

import { Publisher, type PublisherOptions } from '../replication/publish/publisher.ts'
import type { Foundation } from './foundation.ts'
import type { CheckedOptions } from './options.ts'

export function createPublisher(
  options: CheckedOptions,
  { mesh, unrecorded }: Pick<Foundation, 'mesh' | 'unrecorded'>,
  parts: Pick<PublisherOptions, 'node' | 'singleMessages' | 'diverged'>,
): Publisher {
  const { host, logger, requestTimeout, publishWindow, publishTimeout, maxInFlight, maxInFlightBytes } = options
  return new Publisher({
    ...parts,
    mesh,
    unrecorded,
    host,
    logger,
    window: publishWindow,
    maxInFlight,
    maxInFlightBytes,
    timeout: publishTimeout,
    requestTimeout,
  })
}
