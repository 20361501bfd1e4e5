// The chats, jobs and images of the tests, with the types of /types/swift. It is parsed, never compiled.
import Foundation
import ServiceStack

func run(url: String, key: String, refId: String) async throws {
    // Quick start.
    let client = JsonServiceClient(baseUrl: url)
    client.bearerToken = key
    let message = OpenAiMessage()
    message.role = "user"
    message.content = "What's the capital of France?"
    let request = OpenAiChatCompletion()
    request.model = "llama3:8b"
    request.messages = [message]
    request.max_tokens = 50
    let response: OpenAiChatResponse = try await client.postAsync("/v1/chat/completions", request: request)
    let answer = response.choices?[0].message?.content

    // The same, as a job.
    let job = QueueOpenAiChatCompletion()
    job.request = request
    job.refId = refId
    let queued = try await client.postAsync(job)
    let query = GetOpenAiChatStatus()
    query.refId = queued.refId
    let isCompleted = try await client.getAsync(query).jobState == .Completed

    // An image.
    let image = TextToImage()
    image.model = "m"
    image.positivePrompt = "A llama"
    let file = try await client.postAsync(image).results?[0].url
    print(answer ?? "", isCompleted, file ?? "")
}
