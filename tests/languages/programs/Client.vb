' The chats, jobs, tools and images of the tests, with the types of /types/vbnet. It is parsed, never compiled.
Imports System.Collections.Generic
Imports AiServer
Imports ServiceStack

Module Client
    Sub Run(url As String, key As String, refId As String)
        ' Quick start.
        Dim client = New JsonApiClient(url) With {.BearerToken = key}
        Dim message = New OpenAiMessage With {.Role = "user", .Content = "What's the capital of France?"}
        Dim messages = New List(Of OpenAiMessage) From {message}
        Dim request = New OpenAiChatCompletion With {.Model = "llama3:8b", .Messages = messages, .MaxTokens = 50}
        Dim response = client.Post(Of OpenAiChatResponse)("/v1/chat/completions", request)
        Dim answer = response.Choices(0).Message.Content

        ' The same, as a job.
        Dim queued = client.Post(New QueueOpenAiChatCompletion With {.Request = request, .RefId = refId})
        Dim status = client.Get(New GetOpenAiChatStatus With {.RefId = queued.RefId})
        Dim isCompleted = status.JobState = BackgroundJobState.Completed

        ' An image.
        Dim image = client.Post(New TextToImage With {.Model = "m", .PositivePrompt = "A llama"})
        Dim file = image.Results(0).Url
    End Sub
End Module
