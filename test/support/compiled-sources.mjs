// For `--import`: loads the sources as `compileAll` has compiled them into the directory TEST_PROGRAMS. The modules keep the addresses
// of the sources. A loader that compiles each source when it is loaded takes 0.4 s longer in every process.

import { readFileSync } from 'node:fs'
import * as nodeModule from 'node:module'
import { pathToFileURL } from 'node:url'
import { isMainThread } from 'node:worker_threads'

const root = new URL('../../', import.meta.url).href
const compiled = pathToFileURL(`${process.env.TEST_PROGRAMS}/`).href

const isSource = (url) => url.endsWith('.ts') && (url.startsWith(`${root}lib/`) || url.startsWith(`${root}test/`))

/** Compiled modules import each other as `.js`. */
export function resolve(specifier, context, next) {
  const isCompiled = specifier.startsWith('.') && specifier.endsWith('.js') && isSource(context.parentURL ?? '')
  if (!isCompiled) return next(specifier, context)
  return { url: new URL(specifier.replace(/js$/, 'ts'), context.parentURL).href, format: 'module', shortCircuit: true }
}

export function load(url, context, next) {
  if (!isSource(url)) return next(url, context)
  const program = new URL(url.slice(root.length).replace(/ts$/, 'js'), compiled)
  // The address of the source map is relative to the compiled file. Node takes only a path for a file.
  const source = readFileSync(program, 'utf8').replace(/(?<=\n\/\/# sourceMappingURL=).*$/, `${program.pathname}.map`)
  return { format: 'module', source, shortCircuit: true }
}

process.setSourceMapsEnabled(true)
// Before Node 22.15, hooks run in a thread, which loads this module too.
if (nodeModule.registerHooks) nodeModule.registerHooks({ resolve, load })
else if (isMainThread) nodeModule.register(import.meta.url)
