// The chats, jobs and images of the tests, with the types of /types/dart. It is parsed, never compiled.
import 'package:servicestack/client.dart';
import 'dtos.dart';

Future<void> run(String url, String key, String refId) async {
  // Quick start.
  var client = JsonServiceClient(url)..bearerToken = key;
  var message = OpenAiMessage()..role = "user"..content = "What's the capital of France?";
  var request = OpenAiChatCompletion()..model = "llama3:8b"..messages = [message]..max_tokens = 50;
  var json = await client.postToUrl("/v1/chat/completions", request);
  var answer = OpenAiChatResponse.fromJson(json).choices!.first.message!.content;

  // The same, as a job.
  var queued = await client.post(QueueOpenAiChatCompletion()..request = request..refId = refId);
  var status = await client.get(GetOpenAiChatStatus()..refId = queued.refId);
  var isCompleted = status.jobState == BackgroundJobState.Completed;

  // An image.
  var image = await client.post(TextToImage()..model = "m"..positivePrompt = "A llama");
  print([answer, isCompleted, image.results!.first.url]);
}
