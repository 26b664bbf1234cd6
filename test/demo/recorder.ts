// Pictures of the status page while the demo runs, in both widths and both themes: `npm run demo -- --record DIRECTORY`.

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { openBrowsers } from '../support/browsers.ts'
import { admin } from '../support/node-client.ts'

const WIDTHS = [1280, 360]
const THEMES = ['light', 'dark'] as const
const TIMEOUT_MS = 30_000

export class Recorder {
  readonly #directory: string
  readonly #browser: Browser
  readonly #tabs = new Map<string, Page>()

  private constructor(directory: string, browser: Browser) {
    this.#directory = directory
    this.#browser = browser
  }

  /** Rejects if there is no browser. */
  static async open(directory: string): Promise<Recorder> {
    const [opened] = await openBrowsers(['Chromium'])
    if (!opened?.browser) throw new Error(opened?.problem ?? 'no browser')
    await mkdir(directory, { recursive: true })
    return new Recorder(directory, opened.browser)
  }

  /** Takes the pictures as soon as the page of this node shows `awaited`. Resolves with the names of the files. */
  async take(name: string, url: string, awaited: (tab: Page) => Promise<unknown>): Promise<string[]> {
    const tab = await this.#tabAt(url)
    await awaited(tab)
    const files: string[] = []
    for (const width of WIDTHS)
      for (const colorScheme of THEMES) {
        await tab.setViewportSize({ width, height: 900 })
        await tab.emulateMedia({ colorScheme })
        const file = `${name}-${width}-${colorScheme}.png`
        await tab.screenshot({ path: join(this.#directory, file), fullPage: true, animations: 'disabled' })
        files.push(file)
      }
    return files
  }

  /** The page stays open from its first picture on. */
  async #tabAt(url: string): Promise<Page> {
    const known = this.#tabs.get(url)
    if (known) return known
    const context = await this.#browser.newContext({ httpCredentials: admin })
    context.setDefaultTimeout(TIMEOUT_MS)
    const tab = await context.newPage()
    this.#tabs.set(url, tab)
    await tab.goto(`${url}/status/`)
    return tab
  }

  async close(): Promise<void> {
    await this.#browser.close()
  }
}
