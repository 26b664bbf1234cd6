// The static files of the page. They are read once, when they are asked for first.

import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'

const FILES = {
  'index.html': 'text/html; charset=utf-8',
  'style.css': 'text/css; charset=utf-8',
  'icon.svg': 'image/svg+xml',
  'main.mjs': 'text/javascript; charset=utf-8',
  'arrivals.mjs': 'text/javascript; charset=utf-8',
  'attention.mjs': 'text/javascript; charset=utf-8',
  'charts.mjs': 'text/javascript; charset=utf-8',
  'dom.mjs': 'text/javascript; charset=utf-8',
  'events.mjs': 'text/javascript; charset=utf-8',
  'format.mjs': 'text/javascript; charset=utf-8',
  'layout.mjs': 'text/javascript; charset=utf-8',
  'mesh-links.mjs': 'text/javascript; charset=utf-8',
  'mesh.mjs': 'text/javascript; charset=utf-8',
  'quarantine.mjs': 'text/javascript; charset=utf-8',
  'table-rows.mjs': 'text/javascript; charset=utf-8',
  'tables.mjs': 'text/javascript; charset=utf-8',
  'theme.mjs': 'text/javascript; charset=utf-8',
} as const

type FileName = keyof typeof FILES
export type Asset = { content: Buffer; type: string; etag: string }

export class Assets {
  readonly #directory: URL
  readonly #loaded = new Map<FileName, Promise<Asset>>()

  /** `directory`: its address ends with a slash. */
  constructor(directory: URL = new URL('./page/', import.meta.url)) {
    this.#directory = directory
  }

  has(name: string): name is FileName {
    return Object.hasOwn(FILES, name)
  }

  /** Rejects when the file cannot be read. */
  load(name: FileName): Promise<Asset> {
    const known = this.#loaded.get(name)
    if (known) return known
    const loaded = this.#read(name)
    this.#loaded.set(name, loaded)
    // The next request tries again.
    loaded.catch(() => this.#loaded.delete(name))
    return loaded
  }

  async #read(name: FileName): Promise<Asset> {
    const content = await readFile(new URL(name, this.#directory))
    const etag = `"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"`
    return { content, type: FILES[name], etag }
  }
}
