// The net that looks for secrets in what the suite writes: what it lets through, and what not.

import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { temporaryDirectory } from '../support/cluster.ts'
import { clusterPassword, containsSecret, leaksIn } from '../support/secrets.ts'

// Put together, so that this file does not tell it.
const KEY = ['-----BEGIN PRIVATE', 'KEY-----'].join(' ')
const route = `nats-route://u:${encodeURIComponent(clusterPassword)}@127.0.0.1`

test('a secret is found wherever others can read it, and the folder is not removed in silence', async () => {
  const [directory, remove] = await temporaryDirectory()
  const clustering = join(directory, 'clustering')
  await mkdir(clustering)
  const files: [name: string, text: string, mode: number][] = [
    ['clustering/hub.json', route, 0o600],
    ['clustering/leaf.json', route, 0o644],
    ['clustering/agreements.json', clusterPassword, 0o600],
    ['host.yaml', `users: [${clusterPassword}]\nclustering:\n  enabled: true\n`, 0o644],
    ['told.yaml', `clustering:\n  password: ${clusterPassword}\n`, 0o600],
    ['log', `dialling ${route}`, 0o600],
    ['key.pem', KEY, 0o644],
    ['copy', KEY, 0o644],
    ['harmless', 'nothing', 0o644],
  ]
  for (const [name, text, mode] of files) await writeFile(join(directory, name), text, { mode })
  const leaks = ['clustering/agreements.json', 'clustering/leaf.json', 'copy', 'log', 'told.yaml']
  assert.deepEqual((await leaksIn(directory)).sort(), leaks)
  await assert.rejects(remove(), /secrets were written to /)
  assert.deepEqual(
    [containsSecret(`x ${clusterPassword}`), containsSecret(route), containsSecret('x')],
    [true, true, false],
  )
})
