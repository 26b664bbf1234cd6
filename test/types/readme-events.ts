// The README's example of events, so that `npm run check` compiles it; a unit test compares the texts.

const { signal } = stopping
cluster.events.on('node:added', ({ node }) => console.log(node.name), { signal })
await cluster.events.once('peer:up', { signal, where: ({ node }) => node === 'node2' })
for await (const { source, from, to, reason } of cluster.events.iterate('replication:gap', { signal }))
  console.log(`${source.table}: ${from} to ${to} are ${reason}`) // none is lost meanwhile; ends when the manager is closed

export type {}
