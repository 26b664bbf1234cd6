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

export type Told = { commit?: Commit; rejected?: readonly Problem[]; missing?: readonly Problem[]; limited?: Settings }

/** The events of a store; `next` waits for the next one. */

export class Listener {
  readonly #told: Told[] = []
  #wake: () => void = () => {}

  constructor(store: ManifestStore) {
    const tell = (reported: Told) => {
      this.#told.push(reported)
      this.#wake()
    }
    store.listen({
      committed: (commit) => tell({ commit }),
      rejected: (rejected) => tell({ rejected }),
      missing: (missing) => tell({ missing }),
      limitsChanged: (limited) => tell({ limited }),
    })
  }

  get pending(): number {
    return this.#told.length
  }

  async next(): Promise<Told> {
    const deadline = setTimeout(() => {
      throw new Error('The store told nothing within 10 s')
    }, 10_000)
    while (this.#told.length === 0) {
      await new Promise<void>((wake) => {
        this.#wake = wake
      })
    }
    clearTimeout(deadline)
    return this.#told.shift() as Told
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
