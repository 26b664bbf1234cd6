// Installs the packages of package-lock.json and a nats-server when they are missing. Plain JavaScript on Node's own modules. Costs one
// stat and one search of the PATH when nothing is missing.

import { spawnSync } from 'node:child_process'
import { accessSync, constants, lstatSync, statSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

const modified = (file) => statSync(join(root, file), { throwIfNoEntry: false })?.mtimeMs ?? 0

const onPath = (name) =>
  (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })

const run = (command, args, options = {}) => {
  console.error(`> ${command} ${args.join(' ')}`)
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], ...options })
  if (error) console.error(error.message)
  return status === 0
}

// npm writes this file at the end of every install. It is older than the lock file after a pull that changed the lock file.
function installPackages() {
  if (modified('node_modules/.package-lock.json') >= modified('package-lock.json')) return
  // npm would delete what the link leads to, under the feet of the checkout that owns it.
  if (lstatSync(join(root, 'node_modules'), { throwIfNoEntry: false })?.isSymbolicLink()) {
    console.error(
      'node_modules is a symbolic link, and older than package-lock.json. Run npm ci in the directory that it leads to,',
    )
    console.error('or remove the link.')
    process.exit(1)
  }
  const quiet = ['--no-audit', '--no-fund']
  // `npm ci` rejects the lock file when the registry lacks packages of other platforms.
  if (run('npm', ['ci', ...quiet]) || run('npm', ['install', '--no-save', ...quiet])) return
  console.error('The packages could not be installed. Run: npm ci')
  process.exit(1)
}

function installNatsServer() {
  if (process.env.NATS_SERVER || onPath('nats-server')) return
  // This script provides its own servers.
  if (process.env.npm_lifecycle_event === 'pretest:servers') return
  const asRoot = process.getuid?.() === 0 ? [] : ['sudo', '-n']
  const managers = [
    ['apt-get', [...asRoot, 'apt-get', 'update'], [...asRoot, 'apt-get', 'install', '-y', 'nats-server']],
    ['apk', [...asRoot, 'apk', 'add', 'nats-server']],
    ['dnf', [...asRoot, 'dnf', 'install', '-y', 'nats-server']],
    ['brew', ['brew', 'install', 'nats-server']],
  ]
  const manager = managers.find(([name]) => onPath(name))
  if (manager) {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    for (const [command, ...args] of manager.slice(1)) run(command, args, { env })
    if (onPath('nats-server')) return
  }
  const byHand = manager
    ? manager
        .at(-1)
        .filter((word) => word !== '-n')
        .join(' ')
    : 'see https://nats.io/download'
  console.error(`nats-server (2.9 or later) is missing and could not be installed. Run: ${byHand}`)
  // The demo can run without servers.
  if (process.env.npm_lifecycle_event === 'predemo') return
  console.error('Without it: npm run demo -- --mesh memory')
  process.exit(1)
}

installPackages()
installNatsServer()
