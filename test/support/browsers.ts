// Browsers for tests of the status page: those that the variables CHROMIUM and FIREFOX name, or of the PATH, or Debian's packages, which are
// installed first.

import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type Browser, chromium, firefox } from 'playwright-core'

/** Debian's packages and what they need are about 110 MB each. */
const INSTALL_TIMEOUT_MS = 600_000

type BrowserKind = {
  name: string
  variable: string
  programs: readonly string[]
  package: string
  /** It can pretend that the system is dark or light, and measures its use of the processor. */
  isFullyControlled: boolean
  launch(executablePath: string): Promise<Browser>
}

const kinds: readonly BrowserKind[] = [
  {
    name: 'Chromium',
    variable: 'CHROMIUM',
    programs: ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'],
    package: 'chromium',
    isFullyControlled: true,
    // Chromium has no sandbox for root.
    launch: (executablePath) =>
      chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] }),
  },
  {
    name: 'Firefox',
    variable: 'FIREFOX',
    programs: ['firefox-esr', 'firefox'],
    package: 'firefox-esr',
    isFullyControlled: false,
    // An unmodified Firefox, by WebDriver BiDi.
    launch: (executablePath) => firefox.launch({ executablePath, channel: 'moz-firefox' }),
  },
]

function onPath(name: string): string | undefined {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(directory, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // In another directory, perhaps.
    }
  }
  return undefined
}

const find = ({ variable, programs }: BrowserKind): string | undefined =>
  process.env[variable] || programs.map(onPath).find((path) => path !== undefined)

/** Undefined when it is done; else why not. */
function install(name: string): string | undefined {
  if (!onPath('apt-get')) return 'apt-get is not there to install it'
  const asRoot = process.getuid?.() === 0 ? [] : ['sudo', '-n']
  // The fonts are recommended only, and the page has marks that not every font has.
  const packages = [name, 'fonts-dejavu-core']
  for (const args of [['update'], ['install', '-y', '--no-install-recommends', ...packages]]) {
    const [command, ...rest] = [...asRoot, 'apt-get', ...args]
    process.stderr.write(`> ${[command, ...rest].join(' ')}\n`)
    const { status, error } = spawnSync(command!, rest, {
      stdio: ['ignore', 2, 2],
      timeout: INSTALL_TIMEOUT_MS,
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
    if (status !== 0) return `apt-get ${args[0]} failed${error ? `: ${error.message}` : ''}`
  }
  return undefined
}

/** A browser that runs, or why it does not. */
export type OpenedBrowser = Pick<BrowserKind, 'name' | 'isFullyControlled'> &
  ({ browser: Browser; problem?: undefined } | { browser?: undefined; problem: string })

async function open(kind: BrowserKind): Promise<OpenedBrowser> {
  const problem = find(kind) ? undefined : install(kind.package)
  const executablePath = find(kind)
  const { name, isFullyControlled } = kind
  if (!executablePath)
    return { name, isFullyControlled, problem: `${name} is missing: ${problem ?? 'the package has no such program'}` }
  try {
    return { name, isFullyControlled, browser: await kind.launch(executablePath) }
  } catch (error) {
    const [reason] = (error as Error).message.split('\n')
    return { name, isFullyControlled, problem: `${executablePath} does not start: ${reason}` }
  }
}

/** `names`: default all. */
export async function openBrowsers(names = kinds.map(({ name }) => name)): Promise<OpenedBrowser[]> {
  const opened: OpenedBrowser[] = []
  // One after the other: only one process can install packages.
  for (const kind of kinds) if (names.includes(kind.name)) opened.push(await open(kind))
  return opened
}
