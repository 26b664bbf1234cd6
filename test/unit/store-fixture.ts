// A store with a file in a temporary directory, and its events, which can be awaited.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { Problem } from '../../lib/manifest/config-file.ts'
import type { Settings } from '../../lib/manifest/settings.ts'
import { type Commit, ManifestStore } from '../../lib/manifest/store.ts'

export async function temporaryDirectory(test: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-store-'))
  test.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}

export type Reported = {
  commit?: Commit
  rejected?: readonly Problem[]
  missing?: readonly Problem[]
  limited?: Settings
}

/** The events of a store; `next` waits for the next one. */

export class Listener {
  readonly #reported: Reported[] = []
  #wake: () => void = () => {}

  constructor(store: ManifestStore) {
    const report = (reported: Reported) => {
      this.#reported.push(reported)
      this.#wake()
    }
    store.listen({
      committed: (commit) => report({ commit }),
      rejected: (rejected) => report({ rejected }),
      missing: (missing) => report({ missing }),
      limitsChanged: (limited) => report({ limited }),
    })
  }

  get pending(): number {
    return this.#reported.length
  }

  async next(): Promise<Reported> {
    const deadline = setTimeout(() => {
      throw new Error('The store reported nothing within 10 s')
    }, 10_000)
    while (this.#reported.length === 0) {
      await new Promise<void>((wake) => {
        this.#wake = wake
      })
    }
    clearTimeout(deadline)
    return this.#reported.shift() as Reported
  }
}

export async function openStore(test: TestContext, text?: string) {
  const directory = await temporaryDirectory(test)
  const path = join(directory, 'database.yaml')
  if (text !== undefined) await writeFile(path, text)
  const store = await ManifestStore.open(path)
  test.after(() => store.close())
  return { store, path, directory, listener: new Listener(store) }
}
