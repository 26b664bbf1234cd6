// A process that commits to configuration files in a loop (`--setParts`: through a manager) until it is killed. A commit depends
// only on its number, so the number of commits determines the manifest and every byte of the file.

import { writeSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { addRoutes, type Manifest, removeRoutes, setSubscriptions } from '../../lib/manifest/manifest.ts'
import { ManifestStore } from '../../lib/manifest/store.ts'

/** The text before the section, which must stay byte for byte. */
export const head = `# The database of the farm. "Quotes", 'quotes', tabs\tand  blanks.

http: {port: 9926,   cors: [ 'a', "b" ]}   # not pretty, and ours to keep

defaults: &defaults   # an anchor
  timeout:   30_000
  big: 12345678901234567890
  text: >-
    folded
    text

storage:
    engine: &engine lmdb
    copies: [*engine, *engine]
    defaults: *defaults
`

/** The text after it. */
export const tail = `
# The last section.
logging:
- {level: warn,  file: 'x.log'}   # a list that is not indented
- level: info
  file: *engine
# The end, and no line feed behind it.`

/** Comments in the section on entries that are never removed. */
export const commentsOfOurs = ['# ours', '# the office', '# other hubs', '# the neighbour', '# dogs']

/** The initial text; it has number 1. */
export const initialText = `${head}clustering:            # ours
  enabled: false
  nodeName: node1
  hubServer:
    cluster:
      network:
        port: 9932
        routes:
          # the office
          - { host: office, port: 9932 }
  leafServer:
    network:
      # other hubs
      routes:
        - host: fixed
          port: 7
        - host: count
          port: 1
  nodes:
    # the neighbour
    - name: node2
      subscriptions:
        - { database: dev, table: dog, publish: true, subscribe: true }   # dogs
        - { database: dev, table: cat, publish: true, subscribe: true }
${tail}`

/** The commit from manifest `number - 1` to manifest `number`, with changes of all kinds. */
export const commitOf =
  (number: number) =>
  (manifest: Manifest): Manifest => {
    const counted = removeRoutes(manifest, [
      { host: 'count', port: number - 1 },
      { host: `hub${number - 4}`, port: number - 4 },
    ]).manifest
    const counting = addRoutes(counted, 'leaf', [{ host: 'count', port: number }]).manifest
    const routed = addRoutes(counting, 'hub', [{ host: `hub${number}`, port: number }]).manifest
    const dog = { database: 'dev', table: 'dog', publish: number % 2 === 0, subscribe: true }
    const other = { database: 'dev', table: `table${number % 5}`, publish: true, subscribe: number % 3 === 0 }
    const fixed = setSubscriptions(routed, 'node2', [dog])
    return setSubscriptions(fixed, `other${number % 3}`, [other], { replace: true })
  }

/** The number of the last commit of a manifest. */
export const numberOf = ({ routes }: Manifest): number => routes.leaf.find(({ host }) => host === 'count')?.port ?? 0

/** One line for every acknowledged commit: file, number. */
async function commitForever(path: string, file: number): Promise<void> {
  const store = await ManifestStore.open(path)
  for (let number = numberOf(store.manifest); ; number++) {
    writeSync(1, `${file} ${number}\n`)
    await store.commit(commitOf(number + 1), 'api')
  }
}

/** The same through a manager, which holds the lock on the file: adds and removes routes. */
async function holdForever(configFile: string): Promise<void> {
  const [{ ClusterManager }, { MemoryHost }] = await Promise.all([
    import('../../lib/cluster-manager.ts'),
    import('./memory-host.ts'),
  ])
  const cluster = await ClusterManager.open({ configFile, host: new MemoryHost() })
  for (let number = 1; ; number++) {
    writeSync(1, `0 ${number}\n`)
    const routes = [{ host: 'held', port: number }]
    await cluster.setRoutes({ server: 'hub', routes })
    await cluster.deleteRoutes({ routes })
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [first = '', ...others] = process.argv.slice(2)
  await (first === '--hold' ? holdForever(others[0]!) : Promise.all([first, ...others].map(commitForever)))
}
