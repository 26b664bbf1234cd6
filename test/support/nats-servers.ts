// Fetches further versions of nats-server from Debian's packages into a cache directory.

import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/** `name`: directory in the cache. `suite`: Debian suite with this version. */
export type NatsRelease = { name: string; suite: string }
export type NatsBinary = NatsRelease & { path: string; version: string }

export const natsReleases: readonly NatsRelease[] = [
  { name: '2.10', suite: 'trixie' },
  { name: 'newest', suite: 'sid' },
]

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
/** Allows two package lists of about 10 MB each over a slow line. */
const APT_TIMEOUT_MS = 300_000
const MAX_MIRRORS = 3

const root = fileURLToPath(new URL('../../', import.meta.url))
export const cacheDirectory = join(
  process.env.ENMESH_CACHE || join(root, 'node_modules', '.cache', 'enmesh'),
  'nats-server',
)

/** Path of this release's binary in the cache. */
export const cachePath = ({ name }: NatsRelease) => join(cacheDirectory, name, 'nats-server')
const isExecutable = (path: string) =>
  access(path, constants.X_OK).then(
    () => true,
    () => false,
  )

type Failure = Error & { code?: string | number | null; killed?: boolean; stderr?: string; stdout?: string }
const run = promisify(execFile)

/** Resolves with the command's output. Rejects with its last error lines. */
async function output(command: string, args: readonly string[], options: { cwd?: string; env?: object } = {}) {
  const env = { ...process.env, LC_ALL: 'C', ...options.env }
  try {
    return (await run(command, args, { ...options, env, timeout: APT_TIMEOUT_MS, maxBuffer: 64 * 2 ** 20 })).stdout
  } catch (error) {
    const { code, killed, stderr, message } = error as Failure
    if (code === 'ENOENT') throw new Error(`${command} is not installed`)
    if (killed) throw new Error(`${command} took longer than ${APT_TIMEOUT_MS / 1_000} s`)
    throw new Error(stderr?.trim().split('\n').slice(-5).join('\n') || message)
  }
}

async function versionOf(path: string): Promise<string> {
  const text = await output(path, ['--version'])
  const version = /v?(\d+\.\d+\.\d+\S*)/.exec(text)?.[1]
  if (version === undefined) throw new Error(`'${path} --version' printed '${text.trim()}'`)
  return version
}

/** Addresses of Debian's main archive in this machine's own sources; that of another publisher fails the signature check. */
async function mirrors(): Promise<string[]> {
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '')
  const field = (name: string) => new RegExp(`^${name}="?([^"\n]*)"?$`, 'm').exec(release)?.[1]
  if (field('ID') !== 'debian') throw new Error(`this system is not Debian (ID=${field('ID')} in /etc/os-release)`)
  if (!(await isReadable(KEYRING))) throw new Error(`${KEYRING} is missing (package debian-archive-keyring)`)
  const suites = [field('VERSION_CODENAME'), 'stable', 'testing', 'unstable', 'sid']
  const targets = await output('apt-get', [
    'indextargets',
    '--format',
    '$(REPO_URI) $(RELEASE)',
    'Created-By: Packages',
  ])
  const found = targets.split('\n').map((line) => line.split(' '))
  const addresses = found.filter(([, suite]) => suites.includes(suite)).map(([address]) => address!)
  if (addresses.length === 0) throw new Error(`apt has no source for Debian ${suites[0]}`)
  return [...new Set(addresses)].slice(0, MAX_MIRRORS)
}

const isReadable = (path: string) =>
  access(path, constants.R_OK).then(
    () => true,
    () => false,
  )

/** Configuration by which apt writes only below `directory` and reads only the sources there. Proxies of the machine are kept. */
function aptConfiguration(directory: string): string {
  const settings = {
    'Dir::State': join(directory, 'state'),
    'Dir::State::Lists': join(directory, 'lists'),
    'Dir::Cache': join(directory, 'cache'),
    'Dir::Etc::SourceList': join(directory, 'sources.list'),
    'Dir::Etc::SourceParts': join(directory, 'none'),
    'Dir::Etc::Preferences': join(directory, 'none', 'preferences'),
    'Dir::Etc::PreferencesParts': join(directory, 'none'),
    'Acquire::Languages': 'none',
    'Acquire::http::Timeout': '30',
    'Acquire::https::Timeout': '30',
    'Acquire::Retries': '2',
    'APT::Update::Error-Mode': 'any',
  }
  // Hooks of the machine's own lists, which need root.
  const hooks = ['APT::Update::Pre-Invoke', 'APT::Update::Post-Invoke', 'APT::Update::Post-Invoke-Success']
  return [
    ...hooks.map((name) => `#clear ${name};`),
    ...Object.entries(settings).map(([name, value]) => `${name} "${value}";`),
    '',
  ].join('\n')
}

/** Downloads and unpacks the package below `directory`; the path of the binary. */
async function unpack(suite: string, address: string, directory: string): Promise<string> {
  for (const name of ['state', 'lists', 'cache', 'none', 'package']) await mkdir(join(directory, name))
  // Other targets, such as descriptions of desktop programs, are larger than the list of packages.
  const source = `deb [signed-by=${KEYRING} target=Packages] ${address} ${suite} main\n`
  await writeFile(join(directory, 'sources.list'), source)
  const configuration = join(directory, 'apt.conf')
  await writeFile(configuration, aptConfiguration(directory))
  await output('apt-get', ['-c', configuration, 'update'])
  const cwd = join(directory, 'package')
  await output('apt-get', ['-c', configuration, 'download', 'nats-server'], { cwd })
  const file = (await readdir(cwd)).find((name) => name.endsWith('.deb'))
  if (file === undefined) throw new Error('apt-get downloaded no package')
  await output('dpkg', ['-x', file, 'root'], { cwd })
  return join(cwd, 'root', 'usr', 'sbin', 'nats-server')
}

async function fetchFrom(release: NatsRelease, address: string): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-apt-'))
  try {
    // apt started by root downloads lists as a user of its own, which must be able to enter.
    await chmod(directory, 0o755)
    const binary = await unpack(release.suite, address, directory)
    const path = cachePath(release)
    await mkdir(dirname(path), { recursive: true })
    // Renamed at the end: several runs may share the cache.
    const temporary = `${path}.${process.pid}`
    await copyFile(binary, temporary)
    await chmod(temporary, 0o755)
    await rename(temporary, path)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function fetchRelease(release: NatsRelease): Promise<void> {
  const failures: string[] = []
  for (const address of await mirrors()) {
    try {
      return await fetchFrom(release, address)
    } catch (error) {
      failures.push((error as Error).message)
    }
  }
  throw new Error(failures.join('\n'))
}

/** The binary from the cache, fetched first if it is not there or on `refresh`. Rejects with what to do by hand. */
export async function natsBinary(release: NatsRelease, refresh: boolean): Promise<NatsBinary> {
  const path = cachePath(release)
  try {
    if (refresh || !(await isExecutable(path))) {
      process.stderr.write(`Fetching nats-server from Debian ${release.suite}\n`)
      await fetchRelease(release)
    }
    return { ...release, path, version: await versionOf(path) }
  } catch (error) {
    throw new Error(
      `Cannot fetch nats-server from Debian ${release.suite}: ${(error as Error).message}\n` +
        `By hand: save the binary as ${path} and run this again,\n` +
        `or save it anywhere and run: NATS_SERVER=/path/to/nats-server npm test`,
    )
  }
}
