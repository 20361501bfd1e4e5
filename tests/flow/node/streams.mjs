// Streamed chats with the npm clients, as their users write them: each line of input names a client, each of output is
// a piece of text as it comes, and at last what was seen. Driven by stream_clients.py.
import { createInterface } from "node:readline"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import { streamText } from "ai"
import OpenAI from "openai"

const [url, key] = process.argv.slice(2)
const baseURL = `${url}/v1`
const messages = [{ role: "user", content: "How do LLMs work?" }]

const openai = async (seen, heard) => {
  const sdk = new OpenAI({ baseURL, apiKey: key, maxRetries: 0 })
  const stream = await sdk.chat.completions.create(
    { model: "llama3:8b", messages, stream: true, stream_options: { include_usage: true } })
  for await (const { choices, usage } of stream) {
    heard(choices[0]?.delta.content)
    seen.finish = choices[0]?.finish_reason ?? seen.finish
    if (usage) seen.usage = [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens]
  }
}

const vercel = async (seen, heard, failed) => {
  const provider = createOpenAICompatible({ name: "ours", baseURL, apiKey: key, includeUsage: true })
  const onError = ({ error }) => failed(error)
  for await (const part of streamText({ model: provider("llama3:8b"), messages, maxRetries: 0, onError }).fullStream) {
    if (part.type === "text-delta") heard(part.text)
    if (part.type === "finish") {
      seen.finish = part.finishReason
      const { inputTokens, outputTokens, totalTokens } = part.totalUsage
      if (totalTokens !== undefined) seen.usage = [inputTokens, outputTokens, totalTokens]
    }
  }
}

const clients = { openai, vercel }

for await (const client of createInterface({ input: process.stdin })) {
  const seen = { finish: null, usage: null, error: null }
  const heard = (piece) => { if (piece) console.log(JSON.stringify({ piece })) }
  const failed = (error) => { seen.error = [error.constructor.name, error.status ?? error.statusCode ?? null, error.message] }
  await clients[client](seen, heard, failed).catch(failed)
  console.log(JSON.stringify(seen))
}
