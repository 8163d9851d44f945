// Unmodified automerge-repo clients that obey lines of JSON: node automerge_client.mjs SCHEMA
// {"at": name, "do": word, ...} on its input is answered with one line, {"ok": value}; "at" names one of several clients, each with a Repo of its own.
// SCHEMA is a module with docs/schema.md's code for Automerge.
import { createInterface } from 'node:readline'
import { Repo, Presence, interpretAsDocumentId, generateAutomergeUrl } from '@automerge/automerge-repo'
import { WebSocketClientAdapter } from '@automerge/automerge-repo-network-websocket'
import * as Automerge from '@automerge/automerge'

const conversation = await import(process.argv[2])
const text = (url) => `automerge:${url}`

class Client {
  handles = new Map()
  heard = []
  frames = []

  connect ({ url, retry = 200 }) {
    this.url = url
    this.adapter = new WebSocketClientAdapter(url, retry)
    this.repo = new Repo({ network: [this.adapter] })
  }

  offline () { this.repo.networkSubsystem.removeNetworkAdapter(this.adapter) }
  online ({ url = this.url, retry = 200 }) {
    this.adapter = new WebSocketClientAdapter(url, retry)
    this.repo.networkSubsystem.addNetworkAdapter(this.adapter)
  }

  peers () { return this.repo.peers }
  create ({ value }) { return this.keep(this.repo.create(value)) }
  keep (handle) {
    this.handles.set(handle.documentId, handle)
    handle.on('ephemeral-message', ({ senderId, message }) => this.heard.push([senderId, message]))
    return handle.documentId
  }

  async find ({ document }) {
    try {
      return this.keep(await this.repo.find(text(document), { signal: AbortSignal.timeout(20000) }))
    } catch (error) {
      return `not here: ${error.message}`
    }
  }

  doc ({ document }) { return JSON.parse(JSON.stringify(Automerge.toJS(this.handles.get(document).doc()))) }
  heads ({ document }) { return Automerge.getHeads(this.handles.get(document).doc()) }
  put ({ document, key, value }) { this.handles.get(document).change((doc) => { doc[key] = value }) }
  count ({ document, key }) { this.handles.get(document).change((doc) => { doc[key] = new Automerge.Counter(1) }) }
  many ({ document, times }) {
    for (let n = 0; n < times; n++) this.handles.get(document).change((doc) => { doc[`k${n}`] = n })
  }

  splice ({ document, key, place, text }) { this.handles.get(document).change((doc) => { Automerge.splice(doc, [key], place, 0, text) }) }
  read ({ document }) {
    const doc = this.handles.get(document).doc()
    return doc.entries ? conversation.read(doc).map((entry) => entry.text) : []
  }

  say ({ document, text }) { this.handles.get(document).update((doc) => conversation.say(doc, text)[0]) }
  forget ({ document }) { this.repo.delete(text(document)) }
  broadcast ({ document, message }) { this.handles.get(document).broadcast(message) }
  ephemeral () { return this.heard }
  present ({ document, state }) {
    this.presence = new Presence({ handle: this.handles.get(document) })
    this.presence.start({ initialState: state, heartbeatMs: 1000 })
  }

  others () { return Object.fromEntries(Object.entries(this.presence.getPeerStates().value).map(([peer, { value }]) => [peer, value])) }
  async begin ({ document, chunks }) {
    // A conversation that begins here: its root maps are changes that everybody makes in the same bytes.
    const [doc] = Automerge.applyChanges(Automerge.init(), chunks.map((chunk) => Buffer.from(chunk, 'hex')))
    return this.keep(this.repo.import(Automerge.save(doc), { docId: document }))
  }
}

// The adapter throws where nobody can catch it when a relay is killed or refuses the upgrade.
process.on('uncaughtException', (error) => console.error(error))
console.log = console.error // automerge-repo has something to say, too
const tell = (value) => process.stdout.write(JSON.stringify(value) + '\n')

const clients = {}
for await (const line of createInterface({ input: process.stdin })) {
  const { at = 'one', do: word, ...rest } = JSON.parse(line)
  try {
    clients[at] ??= new Client()
    tell({ ok: (await clients[at][word](rest)) ?? null })
  } catch (error) {
    tell({ error: String(error.stack ?? error) })
  }
}
process.exit(0)
