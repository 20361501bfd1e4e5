// Images with the npm clients of OpenAI and Vercel, as their users write it: files are streams, or bytes.
import { createHash } from "node:crypto"
import { createReadStream, readFileSync } from "node:fs"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import { generateImage } from "ai"
import OpenAI, { toFile } from "openai"

const [url, key, imagePath, maskPath, prompt, editPrompt] = process.argv.slice(2)
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 })
const model = "studio-image"
const size = "512x512"

const sha256 = (base64) => createHash("sha256").update(Buffer.from(base64, "base64")).digest("hex")
const hashes = (response) => response.data.map((image) => sha256(image.b64_json))
const events = async (stream) => {
  const received = []
  for await (const event of stream) {
    received.push({ type: event.type, index: event.partial_image_index, usage: event.usage, image: sha256(event.b64_json) })
  }
  return received
}

const results = {}
const generated = await openai.images.generate({ model, prompt, size, n: 2 })
results.generated = { images: hashes(generated), usage: generated.usage }
const byUrl = await openai.images.generate({ model, prompt, size, response_format: "url" })
results.url = byUrl.data[0].url
results.streamed = await events(
  await openai.images.generate({ model, prompt, size, stream: true, partial_images: 2 }))

const image = () => toFile(createReadStream(imagePath), "apples.png", { type: "image/png" })
const mask = () => toFile(createReadStream(maskPath), "mask.png", { type: "image/png" })
results.edited = hashes(await openai.images.edit({ model, image: await image(), prompt: editPrompt }))
results.masked = hashes(await openai.images.edit(
  { model, image: [await image(), await image()], mask: await mask(), prompt: editPrompt }))
results.editStreamed = await events(
  await openai.images.edit({ model, image: await image(), prompt: editPrompt, stream: true, partial_images: 1 }))
results.untyped = hashes(await openai.images.edit({ model, image: createReadStream(imagePath), prompt: editPrompt }))

const vercel = createOpenAICompatible({ name: "aiserver", baseURL: `${url}/v1`, apiKey: key })
const vercelHash = (generation) => generation.images.map((file) => sha256(file.base64))
const options = { maxRetries: 0 }
results.vercel = []
for (const name of [model, "my-openai"]) {
  results.vercel.push({
    generated: vercelHash(await generateImage({ ...options, model: vercel.imageModel(name), prompt, size })),
    edited: vercelHash(await generateImage({
      ...options,
      model: vercel.imageModel(name),
      prompt: { text: editPrompt, images: [readFileSync(imagePath)], mask: readFileSync(maskPath) },
    })),
  })
}
console.log(JSON.stringify(results))
