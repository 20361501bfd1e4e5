import com.google.gson.Gson;
import com.google.gson.JsonObject;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import net.servicestack.client.JsonServiceClient;
import net.servicestack.client.Utils;
import net.servicestack.client.WebServiceException;

/** The chats, jobs, errors and images of the tests, with the types of /types/java. */
public class Client extends dtos {
    public static void main(String[] arguments) throws InterruptedException {
        var environment = System.getenv();
        String url = environment.get("URL"), key = environment.get("KEY"), refId = environment.get("REF_ID");
        var results = new HashMap<String, Object>();

        // Quick start.
        var client = new JsonServiceClient(url);
        client.setBearerToken(key);
        var request = new OpenAiChatCompletion()
            .setModel("llama3:8b")
            .setMaxTokens(50)
            .setMessages(Utils.createList(new OpenAiMessage().setRole("user").setContent("What's the capital of France?")));
        var response = client.post("/v1/chat/completions", request, OpenAiChatResponse.class);
        var answer = response.getChoices().get(0).getMessage().getContent();

        // The same by its name, and at another server.
        results.put("chat", answer);
        results.put("api", text(client.post(request)));
        var other = new JsonServiceClient(environment.get("ELSEWHERE"));
        other.setBearerToken("other");
        results.put("elsewhere", text(other.post("/v1/chat/completions", request, OpenAiChatResponse.class)));

        // The same, as a job.
        var queued = client.post(new QueueOpenAiChatCompletion().setRequest(request).setRefId(refId));
        results.put("refId", queued.getRefId());
        var status = client.get(new GetOpenAiChatStatus().setRefId(refId));
        while (List.of(BackgroundJobState.Queued, BackgroundJobState.Started).contains(status.getJobState())) {
            Thread.sleep(50);
            status = client.get(new GetOpenAiChatStatus().setRefId(refId));
        }
        results.put("state", status.getJobState());
        results.put("result", text(status.getResult()));

        // An error.
        try {
            client.post(new OpenAiChatCompletion().setModel("llama3:8b"));
        } catch (WebServiceException error) {
            results.put("error", List.of(error.responseStatus.errorCode, error.responseStatus.message));
        }

        // A tool with a nested schema, and content in parts.
        var schema = new HashMap<String, Object>(Map.of("type", "object", "properties", Map.of(
            "city", Map.of("type", "string", "enum", List.of("a", "b")), "options", Map.of("properties", Map.of()))));
        var function = new OpenAiToolFunction().setName("weather").setParameters(schema);
        var tool = new OpenAiTools().setType("function").setFunction(function);
        var parts = List.of(Map.of("type", "text", "text", "Describe"),
            Map.of("type", "image_url", "image_url", Map.of("url", "data:image/png;base64,AA==")));
        var call = client.post(new OpenAiChatCompletion()
            .setModel("llama3:8b")
            .setMessages(Utils.createList(new OpenAiMessage().setRole("user").setContent(parts)))
            .setTools(Utils.createList(tool)));
        var toolCall = call.getChoices().get(0).getMessage().getToolCalls().get(0);
        results.put("arguments", new Gson().fromJson(toolCall.getFunction().getArguments(), JsonObject.class));

        // An image.
        var image = client.post(
            new TextToImage().setModel("gpt-image-2").setPositivePrompt("A llama").setWidth(512).setHeight(512));
        results.put("image", image.getResults().get(0).getUrl());
        System.out.println(new Gson().toJson(results));
    }

    private static String text(OpenAiChatResponse response) {
        return response.getChoices().get(0).getMessage().getContent();
    }
}
