// A host that esbuild has bundled into one ES module runs, with the line that lib/host/README.md names.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { temporaryDirectory } from './store-fixture.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
// esbuild is a dependency of tsx, not a direct one.
const require = createRequire(createRequire(import.meta.url).resolve('tsx/package.json'))
type Bundling = { bundle: true; platform: 'node'; format: 'esm'; banner: { js: string }; outfile: string }
type Source = { contents: string; resolveDir: string; loader: 'ts' }
const { build } = require('esbuild') as { build(options: Bundling & { stdin: Source }): Promise<unknown> }

const host = `
  import { MemoryNetwork, startCluster } from './lib/testing.ts'
  const tables = [{ database: 'dev', table: 'dog' }]
  const cluster = await startCluster(2, { network: new MemoryNetwork(), tables })
  await cluster.nodes[0].host.insert('dev', 'dog', { id: 1, name: 'Rex' })
  await cluster.converged()
  console.log(JSON.stringify(cluster.nodes[1].host.get('dev', 'dog', 1)))
  await cluster.close()
`

test('a bundled host replicates', async (t) => {
  const readme = await readFile(join(root, 'lib', 'host', 'README.md'), 'utf8')
  const [, banner] = /^ +banner: \{ js: "(.*)" \},$/m.exec(readme) ?? assert.fail('the README names no banner')
  const outfile = join(await temporaryDirectory(t), 'host.mjs')
  const stdin = { contents: host, resolveDir: root, loader: 'ts' } as const
  await build({ stdin, bundle: true, platform: 'node', format: 'esm', banner: { js: banner! }, outfile })
  const { stdout } = await promisify(execFile)(process.execPath, [outfile])
  assert.deepEqual(JSON.parse(stdout), { id: 1, name: 'Rex' })
})
