// Copies the static files of the status page beside its compiled code, which the compiler does not. Usage: copy-page.mjs lib dist

import { cpSync } from 'node:fs'
import { join } from 'node:path'

const [from, to] = process.argv.slice(2)
cpSync(join(from, 'status-page', 'page'), join(to, 'status-page', 'page'), {
  recursive: true,
  filter: (path) => !path.endsWith('tsconfig.json'),
})
