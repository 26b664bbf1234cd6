// Edits of cached lines have the same result as edits of the completely parsed text.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { editConfig } from '../../lib/manifest/config-edit.ts'
import { ConfigText } from '../../lib/manifest/config-text.ts'
import { diff } from '../../lib/manifest/diff.ts'
import {
  addRoutes,
  type Manifest,
  removeNode,
  removeRoutes,
  replaceNodes,
  setSubscriptions,
  share,
} from '../../lib/manifest/manifest.ts'
import { randomNumbers, seedOf } from '../support/random.ts'

const names = Array.from({ length: 8 }, (_, index) => `n${index}`)
const start = `# the host's
http: { port: 9926 } # its port
clustering:
  enabled: false
  nodeName: me
  hubServer:
    cluster:
      network:
        routes:
          # above the routes
${names.map((name) => `          # above ${name}\n          - { host: ${name}, port: 1 } # beside ${name}\n`).join('')}
  # between
  leafServer:
    network:
      routes: null
  nodes:
${names
  .map(
    (name) => `    # above ${name}
    - name: ${name} # beside ${name}
      subscriptions:
        - { database: dev, table: dog, publish: true, subscribe: true } # dog of ${name}
        # the cat of ${name}
        - { database: dev, table: cat, publish: true, subscribe: false }
      note: kept of ${name}
`,
  )
  .join('')}# the end
last: [1, 2]
`
/** The text beside the items of that name. */
const remarks = (text: string, name: string) =>
  text
    .split('\n')
    .filter((line) => line.includes(`${name}`))
    .sort()

describe('cached lines', () => {
  it('equal the parsed text, and keep unchanged lines', () => {
    const seed = seedOf()
    console.log(`seed ${seed}`)
    const random = randomNumbers(seed)
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
    for (let round = 0; round < 40; round++) {
      let config = new ConfigText(start)
      assert.deepEqual(config.problems, [])
      const touched = new Set<string>()
      for (let step = 0; step < 12; step++) {
        const name = pick([...names, 'new1', 'new2'])
        const flag = random() < 0.5
        touched.add(name)
        const change = pick<(manifest: Manifest) => Manifest>([
          (manifest) => addRoutes(manifest, 'hub', [{ host: name, port: flag ? 1 : 2 }]).manifest,
          (manifest) => addRoutes(manifest, 'leaf', [{ host: name, port: 3 }]).manifest,
          (manifest) => removeRoutes(manifest, [{ host: name, port: flag ? 1 : 3 }]).manifest,
          (manifest) => removeNode(manifest, name),
          (manifest) =>
            setSubscriptions(
              manifest,
              name,
              [{ database: 'dev', table: pick(['dog', 'cat', 'cow']), publish: flag, subscribe: true }],
              {
                replace: random() < 0.3,
              },
            ),
          (manifest) => replaceNodes(manifest, manifest.nodes.toReversed()),
        ])
        const { manifest } = config.config!
        const current = share(manifest, change(manifest))
        const edited = editConfig(config, diff(manifest, current))
        const read = new ConfigText(edited.onDisk)
        assert.deepEqual(read.problems, [], edited.onDisk)
        assert.deepEqual(edited.config!.manifest, current)
        assert.deepEqual(read.config, edited.config, edited.onDisk)
        config = edited
      }
      for (const name of names)
        if (!touched.has(name)) assert.deepEqual(remarks(config.text, name), remarks(start, name), config.text)
      for (const line of [
        "# the host's\nhttp: { port: 9926 } # its port\n",
        '# the end\nlast: [1, 2]\n',
        '# between\n',
      ])
        assert.ok(config.text.includes(line), line)
    }
  })

  it('are not parsed again', () => {
    const commit = (text: ConfigText, host: string) => {
      const { manifest } = text.config!
      return editConfig(text, diff(manifest, addRoutes(manifest, 'hub', [{ host, port: 9 }]).manifest))
    }
    const once = commit(new ConfigText(start), 'one')
    const twice = commit(once, 'two')
    assert.equal(twice.config!.manifest.nodes, once.config!.manifest.nodes)
    assert.equal(twice.config!.manifest.routes.hub[0], once.config!.manifest.routes.hub[0])
    assert.equal(twice.blocks!.nodes!.chunks, once.blocks!.nodes!.chunks)
  })

  it('are not used for files with anchors', () => {
    const tied = start.replace('http: { port: 9926 }', 'http: &http { port: 9926 }\nmore: *http')
    const config = new ConfigText(tied)
    const { manifest } = config.config!
    const edited = editConfig(config, diff(manifest, removeNode(manifest, 'n3')))
    assert.equal(edited.blocks, undefined)
    assert.equal(edited.config!.manifest.nodes.length, names.length - 1)
  })
})
