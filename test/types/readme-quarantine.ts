// The README's example of the quarantine, so that `npm run check` compiles it; a unit test compares the texts.

cluster.quarantine.list() // [{ source, epoch, sequence, reason, id?, storedAt, quarantinedAt, bytes }]
await cluster.quarantine.replay(source) // what can be taken by now: { applied: [sequence], kept: [sequence] }
await cluster.quarantine.discard(source, [7]) // these are given up

export type {}
