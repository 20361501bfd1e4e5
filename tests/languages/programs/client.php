<?php
// The chats, jobs, errors and images of the tests, with the types of /types/php.
require "ServiceStack.php";
require "dtos.php";

use ServiceStack\{JsonServiceClient, WebServiceException};
use dtos\{BackgroundJobState, GetOpenAiChatStatus, OpenAiChatCompletion, OpenAiMessage, OpenAiToolFunction, OpenAiTools};
use dtos\{QueueOpenAiChatCompletion, TextToImage};

[$url, $key, $elsewhere, $refId] = array_map(fn($name) => getenv($name), ["URL", "KEY", "ELSEWHERE", "REF_ID"]);
$results = [];

// Quick start.
$client = new JsonServiceClient($url);
$client->bearerToken = $key;
$request = new OpenAiChatCompletion(
    model: "llama3:8b",
    messages: [new OpenAiMessage(role: "user", content: "What's the capital of France?")],
    max_tokens: 50);
$response = $client->postUrl("/v1/chat/completions", body: $request);
$answer = $response->choices[0]->message->content;

// The same by its name, and at another server.
$results["chat"] = $answer;
$results["api"] = $client->post($request)->choices[0]->message->content;
$other = new JsonServiceClient($elsewhere);
$other->bearerToken = "other";
$results["elsewhere"] = $other->postUrl("/v1/chat/completions", body: $request)->choices[0]->message->content;

// The same, as a job.
$results["refId"] = $client->post(new QueueOpenAiChatCompletion(request: $request, refId: $refId))->refId;
$status = $client->get(new GetOpenAiChatStatus(refId: $refId));
while (in_array($status->jobState, [BackgroundJobState::Queued, BackgroundJobState::Started])) {
    usleep(50_000);
    $status = $client->get(new GetOpenAiChatStatus(refId: $refId));
}
$results["state"] = $status->jobState->value;
$results["result"] = $status->result->choices[0]->message->content;

// An error.
try {
    $client->post(new OpenAiChatCompletion(model: "llama3:8b"));
} catch (WebServiceException $error) {
    $results["error"] = [$error->responseStatus->errorCode, $error->responseStatus->message];
}

// A tool with a nested schema, and content in parts.
$schema = ["type" => "object", "properties" => [
    "city" => ["type" => "string", "enum" => ["a", "b"]], "options" => ["properties" => new stdClass()]]];
$tool = new OpenAiTools(type: "function", function: new OpenAiToolFunction(name: "weather", parameters: $schema));
$parts = [["type" => "text", "text" => "Describe"],
    ["type" => "image_url", "image_url" => ["url" => "data:image/png;base64,AA=="]]];
$call = $client->post(new OpenAiChatCompletion(
    model: "llama3:8b", messages: [new OpenAiMessage(role: "user", content: $parts)], tools: [$tool]));
$results["arguments"] = json_decode($call->choices[0]->message->tool_calls[0]->function->arguments);

// An image.
$image = $client->post(new TextToImage(model: "gpt-image-2", positivePrompt: "A llama", width: 512, height: 512));
$results["image"] = $image->results[0]->url;
echo json_encode($results);
