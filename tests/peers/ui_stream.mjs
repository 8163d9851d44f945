// Reads lists of chunks of UIMessage streams, a JSON list of them, from stdin; writes the message that the AI SDK makes of each.
import { readUIMessageStream } from "ai";
import { text } from "node:stream/consumers";

async function message(chunks) {
  const stream = new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  let last = null;
  for await (const one of readUIMessageStream({ stream })) last = one;
  return last;
}

const out = [];
for (const chunks of JSON.parse(await text(process.stdin))) out.push(await message(chunks));
console.log(JSON.stringify(out));
