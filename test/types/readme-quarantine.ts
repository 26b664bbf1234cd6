// The README's example of the quarantine, so that `npm run check` compiles it; a unit test compares the texts.

cluster.quarantine.list() // [{ source, epoch, index, count, sequence, reason, cause, id?, timestamp?, origin?, storedAt, quarantinedAt, bytes }]
await cluster.quarantine.add(source) // quarantines the transaction that the database refuses now
await cluster.quarantine.replay(source) // applies what is valid by now: { applied: [index], voided: [index], kept: [index] }
await cluster.quarantine.discard(source, [7]) // deletes what has this index

export type {}
