module Client

// The chats, jobs, tools and images of the tests, with the types of /types/fsharp.
open System.Collections.Generic
open AiServer
open ServiceStack

let run (url: string) (key: string) (refId: string) =
    // Quick start.
    let client = JsonApiClient(url, BearerToken = key)
    let message = OpenAiMessage(Role = "user", Content = "What's the capital of France?")
    let request = OpenAiChatCompletion(Model = "llama3:8b", Messages = ResizeArray [ message ], MaxTokens = 50)
    let response = client.Post<OpenAiChatResponse>("/v1/chat/completions", request)
    let answer = response.Choices.[0].Message.Content

    // The same, as a job.
    let queued = client.Post(QueueOpenAiChatCompletion(Request = request, RefId = refId))
    let status = client.Get(GetOpenAiChatStatus(RefId = queued.RefId))
    let isRunning = status.JobState = BackgroundJobState.Queued || status.JobState = BackgroundJobState.Started
    let result = status.Result.Choices.[0].Message.Content

    // A tool with a nested schema, content in parts, and an error.
    let city = Dictionary<string, obj>(dict [ "type", box "string"; "enum", box [| "a"; "b" |] ])
    let properties = Dictionary<string, obj>(dict [ "city", box city ])
    let schema = Dictionary<string, obj>(dict [ "type", box "object"; "properties", box properties ])
    let tool = OpenAiTools(Type = "function", Function = OpenAiToolFunction(Name = "weather", Parameters = schema))
    let part = Dictionary<string, obj>(dict [ "type", box "text"; "text", box "Describe" ])
    let parts = OpenAiMessage(Role = "user", Content = [| part |])
    let chat = OpenAiChatCompletion(Model = "m", Messages = ResizeArray [ parts ], Tools = ResizeArray [ tool ])
    let arguments = client.Post(chat).Choices.[0].Message.ToolCalls.[0].Function.Arguments
    let error = response.ResponseStatus.ErrorCode, response.ResponseStatus.Message

    // An image.
    let image = client.Post(TextToImage(Model = "m", PositivePrompt = "A llama", Width = 512, Height = 512))
    answer, isRunning, result, arguments, error, image.Results.[0].Url
