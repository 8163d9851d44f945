// The AI SDK, as an app calls it, against an HTTP server of ours: node ai_http.mjs URL MODEL. Prints what it got as JSON.
import { generateText, streamText } from 'ai';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';

const baseURL = `${process.argv[2]}/v1`;
const openai = createOpenAI({ baseURL, apiKey: 'none' });
const models = {
  responses: openai.responses(process.argv[3]),
  chat: openai.chat(process.argv[3]),
  compatible: createOpenAICompatible({ baseURL, name: 'llmcrdt', includeUsage: true })(process.argv[3]),
  anthropic: createAnthropic({ baseURL, apiKey: 'none' })(process.argv[3]),
};
const found = {};
for (const [name, model] of Object.entries(models)) {
  const asked = { model, maxOutputTokens: 6, maxRetries: 0 };
  const messages = [{ role: 'user', content: `From ${name}` }];
  const whole = await generateText({ ...asked, messages });
  messages.push(...whole.response.messages, { role: 'user', content: 'Go on' });
  const streamed = streamText({ ...asked, messages, onError: ({ error }) => { throw error; } });
  let text = '';
  for await (const piece of streamed.textStream) text += piece;
  found[name] = { first: whole.text, second: text, tokens: (await streamed.usage).inputTokens };
}
console.log(JSON.stringify(found));
