// An unmodified y-websocket client that obeys lines of JSON: node client.mjs VERSION URL DOCUMENT PARAMS SCHEMA
// {"do": name, ...} on its input is answered with one line, {"ok": value}; SCHEMA is a module with docs/schema.md's code.
import { createInterface } from 'node:readline'
import * as Y from 'yjs'
import WebSocket from 'ws'

const [version, url, room, params, schema] = process.argv.slice(2)
const { WebsocketProvider } = await import(`y-websocket-${version}`)
const conversation = await import(schema)
const doc = new Y.Doc()
let provider
let closed = null

function connect () {
  provider = new WebsocketProvider(url, room, doc, {
    WebSocketPolyfill: WebSocket, params: JSON.parse(params), disableBc: true
  })
  provider.on('connection-close', (event) => { if (event) closed = [event.code, event.reason] })
}

const states = () => Object.fromEntries([...provider.awareness.getStates()].map(([k, v]) => [k, v]))

const words = {
  connect: () => connect(),
  leave: async () => {
    const gone = new Promise((resolve) => provider.ws.once('close', resolve))
    provider.destroy()
    await gone
  },
  offline: () => provider.disconnect(),
  online: () => provider.connect(),
  synced: () => provider.synced,
  closed: () => closed,
  trying: () => provider.shouldConnect,
  client: () => doc.clientID,
  set: ({ key, value }) => { doc.getMap('m').set(key, value) },
  fill: ({ size }) => { doc.getText('t').insert(0, 'x'.repeat(size)) },
  remove: ({ key }) => { doc.getMap('m').delete(key) },
  map: () => doc.getMap('m').toJSON(),
  length: () => doc.getText('t').length,
  read: () => conversation.read(doc).map((entry) => entry.text),
  say: ({ text }) => { conversation.say(doc, text) },
  announce: ({ state }) => provider.awareness.setLocalState(state),
  present: () => states()
}

for await (const line of createInterface({ input: process.stdin })) {
  const { do: word, ...rest } = JSON.parse(line)
  try {
    console.log(JSON.stringify({ ok: (await words[word](rest)) ?? null }))
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }))
  }
}
process.exit(0)
