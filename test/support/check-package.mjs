// Checks the packed package as its users get it: how it loads, its dependencies and its size. Requires a built dist/. Prints one line for
// each fault and exits with 1 when there is one.

import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { homedir, tmpdir } from 'node:os'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'

// Raise a bound only for intended growth: the last time for the status page, the command and the migration.
const bounds = {
  'packed bytes': 1_900_000,
  'unpacked bytes': 7_500_000,
  files: 2_300,
  dependencies: 9,
  'packages installed': 27,
  // msgpackr-extract is optional: msgpackr works without it.
  'packages with install scripts': 1,
  'bytes to bundle compareTimestamps': 210,
}
/** ms */
const patience = 6_000

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const require = createRequire(import.meta.url)
const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'))

// The same fault of several files is one line, with a few examples.
const faults = new Map()
const fault = (text, ...examples) => faults.set(text, [...(faults.get(text) ?? []), ...examples])
const firstLine = (text) => text.trim().split('\n', 1)[0]

const folder = mkdtempSync(join(tmpdir(), 'enmesh-package-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1))

// All else waits for nothing, and no signal is heard before something does.
const moment = () => new Promise((resolve) => setImmediate(resolve))

const installed = join(folder, 'node_modules', 'enmesh')

/** Packs without building and installs the package with only its own dependencies, so that no other module can be imported. */
function install() {
  mkdirSync(installed, { recursive: true })
  run(
    'npm',
    ['pack', '--ignore-scripts', '--loglevel', 'error', '--no-update-notifier', '--pack-destination', folder],
    root,
  )
  const tarball = join(
    folder,
    readdirSync(folder).find((name) => name.endsWith('.tgz')),
  )
  run('tar', ['-xzf', tarball, '-C', installed, '--strip-components', '1'], folder)
  const description = readJson(join(installed, 'package.json'))
  for (const name of Object.keys(description.dependencies)) {
    const link = join(folder, 'node_modules', name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(root, 'node_modules', name), link, 'junction')
  }
  return { description, packed: statSync(tarball).size }
}

function run(command, args, cwd) {
  const { status, error, stderr, stdout } = spawnSync(command, args, { cwd, encoding: 'utf8', timeout: patience })
  if (status === 0) return
  console.error(`package: ${command} ${args[0]} failed: ${error?.message ?? (stderr.trim() || stdout.trim())}`)
  process.exit(1)
}

/** Runs `probe` in a new Node process in the directory, without flags. It answers by `tell`, independent of other output. */
function inNode(probe, ...args) {
  const { NODE_OPTIONS: _options, NODE_PATH: _path, ...env } = process.env
  const tell = `(answer) => require('node:fs').writeSync(3, JSON.stringify(answer))`
  const script = `(${probe})(${[tell, ...args.map((arg) => JSON.stringify(arg))].join(', ')})`
  const child = spawnSync(process.execPath, ['--input-type=commonjs', '--eval', script], {
    cwd: folder,
    env,
    encoding: 'utf8',
    timeout: patience,
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  })
  const answer = child.output?.[3]
  return { ...child, late: child.error?.code === 'ETIMEDOUT', answer: answer ? JSON.parse(answer) : undefined }
}

// In these two functions, `require` is that of the child. It comes first, because a loaded module hides errors of `require`.
async function loadBothWays(tell, name) {
  const answer = { faults: [] }
  const attempt = async (way, load) => {
    try {
      return await load()
    } catch (error) {
      answer.faults.push(`${way}('${name}') fails: ${error.message}`)
    }
  }
  const required = await attempt('require', () => require(name))
  const imported = await attempt('import', () => import(name))
  if (required && imported) {
    const [left, right] = [required, imported].map((module) => Object.keys(module).sort())
    answer.names = right
    if (left.join() !== right.join()) answer.faults.push(`require('${name}') has ${left}; import has ${right}`)
    const others = right.filter((key) => key in required && required[key] !== imported[key])
    if (others.length) answer.faults.push(`by require of '${name}' these are others than by import: ${others}`)
  }
  tell(answer)
  // The other probe finds what keeps a process alive.
  process.exit()
}

async function importOnly(tell, name) {
  const look = () => ({
    'the global': Reflect.ownKeys(globalThis).map(String),
    'a listener of process for': process.eventNames().map(String),
    'the variable': Object.keys(process.env),
    'an open': process.getActiveResourcesInfo(),
  })
  // node:assert inspects the terminal when it is loaded.
  if (name.endsWith('/testing')) await import('node:assert')
  const before = look()
  await import(name)
  // The loader itself may have a file open for a moment.
  const deadline = performance.now() + 1_000
  let left = []
  do {
    await new Promise((resolve) => setImmediate(resolve))
    left = Object.entries(look()).flatMap(([what, now]) =>
      now.filter((one) => !before[what].includes(one)).map((one) => `${what} ${one}`),
    )
  } while (left.length && performance.now() < deadline)
  tell({ left })
}

async function checkLoading(names) {
  for (const name of names) {
    await moment()
    const both = inNode(loadBothWays, name)
    for (const text of both.answer?.faults ?? []) fault(firstLine(text))
    if (!both.answer) fault(`a process that loads '${name}' by require and import exits before loading`)
    else if (name === 'enmesh' && both.answer.names && !both.answer.names.includes('ClusterManager'))
      fault(`'${name}' does not export ClusterManager, only: ${both.answer.names}`)

    const alone = inNode(importOnly, name)
    const printed = `${alone.stdout}${alone.stderr}`
    const left = alone.answer?.left ?? []
    if (printed && alone.answer) fault(`importing '${name}' prints: ${firstLine(printed)}`)
    if (left.length) fault(`importing '${name}' leaves open handles: ${left.join(', ')}`)
    if (alone.late) fault(`a process that only imports '${name}' is still running after ${patience / 1000} s`)
    else if (alone.status !== 0 || !alone.answer)
      fault(`a process that only imports '${name}' exits with ${alone.signal ?? alone.status} before loading`)
  }
}

/** As npm links it: the command starts, finds its own files, and its exit code says what it found. */
function checkCommand({ bin }) {
  for (const [name, path] of Object.entries(bin)) {
    const file = join(folder, 'config.yaml')
    writeFileSync(file, 'clustering:\n  enabled: true\n')
    const runCommand = (...args) =>
      spawnSync(process.execPath, [join(installed, path), ...args], {
        cwd: folder,
        encoding: 'utf8',
        timeout: patience,
      })
    const version = runCommand('--version')
    const check = runCommand('check', file)
    if (version.status !== 0) fault(`'${name} --version' fails: ${firstLine(version.stderr)}`)
    if (check.status !== 1 || !check.stdout.includes('nodeName is missing'))
      fault(`'${name} check' of an invalid file exits with ${check.status}: ${firstLine(check.stderr || check.stdout)}`)
  }
}

/** The files of the status page that are not compiled are copied. */
function checkPage(files) {
  for (const name of readdirSync(join(root, 'lib', 'status-page', 'page')))
    if (name !== 'tsconfig.json' && !files.has(`dist/status-page/page/${name}`))
      fault('the package lacks a file of the status page', name)
}

/** Importing one small function must not bundle the whole library, nor a dependency. */
function checkBundle() {
  // esbuild is a dependency of tsx, not a direct one.
  const { buildSync } = createRequire(require.resolve('tsx/package.json'))('esbuild')
  const contents = `import { compareTimestamps } from 'enmesh'; console.log(compareTimestamps)`
  const options = { bundle: true, minify: true, format: 'esm', platform: 'node', packages: 'bundle' }
  let built
  try {
    const stdin = { contents, resolveDir: folder }
    built = buildSync({ ...options, stdin, absWorkingDir: folder, write: false, metafile: true, logLevel: 'silent' })
  } catch (error) {
    fault(`bundling compareTimestamps fails: ${error.errors?.[0]?.text ?? firstLine(error.message)}`)
    return 0
  }
  const [output] = Object.values(built.metafile.outputs)
  const held = Object.entries(output.inputs)
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .sort(([, a], [, b]) => b.bytesInOutput - a.bytesInOutput)
  const foreign = new Map()
  for (const [file, { bytesInOutput }] of held) {
    const name = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1]
    if (name && name !== 'enmesh') foreign.set(name, (foreign.get(name) ?? 0) + bytesInOutput)
  }
  for (const [name, bytes] of foreign)
    fault('a bundle of compareTimestamps contains code of', `${name} (${bytes} bytes)`)
  if (output.bytes > bounds['bytes to bundle compareTimestamps']) {
    for (const [file, { bytesInOutput }] of held)
      fault(
        'a bundle of compareTimestamps is too large because of',
        `${file.replace(/.*node_modules\//, '')} (${bytesInOutput} bytes)`,
      )
  }
  return output.bytes
}

function checkScripts({ scripts = {} }) {
  for (const name of ['preinstall', 'install', 'postinstall', 'prepare'])
    if (scripts[name]) fault(`package.json runs '${scripts[name]}' as ${name} on installation`)
}

const isAllowed = (file) =>
  ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md'].includes(file) ||
  /^dist\/.+\.(m?js|d\.m?ts)(\.map)?$/.test(file) ||
  /^dist\/status-page\/page\/[\w-]+\.(html|css|svg)$/.test(file) ||
  // Sources for the source maps, and the documents that README.md links to.
  /^lib\/.+\.(ts|mjs|md|png)$/.test(file)

function checkFiles(files, description) {
  const slashes = (text) => text.replace(/\\+/g, '/')
  const literally = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  // Only at the beginning of a path: /proc/1/root does not contain a home of /root.
  const localPaths = [root, homedir()]
    .filter((path) => dirname(path) !== path)
    .map((path) => new RegExp(`(?<![\\w.}-])${literally(slashes(path))}(?![\\w.$-])`))

  for (const [file, content] of files) {
    if (!isAllowed(file)) fault('the tarball contains a file that does not belong to the package', file)
    const text = slashes(content)
    for (const path of localPaths) {
      const at = text.search(path)
      if (at >= 0) fault('a path of this machine occurs in', `${file} (${firstLine(text.slice(at, at + 60))})`)
    }
    const map = /^\/\/# sourceMappingURL=(.+)$/m.exec(content)?.[1]
    if (map && /\.(m?js|d\.m?ts)$/.test(file) && !files.has(posix.join(posix.dirname(file), map)))
      fault('a referenced source map is missing in the package', `${map} of ${file}`)
    if (file.endsWith('.map')) checkMap(file, JSON.parse(content), files)
  }

  for (const [name, target] of Object.entries(description.exports)) {
    if (typeof target === 'object' && !target.types) fault(`exports has no types for '${name}'`)
    for (const path of targetsOf(target))
      if (!files.has(posix.normalize(path)))
        fault(`exports names ${path} for '${name}', which is missing in the package`)
  }
}

const targetsOf = (target) => (typeof target === 'string' ? [target] : Object.values(target).flatMap(targetsOf))

// Also finds leftovers in dist/ of files that were deleted from lib/.
function checkMap(file, { sources, sourcesContent, sourceRoot = '' }, files) {
  sources.forEach((source, index) => {
    const path = posix.join(posix.dirname(file), sourceRoot, source)
    if (!files.has(path) && typeof sourcesContent?.[index] !== 'string')
      fault('a source map points to a file that is missing in the package', `${file} at ${path}`)
  })
}

function readFiles() {
  const names = readdirSync(installed, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name))
  return new Map(
    names.map((name) => [name.slice(installed.length + 1).replaceAll('\\', '/'), readFileSync(name, 'utf8')]),
  )
}

