// The texts that updates make: node texts.mjs NAME. A line of its input is a list of updates as hex, a line of its output a text.
import { createInterface } from 'node:readline'
import * as Y from 'yjs'

for await (const line of createInterface({ input: process.stdin })) {
  const doc = new Y.Doc()
  const text = doc.getText(process.argv[2])
  for (const update of JSON.parse(line)) Y.applyUpdate(doc, Buffer.from(update, 'hex'))
  console.log(JSON.stringify(text.toString()))
}
