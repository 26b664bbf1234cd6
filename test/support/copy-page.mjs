// Copies the files of the status page that the compiler does not copy beside its compiled code. Usage: copy-page.mjs lib dist

import { copyFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const [source, target] = process.argv.slice(2).map((root) => join(root, 'status-page', 'page'))
for (const name of readdirSync(source))
  if (/\.(html|css|svg)$/.test(name)) copyFileSync(join(source, name), join(target, name))
