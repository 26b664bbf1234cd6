// What a migration reports: each step when it is done, in order.

import { printable } from '../util/printable.ts'

/** In order. `next`: what the operator does after it. */
export type StepName =
  | 'configuration'
  | 'node'
  | 'password'
  | 'routes'
  | 'tables'
  | 'file'
  | 'import'
  | 'compare'
  | 'next'

/** `done`; `warning`: it goes on, and the operator should know; `problem`: something is left to do before the node is stopped. */
export type MigrationStep = {
  step: StepName
  state: 'done' | 'warning' | 'problem'
  message: string
  /** Numbers and names of the step. */
  details?: object
}

export type Report = {
  (step: StepName, message: string, details?: object): void
  warning(step: StepName, message: string, details?: object): void
  problem(step: StepName, message: string, details?: object): void
}

/** Calls `listener` for each step; `steps` has them all. */
export function createReport(listener: (step: MigrationStep) => void = () => {}): {
  report: Report
  steps: MigrationStep[]
} {
  const steps: MigrationStep[] = []
  const add = (state: MigrationStep['state']) => (step: StepName, message: string, details?: object) => {
    // It may have texts of other nodes, and is shown on a terminal.
    const one = { step, state, message: printable(message), ...(details && { details }) }
    steps.push(one)
    listener(one)
  }
  return { report: Object.assign(add('done'), { warning: add('warning'), problem: add('problem') }), steps }
}
