// Reads lists of UIMessages, a JSON list of them, from stdin; writes for each why the AI SDK refuses it, or null.
import { convertToModelMessages, generateText, safeValidateUIMessages } from "ai";
import { text } from "node:stream/consumers";

globalThis.AI_SDK_LOG_WARNINGS = false;

const model = {
  specificationVersion: "v3",
  provider: "none",
  modelId: "none",
  supportedUrls: { "*/*": [/.*/] },
  doGenerate: async () => ({
    content: [{ type: "text", text: "Hi" }],
    finishReason: { unified: "stop", raw: "stop" },
    usage: { inputTokens: { total: 1 }, outputTokens: { total: 1 } },
    warnings: [],
  }),
};

async function refusal(messages) {
  const checked = await safeValidateUIMessages({ messages });
  if (!checked.success) return String(checked.error);
  try {
    const converted = await convertToModelMessages(messages);
    await generateText({ model, messages: converted, maxRetries: 0, allowSystemInMessages: true });
  } catch (error) {
    return String(error);
  }
  return null;
}

const out = [];
for (const messages of JSON.parse(await text(process.stdin))) out.push(await refusal(messages));
console.log(JSON.stringify(out));
