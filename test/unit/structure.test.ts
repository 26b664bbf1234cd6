// The structure of lib: no import cycles, types included; which folder may import which; limits on the length of files and functions.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const MAX_FILE_LINES = 400
const MAX_FUNCTION_LINES = 60

const lib = fileURLToPath(new URL('../../lib', import.meta.url))

/** Which folders of lib a folder may import from, beside itself. Files directly in lib are the entry points and the errors. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  util: ['errors'],
  host: ['util', 'errors'],
  observe: ['util', 'host'],
  manifest: ['util', 'errors', 'observe', 'host'],
  mesh: ['util', 'errors', 'observe', 'host', 'manifest'],
  events: ['util', 'errors', 'observe', 'host', 'manifest', 'mesh'],
  peers: ['util', 'errors', 'observe', 'host', 'manifest', 'mesh'],
  replication: ['util', 'errors', 'observe', 'host', 'manifest', 'mesh', 'events'],
  operations: ['util', 'errors', 'observe', 'host', 'manifest', 'mesh', 'peers'],
  cluster: ['util', 'errors', 'observe', 'host', 'manifest', 'mesh', 'events', 'peers', 'replication', 'operations'],
  'status-page': ['util', 'host', 'cluster', 'events', 'manifest', 'observe', 'replication'],
  cli: ['util', 'errors', 'cluster', 'manifest', 'mesh', 'status-page'],
  migrate: ['util', 'errors', 'observe', 'host', 'manifest', 'mesh', 'peers', 'replication'],
  'cluster-manager': ['*'],
  testing: ['*'],
  index: ['*'],
}

/** Only these folders may import that package. */
const packages: Readonly<Record<string, readonly string[]>> = {
  nats: ['mesh/nats'],
  yaml: ['manifest'],
  chokidar: ['manifest'],
  msgpackr: ['replication', 'peers'],
  eventemitter3: ['events'],
}

type SourceFile = { path: string; text: string; imports: string[]; packages: string[] }

