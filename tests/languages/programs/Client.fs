module Client

// The page of the vendor, a job and an image, with the types of /types/fsharp.
open System.Collections.Generic
open AiServer

let message = OpenAiMessage(Role = "user", Content = "What's the capital of France?")
let request = OpenAiChatCompletion(Model = "llama3:8b", Messages = ResizeArray [ message ], MaxTokens = 50)
let queued = QueueOpenAiChatCompletion(Request = request, RefId = "r")
let schema = Dictionary<string, obj>(dict [ "type", box "object" ])
let tool = OpenAiTools(Type = "function", Function = OpenAiToolFunction(Name = "weather", Parameters = schema))
let image = TextToImage(Model = "m", PositivePrompt = "A llama", Width = 512, Height = 512)
let text (response: OpenAiChatResponse) = response.Choices.[0].Message.Content
let isRunning (status: GetOpenAiChatStatusResponse) = status.JobState = BackgroundJobState.Started
let arguments (response: OpenAiChatResponse) = response.Choices.[0].Message.ToolCalls.[0].Function.Arguments
