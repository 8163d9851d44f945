// Hocuspocus as it comes: no extension, nothing stored. Takes a port, says when it listens. Its clients say something
// every 15 s, and are sent away after a minute without; the generator's say nothing for longer.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [folder, port] = process.argv.slice(2)
const found = createRequire(pathToFileURL(`${folder}/`)).resolve('@hocuspocus/server')
const { Server } = await import(pathToFileURL(found))
await new Server({ address: '127.0.0.1', port: Number(port), quiet: true, timeout: 600_000 }).listen()
console.log(`listening ws://127.0.0.1:${port}`)
