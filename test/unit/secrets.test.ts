// The check for secrets in the files and output of the suite: what it finds and what it ignores.

import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { temporaryDirectory } from '../support/cluster.ts'
import { clusterPassword, containsSecret, leaksIn } from '../support/secrets.ts'

// Concatenated, so that the check does not find it in this file.
const KEY = ['-----BEGIN PRIVATE', 'KEY-----'].join(' ')
const route = `nats-route://u:${encodeURIComponent(clusterPassword)}@127.0.0.1`

test('a readable secret is found, and removing its directory rejects', async () => {
  const [directory, remove] = await temporaryDirectory()
  const clustering = join(directory, 'clustering')
  await mkdir(clustering)
  const files: [name: string, text: string, mode: number][] = [
    ['clustering/hub.json', route, 0o600],
    ['clustering/leaf.json', route, 0o644],
    ['clustering/revisions.json', clusterPassword, 0o600],
    ['host.yaml', `users: [${clusterPassword}]\nclustering:\n  enabled: true\n`, 0o644],
    ['password.yaml', `clustering:\n  password: ${clusterPassword}\n`, 0o600],
    ['log', `dialling ${route}`, 0o600],
    ['key.pem', KEY, 0o644],
    ['copy', KEY, 0o644],
    ['harmless', 'nothing', 0o644],
  ]
  for (const [name, text, mode] of files) await writeFile(join(directory, name), text, { mode })
  const leaks = ['clustering/leaf.json', 'clustering/revisions.json', 'copy', 'log', 'password.yaml']
  assert.deepEqual((await leaksIn(directory)).sort(), leaks)
  await assert.rejects(remove(), /secrets were written to /)
  assert.deepEqual(
    [containsSecret(`x ${clusterPassword}`), containsSecret(route), containsSecret('x')],
    [true, true, false],
  )
})
