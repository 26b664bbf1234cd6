// `npm run certificates -- --directory DIR NODE...`: creates a temporary authority and a certificate for each node, to try TLS. The
// key of the authority is not stored: to add nodes, create all certificates again.

import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { stringify } from 'yaml'
import { Authority } from './authority.ts'

const usage = 'npm run certificates -- --directory DIR [--names HOST,IP] NODE...'

function options() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { directory: { type: 'string' }, names: { type: 'string', default: '127.0.0.1,localhost' } },
    })
    if (values.directory && positionals.length > 0 && positionals.every((name) => /^[\w-]+$/.test(name)))
      return { directory: resolve(values.directory), nodes: positionals, names: values.names.split(',') }
  } catch {
    // An unknown option.
  }
  process.stderr.write(`Usage: ${usage}\n`)
  process.exit(2)
}

const { directory, nodes, names } = options()
const authority = await Authority.create()
for (const node of nodes) {
  const tls = await authority.issue(`${directory}/${node}`, node, { names })
  process.stdout.write(`# ${node}, valid for one day\n${stringify({ clustering: { tls } })}\n`)
}
