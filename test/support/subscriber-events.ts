// The events of subscribers, for tests of replication without a manager.

import type { SubscriberEvents } from '../../lib/replication/subscribe/subscription-status.ts'

/** Events that nothing listens to, but those given. */
export const subscriberEvents = (listeners: Partial<SubscriberEvents> = {}): SubscriberEvents => ({
  state() {},
  applied() {},
  gap() {},
  stale() {},
  stalled() {},
  quarantined() {},
  refusedOld() {},
  copyBegan() {},
  copied() {},
  copyProgress: () => () => {},
  ...listeners,
})
