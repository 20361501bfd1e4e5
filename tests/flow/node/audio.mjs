// Audio with the npm client of OpenAI, as its users write it: files are streams, which it uploads in chunks.
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import OpenAI from "openai"

const [url, key, providerUrl, path, sentence] = process.argv.slice(2)
const gateway = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 })
const provider = new OpenAI({ baseURL: providerUrl, apiKey: "the provider's own key", maxRetries: 0 })

const transcribe = (sdk, options) =>
  sdk.audio.transcriptions.create({ file: createReadStream(path), model: "whisper-1", ...options })

const results = {}
results.json = (await transcribe(gateway, {})).text
for (const format of ["text", "srt"]) results[format] = await transcribe(gateway, { response_format: format })
results.words = (await transcribe(gateway,
  { response_format: "verbose_json", timestamp_granularities: ["word"] })).words.map(({ word }) => word)
results.deltas = []
for await (const event of await transcribe(gateway, { stream: true })) {
  if (event.type === "transcript.text.delta") results.deltas.push(event.delta)
  if (event.type === "transcript.text.done") results.done = event.text
}

const speech = await gateway.audio.speech.create({ model: "tts-1", voice: "slt", input: sentence })
results.speech = {
  contentType: speech.headers.get("content-type"),
  sha256: createHash("sha256").update(Buffer.from(await speech.arrayBuffer())).digest("hex"),
}

results.direct = (await transcribe(provider, {})).text
console.log(JSON.stringify(results))
