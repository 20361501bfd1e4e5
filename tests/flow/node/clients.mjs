// The npm clients as their users have them: one script, driven by test_npm_clients.py, prints what each call returned.
import { JsonApiClient, JsonServiceClient } from "@servicestack/client"
import OpenAI from "openai"

const [url, key, elsewhere] = process.argv.slice(2)

const messages = [
  { role: "system", content: "You are a helpful AI assistant." },
  { role: "user", content: "How do LLMs work?" },
]

class Dto {
  constructor(init) { Object.assign(this, init) }
  getTypeName() { return this.constructor.name }
  getMethod() { return "POST" }
  createResponse() { return {} }
}
class OpenAiChatCompletion extends Dto {}
class QueueOpenAiChatCompletion extends Dto {}
class WaitForOpenAiChat extends Dto { getMethod() { return "GET" } }
class GetOpenAiChatStatus extends Dto { getMethod() { return "GET" } }

const results = {}

const service = new JsonServiceClient(url)
service.bearerToken = key
results.sync = await service.send(new OpenAiChatCompletion({ model: "llama3:8b", messages, max_tokens: 50, tag: "npm" }))

const api = JsonApiClient.create(url)
api.bearerToken = key
const asked = await api.api(new OpenAiChatCompletion({ model: "llama3:8b", messages, max_tokens: 50 }))
results.api = asked.response
const queued = await api.api(
  new QueueOpenAiChatCompletion({ refId: "npm-1", request: { model: "gpt-4-turbo", messages, max_tokens: 50 } }))
results.queued = queued.response
results.waited = await service.send(new WaitForOpenAiChat({ refId: "npm-1" }))
results.status = await service.send(new GetOpenAiChatStatus({ jobId: queued.response.id }))
const unknown = await api.api(new OpenAiChatCompletion({ model: "nobody", messages }))
results.error = unknown.error

const ask = async (baseURL, apiKey) =>
  (await new OpenAI({ baseURL, apiKey }).chat.completions.create({ model: "llama3:8b", messages, max_tokens: 50 }))
    .choices[0].message.content
results.ours = await ask(`${url}/v1`, key)
results.elsewhere = await ask(elsewhere, "the provider's own key")

const typed = async (baseUrl, bearerToken) => {
  const client = new JsonServiceClient(baseUrl)
  client.bearerToken = bearerToken
  const body = new OpenAiChatCompletion({ model: "llama3:8b", messages, max_tokens: 50 })
  return (await client.postToUrl("/v1/chat/completions", body)).choices[0].message.content
}
results.typedOurs = await typed(url, key)
results.typedElsewhere = await typed(elsewhere.replace(/\/v1$/, ""), "the provider's own key")

console.log(JSON.stringify(results))