function checkBounds(measured) {
  for (const [what, value] of Object.entries(measured))
    if (value > bounds[what]) fault(`${what}: ${value}, more than the allowed ${bounds[what]}`)
  const parts = Object.entries(measured).map(([what, value]) => `${what} ${value} (at most ${bounds[what]})`)
  console.log(`package: ${parts.join(', ')}`)
}

if (!existsSync(join(root, 'dist'))) {
  console.error('package: dist/ is missing. Run: npm run build')
  process.exit(1)
}
const { description, packed } = install()
const files = readFiles()
checkFiles(files, description)
checkScripts(description)
checkCommand(description)
checkPage(files)
await checkLoading(
  Object.keys(description.exports)
    .filter((name) => name !== './package.json')
    .map((name) => posix.join('enmesh', name)),
)
await moment()
const bundled = checkBundle()
const brought = Object.entries(readJson(join(root, 'package-lock.json')).packages).filter(([at, one]) => at && !one.dev)
checkBounds({
  'packed bytes': packed,
  'unpacked bytes': [...files.values()].reduce((sum, content) => sum + Buffer.byteLength(content), 0),
  files: files.size,
  dependencies: Object.keys(description.dependencies).length,
  'packages installed': brought.length,
  'packages with install scripts': brought.filter(([, one]) => one.hasInstallScript).length,
  'bytes to bundle compareTimestamps': bundled,
})
for (const [text, examples] of faults) {
  const more = examples.length > 3 ? [`and ${examples.length - 3} more`] : []
  console.error(`package: ${text}${examples.length ? ': ' : ''}${[...examples.slice(0, 3), ...more].join(', ')}`)
}
process.exitCode = faults.size ? 1 : 0
