// Writes what automerge-repo's client sends, and a filter of Automerge's: node automerge_repo_vectors.mjs >../vectors/automerge_repo.json
import { createRequire } from 'node:module'
import { Repo, cbor } from '@automerge/automerge-repo'
import { WebSocketClientAdapter, WebSocketServerAdapter } from '@automerge/automerge-repo-network-websocket'
import * as Automerge from '@automerge/automerge'

const { WebSocketServer } = createRequire(import.meta.url)('ws')
const hex = (bytes) => Buffer.from(bytes).toString('hex')
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const sent = []
const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
server.on('connection', (socket) => socket.on('message', (data) => sent.push(Buffer.from(data))))
const other = new Repo({ network: [new WebSocketServerAdapter(server)], sharePolicy: async () => false })
await pause(100)
const repo = new Repo({ network: [new WebSocketClientAdapter(`ws://127.0.0.1:${server.address().port}`)] })
await pause(300)
const handle = repo.create({ title: 'Trip' })
await pause(300)
handle.change((doc) => { doc.words = 'w'.repeat(300) })
handle.broadcast({ here: true })
await pause(300)
await repo.find('automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu').catch(() => {})
const frames = {}
for (const bytes of sent) {
  const { type, data } = cbor.decode(bytes)
  const inside = data && type !== 'ephemeral' ? Automerge.decodeSyncMessage(new Uint8Array(data)) : { heads: [], changes: [] }
  const name = type + (inside.changes.length ? ' with changes' : '')
  frames[name] ??= { type, bytes: hex(bytes), heads: inside.heads, changes: inside.changes.map(hex) }
}
let doc = Automerge.init({ actor: 'aa'.repeat(16) })
for (let n = 0; n < 20; n++) doc = Automerge.change(doc, { time: 0 }, (draft) => { draft[`k${n}`] = n })
const [, message] = Automerge.generateSyncMessage(doc, Automerge.initSyncState())
const [{ bloom }] = Automerge.decodeSyncMessage(message).have
const hashes = Automerge.getAllChanges(doc).map((change) => Automerge.decodeChange(change).hash)
console.log(JSON.stringify({ version: '2.5.6', frames, filter: { hashes, bits: hex(bloom.slice(3)) } }, null, 1))
process.exit(0)