async function sources(): Promise<SourceFile[]> {
  const names = (await readdir(lib, { recursive: true })).filter((name) => /\.(ts|mjs)$/.test(name)).sort()
  return Promise.all(
    names.map(async (path) => {
      const text = await readFile(join(lib, path), 'utf8')
      const specifiers = [...text.matchAll(/^(?:import|export)\s(?:[^'";]*?\sfrom\s)?'([^']+)'/gm)].map(
        ([, name]) => name!,
      )
      return {
        path,
        text,
        imports: specifiers
          .filter((name) => name.startsWith('.'))
          .map((name) => relative(lib, resolve(lib, dirname(path), name))),
        packages: specifiers.filter((name) => !name.startsWith('.') && !name.startsWith('node:')),
      }
    }),
  )
}

const folderOf = (path: string) => (path.includes('/') ? path.slice(0, path.indexOf('/')) : path.replace(/\.ts$/, ''))

/** Strongly connected components of more than one node, by Tarjan. */
function cycles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const order = new Map<string, number>()
  const lowest = new Map<string, number>()
  const stack: string[] = []
  const found: string[][] = []
  const visit = (node: string) => {
    order.set(node, order.size)
    lowest.set(node, order.get(node)!)
    stack.push(node)
    for (const next of graph.get(node) ?? []) {
      if (!order.has(next)) {
        visit(next)
        lowest.set(node, Math.min(lowest.get(node)!, lowest.get(next)!))
      } else if (stack.includes(next)) lowest.set(node, Math.min(lowest.get(node)!, order.get(next)!))
    }
    if (lowest.get(node) !== order.get(node)) return
    const component = stack.splice(stack.indexOf(node))
    if (component.length > 1) found.push(component.sort())
  }
  for (const node of graph.keys()) if (!order.has(node)) visit(node)
  return found
}

/** Functions and methods, with their lines: by the formatter's layout, in which a body ends at the indentation that it began with. */
function functions(text: string): { name: string; line: number; lines: number }[] {
  const lines = text.split('\n')
  const begins =
    /^(\s*)(?:(?:export|default|static|override|private|protected|readonly|async|get|set)\s+)*(?:function\*?\s+(\w+)|const\s+(\w+)\s*=.*|(\*?#?\w+)\s*(?:<.*>)?\(.*)/
  const found: { name: string; line: number; lines: number }[] = []
  for (const [index, line] of lines.entries()) {
    const match = begins.exec(line)
    if (!match || /^\s*(?:if|for|while|switch|catch|return|await|throw)\b/.test(line)) continue
    const indent = match[1]!
    // A signature may take several lines: its body begins where a line at this indentation ends with a brace.
    let start = index
    while (start < lines.length && !(lines[start]!.endsWith('{') && indentOf(lines[start]!) === indent.length)) {
      if (start > index && lines[start]!.trim() !== '' && indentOf(lines[start]!) <= indent.length) break
      start++
    }
    const opening = lines[start] ?? ''
    const isFunction = match[2] ?? match[4] ?? (/=>\s*\{$/.test(opening) ? match[3] : undefined)
    if (!isFunction || !opening.endsWith('{') || !/[)>\]\w}'|]\s*(?:=>\s*)?\{$/.test(opening)) continue
    const end = lines.findIndex(
      (each, at) => at > start && each.startsWith(`${indent}}`) && indentOf(each) === indent.length,
    )
    if (end > 0) found.push({ name: isFunction, line: index + 1, lines: end - index + 1 })
  }
  return found
}
const indentOf = (line: string) => line.length - line.trimStart().length

test('there are no import cycles, types included', async () => {
  const graph = new Map((await sources()).map(({ path, imports }) => [path, imports]))
  assert.deepEqual(cycles(graph), [])
})

test('folders have no import cycles, and import only what they may', async () => {
  const graph = new Map<string, Set<string>>()
  const wrong: string[] = []
  for (const { path, imports } of await sources()) {
    const from = folderOf(path)
    const allowed = mayImport[from]
    if (!allowed) wrong.push(`${path}: no rule for '${from}'`)
    for (const target of imports) {
      const to = folderOf(target)
      if (to === from) continue
      graph.set(from, (graph.get(from) ?? new Set()).add(to))
      if (allowed && !allowed.includes('*') && !allowed.includes(to)) wrong.push(`${path} imports ${target}`)
    }
  }
  assert.deepEqual(wrong, [])
  assert.deepEqual(cycles(new Map([...graph].map(([from, to]) => [from, [...to]]))), [])
})

test('each package is imported only where it belongs', async () => {
  const wrong = (await sources()).flatMap(({ path, packages: used }) =>
    used
      .filter((name) => packages[name] && !packages[name].some((folder) => path.startsWith(`${folder}/`)))
      .map((name) => `${path} imports ${name}`),
  )
  assert.deepEqual(wrong, [])
})

test('time and timers of the system are used in one module only, which fake timers of test runners do not reach', async () => {
  const globals =
    /(?<![.\w])(?:(?:set|clear)(?:Timeout|Interval|Immediate)|queueMicrotask|performance\.now|Date\.now|new Date\(\))/
  const wrong = (await sources())
    .filter(({ path }) => path !== 'util/timers.ts' && !path.startsWith('status-page/page/'))
    .flatMap(({ path, text }) => {
      const imported = [...text.matchAll(/^import \{([^}]*)\} from '[^']*\/timers\.ts'/gm)].map(([, names]) => names!)
      const code = text.replaceAll(/^\s*(?:\/\/|\/?\*).*$/gm, '').replaceAll(/^import .*$/gm, '')
      return [...code.matchAll(new RegExp(globals, 'g'))]
        .map(([name]) => name)
        .filter((name) => !imported.some((names) => names.split(',').some((each) => each.trim() === name)))
        .concat(/'node:timers(?:\/promises)?'/.test(text) ? ['node:timers'] : [])
        .map((name) => `${path} uses ${name}, which it must import from util/timers.ts`)
    })
  assert.deepEqual(wrong, [])
})

test(`no file has more than ${MAX_FILE_LINES} lines`, async () => {
  const long = (await sources())
    .map(({ path, text }) => ({ path, lines: text.trimEnd().split('\n').length }))
    .filter(({ lines }) => lines > MAX_FILE_LINES)
  assert.deepEqual(long, [])
})

test(`no function has more than ${MAX_FUNCTION_LINES} lines`, async () => {
  const long = (await sources()).flatMap(({ path, text }) =>
    functions(text)
      .filter(({ lines }) => lines > MAX_FUNCTION_LINES)
      .map(({ name, line, lines }) => `${path}:${line} ${name} has ${lines}`),
  )
  assert.deepEqual(long, [])
})
