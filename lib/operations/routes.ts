// cluster_set_routes, cluster_get_routes, cluster_delete_routes: the addresses of other hubs. A commit stores them; the mesh
// applies them after it.

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
  async handler({ store }, { server, routes }, { user }) {
    let result = { set: [] as Route[], skipped: [] as Route[] }
    await store.commit(
      (current) => {
        const { manifest, set, skipped } = addRoutes(current, server, routes)
        result = { set, skipped }
        return manifest
      },
      'api',
      { user },
    )
    return { message: 'cluster routes successfully set', ...result }
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
  async handler({ store }, { routes }, { user }) {
    let result = { deleted: [] as Route[], skipped: [] as Route[] }
    await store.commit(
      (current) => {
        const { manifest, deleted, skipped } = removeRoutes(current, routes)
        result = { deleted, skipped }
        return manifest
      },
      'api',
      { user },
    )
    return { message: 'cluster routes successfully deleted', ...result }
  },
}
