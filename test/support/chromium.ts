// A Chromium for tests of the status page: the one of the variable CHROMIUM or of the PATH, or Debian's package, which is installed first.

import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
/** Debian's package and what it needs are about 110 MB. */
const INSTALL_TIMEOUT_MS = 600_000

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

const find = (): string | undefined => process.env.CHROMIUM || NAMES.map(onPath).find((path) => path !== undefined)

/** Undefined when it is done; else why not. */
function install(): string | undefined {
  if (!onPath('apt-get')) return 'apt-get is not there to install it'
  const asRoot = process.getuid?.() === 0 ? [] : ['sudo', '-n']
  // The fonts are recommended only, and the page has marks that not every font has.
  const packages = ['chromium', 'fonts-dejavu-core']
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

/** A running browser, or why none runs. */
export async function openBrowser(): Promise<Browser | { problem: string }> {
  const problem = find() ? undefined : install()
  const executablePath = find()
  if (!executablePath) return { problem: `Chromium is missing: ${problem ?? 'the package has no such program'}` }
  try {
    // Chromium has no sandbox for root.
    return await chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] })
  } catch (error) {
    return { problem: `${executablePath} does not start: ${(error as Error).message.split('\n')[0]}` }
  }
}
