// What an operator does about each condition of health, in a sentence or two.

import type { HealthCode } from '../observe/health.ts'

/** For people who see the condition for the first time; lib/observe/README.md has the same with links. */
export const advice: Readonly<Record<HealthCode, string>> = {
  not_open: 'Wait until the database has started, or read its log if it has ended.',
  superseded: 'Another process uses this node name. End one of them.',
  mesh_disconnected:
    'Transactions wait in the outbox. If this lasts longer than some seconds, read the log and check the disk of the leaf server.',
  isolated: 'Check the network and the routes of this node. It accepts writes, and sends them later.',
  hub_failed: 'The port of the hub server is probably in use by another process. Free it, or change the configuration.',
  no_route_linked: 'Check the addresses of the routes, the certificates and the firewalls.',
  peer_down: 'Check that node and the network to it. It reads what it missed when it is back.',
  subscription_refused:
    'Correct the reason on the remote node. The subscription is requested again until it is accepted.',
  subscription_pending:
    'This table cannot be read from the other node, for the reason above. If the reason is not in this node, check that node and read its log.',
  subscription_stalled:
    'Correct what the database refuses. To set the refused transaction aside and continue, call cluster.quarantine.add().',
  subscription_stale: 'Replace the table by a copy: cluster.copy(source, { replace: true }).',
  gap_not_repaired:
    'With the option repair, wait for the copy of the rows. Otherwise start one: cluster.copy(source). A node of HarperDB serves no rows: remove the subscription, and add it again with a start_time.',
  quarantined:
    'Read the reason of each message. Apply them again with cluster.quarantine.replay(source), or delete them with cluster.quarantine.discard(source).',
  clock_ahead: 'Correct the clock of this node, then call cluster.restamp().',
  disk_low: 'Make room on the disk that holds the streams.',
  certificate_expires: 'Replace the certificate. The new files are used without a restart.',
  server_exposed: 'Upgrade nats-server: this version has a known security hole.',
}
