// The routes: where this node finds the mesh. The store writes them down; the mesh follows its commits.

import { type Static, Type } from 'typebox'
import { addRoutes, type Route, removeRoutes } from '../manifest/manifest.ts'
import type { Operation } from './context.ts'
import { routes, serverName } from './fields.ts'

const setRoutesSchema = Type.Object({ server: serverName, routes })
const getRoutesSchema = Type.Object({})
const deleteRoutesSchema = Type.Object({ routes })

export type SetRoutesRequest = Static<typeof setRoutesSchema>
export type SetRoutesResponse = { message: string; set: Route[]; skipped: Route[] }
export type GetRoutesRequest = Static<typeof getRoutesSchema>
export type GetRoutesResponse = { hub: Route[]; leaf: Route[] }
export type DeleteRoutesRequest = Static<typeof deleteRoutesSchema>
export type DeleteRoutesResponse = { message: string; deleted: Route[]; skipped: Route[] }

export const setRoutes: Operation<SetRoutesRequest, SetRoutesResponse> = {
  method: 'setRoutes',
  schema: setRoutesSchema,
  requiresEnabled: false,
  async handler({ store }, { server, routes }) {
    let answer = { set: [] as Route[], skipped: [] as Route[] }
    await store.commit((current) => {
      const { manifest, set, skipped } = addRoutes(current, server, routes)
      answer = { set, skipped }
      return manifest
    }, 'api')
    return { message: 'cluster routes successfully set', ...answer }
  },
}

export const getRoutes: Operation<GetRoutesRequest, GetRoutesResponse> = {
  method: 'getRoutes',
  schema: getRoutesSchema,
  requiresEnabled: false,
  async handler({ store }) {
    const { hub, leaf } = store.manifest.routes
    const copy = ({ host, port }: Route) => ({ host, port })
    return { hub: hub.map(copy), leaf: leaf.map(copy) }
  },
}

export const deleteRoutes: Operation<DeleteRoutesRequest, DeleteRoutesResponse> = {
  method: 'deleteRoutes',
  schema: deleteRoutesSchema,
  requiresEnabled: false,
  async handler({ store }, { routes }) {
    let answer = { deleted: [] as Route[], skipped: [] as Route[] }
    await store.commit((current) => {
      const { manifest, deleted, skipped } = removeRoutes(current, routes)
      answer = { deleted, skipped }
      return manifest
    }, 'api')
    return { message: 'cluster routes successfully deleted', ...answer }
  },
}
