// Writes tests/vectors/automerge.json: a document made by JavaScript's Automerge, as changes and as a save.
//   node tests/peers/automerge_vectors.mjs
// Prints what it made; deflated, roots and derived, which stand there too, come from elsewhere (tests/crdt/automerge/test_chunks.py).
import * as Automerge from "@automerge/automerge";

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const time = 0;

let one = Automerge.init({ actor: "aa".repeat(16) });
one = Automerge.change(one, { time }, (doc) => {
  doc.entries = {};
});
one = Automerge.change(one, { time: 1700000000, message: "all kinds" }, (doc) => {
  doc.entries.e = {
    head: new Automerge.ImmutableString("h😀"), live: "text", bytes: new Uint8Array([0, 255]),
    number: 5, fraction: 1.5, yes: true, nothing: null, list: [1, 2, { a: 1 }],
  };
});
one = Automerge.change(one, { time }, (doc) => {
  Automerge.splice(doc, ["entries", "e", "live"], 2, 1, "XYZ 😀 " + "q".repeat(400));
  delete doc.entries.e.number;
});
let other = Automerge.clone(one, { actor: "bb".repeat(16) });
other = Automerge.change(other, { time }, (doc) => {
  doc.entries.f = { head: new Automerge.ImmutableString("f") };
});
one = Automerge.change(one, { time }, (doc) => {
  doc.entries.g = { when: new Date(5), text: new Automerge.ImmutableString("z".repeat(600)) };
});
one = Automerge.merge(one, other);
const counted = Automerge.change(Automerge.init({ actor: "cc".repeat(16) }), { time }, (doc) => {
  doc.count = new Automerge.Counter(1);
});

const changes = Automerge.getAllChanges(one).map((change) => {
  const { actor, seq, startOp, deps, hash, ops } = Automerge.decodeChange(change);
  return { bytes: hex(change), actor, seq, start: startOp, deps, hash, operations: ops.length };
});
const [counter] = Automerge.getAllChanges(counted).map(hex);
const made = { version: "3.5.0", changes, save: hex(Automerge.save(one)), counter, empty: hex(Automerge.save(Automerge.init())) };
console.log(JSON.stringify(made, null, 1));
