// The chats, jobs, errors and images of the tests, with the npm client and the types of /types/typescript.
import { JsonServiceClient } from "@servicestack/client"
import {
  BackgroundJobState, GetOpenAiChatStatus, OpenAiChatCompletion, OpenAiChatResponse, OpenAiMessage,
  OpenAiToolFunction, OpenAiTools, QueueOpenAiChatCompletion, TextToImage,
} from "./dtos"

declare const process: { env: Record<string, string> }
const { URL: url, KEY: key, ELSEWHERE: elsewhere, REF_ID: refId } = process.env
const text = (response: OpenAiChatResponse) => response.choices![0].message!.content
const results: Record<string, unknown> = {}

// Quick start.
const client = new JsonServiceClient(url)
client.bearerToken = key
const request = new OpenAiChatCompletion({
  model: "llama3:8b", messages: [{ role: "user", content: "What's the capital of France?" }], max_tokens: 50,
})
const response: OpenAiChatResponse = await client.postToUrl("/v1/chat/completions", request)
const answer = response.choices![0].message!.content

// The same by its name, and at another server.
results.chat = answer
results.api = text(await client.post(request))
const other = new JsonServiceClient(elsewhere)
other.bearerToken = "other"
results.elsewhere = text(await other.postToUrl("/v1/chat/completions", request))

// The same, as a job.
results.refId = (await client.post(new QueueOpenAiChatCompletion({ request, refId }))).refId
let status = await client.get(new GetOpenAiChatStatus({ refId }))
while ([BackgroundJobState.Queued, BackgroundJobState.Started].includes(status.jobState!)) {
  await new Promise(resolve => setTimeout(resolve, 50))
  status = await client.get(new GetOpenAiChatStatus({ refId }))
}
results.state = status.jobState
results.result = text(status.result!)

// An error.
try {
  await client.post(new OpenAiChatCompletion({ model: "llama3:8b" }))
} catch (error: any) {
  results.error = [error.responseStatus.errorCode, error.responseStatus.message]
}

// A tool with a nested schema, and content in parts.
const parameters = {
  type: "object", properties: { city: { type: "string", enum: ["a", "b"] }, options: { properties: {} } },
}
const tool = new OpenAiTools({ type: "function", function: new OpenAiToolFunction({ name: "weather", parameters }) })
const content = [
  { type: "text", text: "Describe" }, { type: "image_url", image_url: { url: "data:image/png;base64,AA==" } },
]
const messages = [new OpenAiMessage({ role: "user", content })]
const call = await client.post(new OpenAiChatCompletion({ model: "llama3:8b", messages, tools: [tool] }))
results.arguments = JSON.parse(call.choices![0].message!.tool_calls![0].function!.arguments!)

// An image.
const image = await client.post(
  new TextToImage({ model: "gpt-image-2", positivePrompt: "A llama", width: 512, height: 512 }))
results.image = image.results![0].url
console.log(JSON.stringify(results))
