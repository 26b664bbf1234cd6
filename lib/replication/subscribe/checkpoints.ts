// The latest checkpoint of every source of one local table, by node, as it was read or stored last.

import type { Checkpoint } from '../../host/host.ts'

export class Checkpoints extends Map<string, Checkpoint> {
  readonly #onChange: (node: string) => void

  constructor(onChange: (node: string) => void = () => {}) {
    super()
    this.#onChange = onChange
  }

  override set(node: string, checkpoint: Checkpoint): this {
    super.set(node, checkpoint)
    this.#onChange(node)
    return this
  }

  override delete(node: string): boolean {
    const isDeleted = super.delete(node)
    if (isDeleted) this.#onChange(node)
    return isDeleted
  }
}
