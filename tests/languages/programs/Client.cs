// The chats, jobs, errors and images of the tests, with the types of /types/csharp.
using System;
using System.Collections.Generic;
using System.Threading;
using System.Web.Script.Serialization;
using AiServer;
using ServiceStack;

static class Client
{
    static string Text(OpenAiChatResponse response) { return response.Choices[0].Message.Content; }

    static void Main()
    {
        Func<string, string> environment = Environment.GetEnvironmentVariable;
        string url = environment("URL"), key = environment("KEY"), refId = environment("REF_ID");
        var results = new Dictionary<string, object>();

        // Quick start.
        var client = new JsonApiClient(url) { BearerToken = key };
        var request = new OpenAiChatCompletion {
            Model = "llama3:8b",
            Messages = new List<OpenAiMessage> {
                new OpenAiMessage { Role = "user", Content = "What's the capital of France?" } },
            MaxTokens = 50,
        };
        var response = client.Post<OpenAiChatResponse>("/v1/chat/completions", request);
        var answer = response.Choices[0].Message.Content;

        // The same by its name, and at another server.
        results["chat"] = answer;
        results["api"] = Text(client.Post(request));
        var other = new JsonApiClient(environment("ELSEWHERE")) { BearerToken = "other" };
        results["elsewhere"] = Text(other.Post<OpenAiChatResponse>("/v1/chat/completions", request));

        // The same, as a job.
        results["refId"] = client.Post(new QueueOpenAiChatCompletion { Request = request, RefId = refId }).RefId;
        var status = client.Get(new GetOpenAiChatStatus { RefId = refId });
        while (status.JobState == BackgroundJobState.Queued || status.JobState == BackgroundJobState.Started)
        {
            Thread.Sleep(50);
            status = client.Get(new GetOpenAiChatStatus { RefId = refId });
        }
        results["state"] = status.JobState.ToString();
        results["result"] = Text(status.Result);

        // An error.
        try { client.Post(new OpenAiChatCompletion { Model = "llama3:8b" }); }
        catch (WebServiceException error)
        {
            results["error"] = new[] { error.ResponseStatus.ErrorCode, error.ResponseStatus.Message };
        }

        // A tool with a nested schema, and content in parts.
        var schema = new Dictionary<string, object> {
            ["type"] = "object",
            ["properties"] = new Dictionary<string, object> {
                ["city"] = new Dictionary<string, object> { ["type"] = "string", ["enum"] = new[] { "a", "b" } },
                ["options"] = new Dictionary<string, object> { ["properties"] = new Dictionary<string, object>() } } };
        var tool = new OpenAiTools {
            Type = "function", Function = new OpenAiToolFunction { Name = "weather", Parameters = schema } };
        var parts = new[] {
            new Dictionary<string, object> { ["type"] = "text", ["text"] = "Describe" },
            new Dictionary<string, object> { ["type"] = "image_url", ["image_url"] =
                new Dictionary<string, object> { ["url"] = "data:image/png;base64,AA==" } } };
        var call = client.Post(new OpenAiChatCompletion {
            Model = "llama3:8b",
            Messages = new List<OpenAiMessage> { new OpenAiMessage { Role = "user", Content = parts } },
            Tools = new List<OpenAiTools> { tool },
        });
        var json = new JavaScriptSerializer();
        results["arguments"] = json.DeserializeObject(call.Choices[0].Message.ToolCalls[0].Function.Arguments);

        // An image.
        var image = client.Post(
            new TextToImage { Model = "gpt-image-2", PositivePrompt = "A llama", Width = 512, Height = 512 });
        results["image"] = image.Results[0].Url;
        Console.WriteLine(json.Serialize(results));
    }
}
