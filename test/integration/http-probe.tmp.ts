import { temporaryFolder } from '/work/main/test/support/cluster.ts'
import { NodeProcess } from '/work/main/test/support/node-process.ts'
const [f, rm] = await temporaryFolder()
const t0 = Date.now()
const ns = await Promise.all(['node1','node2','node3'].map(n => NodeProcess.create(f, n)))
try {
const l = await Promise.all(ns.map(n => n.start()))
console.log(l, Date.now() - t0)
const [a,b,c] = ns as any
console.log(await a.request({operation:'cluster_set_routes', server:'hub', routes:[{host:'127.0.0.1',port:b.ports.cluster},{host:'127.0.0.1',port:c.ports.cluster}]}), Date.now()-t0)
for (let i=0;i<4;i++) for (const n of [a,b,c]) console.log(n.name, JSON.stringify((await n.request({operation:"cluster_network",timeout:500})).body), Date.now()-t0)
console.log(await a.request({operation:'create_table',database:'dev',table:'dog',primary_key:'id'}), Date.now()-t0)
console.log(JSON.stringify(await a.request({operation:'add_node',node_name:'node2',subscriptions:[{schema:'dev',table:'dog',subscribe:false,publish:true,start_time:'2022-09-02T20:06:35.993Z'}]})), Date.now()-t0)
console.log(JSON.stringify(await a.request({operation:'cluster_status'})), Date.now()-t0)
console.log(JSON.stringify(await b.request({operation:'cluster_status'})), Date.now()-t0)
const te = Date.now(); for (const n of ns) { await n.stop().then((c) => console.log(n.name, 'stop', c, Date.now()-te), (e) => console.log(n.name, e, Date.now()-te)) }
} finally { await Promise.all(ns.map(n => n.end())); console.log(Date.now()-t0); await rm() }
