import com.google.gson.Gson
import com.google.gson.JsonObject
import net.servicestack.client.JsonServiceClient
import net.servicestack.client.WebServiceException

/** The chats, jobs, errors and images of the tests, with the types of /types/kotlin. */
fun main() {
    val environment = System.getenv()
    val (url, key, refId) = listOf("URL", "KEY", "REF_ID").map { environment[it]!! }
    val results = HashMap<String, Any?>()

    // Quick start.
    val client = JsonServiceClient(url)
    client.setBearerToken(key)
    val request = OpenAiChatCompletion().apply {
        model = "llama3:8b"
        messages = arrayListOf(OpenAiMessage().apply { role = "user"; content = "What's the capital of France?" })
        maxTokens = 50
    }
    val response = client.post("/v1/chat/completions", request, OpenAiChatResponse::class.java)
    val answer = response.choices!![0].message!!.content

    // The same by its name, and at another server.
    results["chat"] = answer
    results["api"] = text(client.post(request))
    val other = JsonServiceClient(environment["ELSEWHERE"])
    other.setBearerToken("other")
    results["elsewhere"] = text(other.post("/v1/chat/completions", request, OpenAiChatResponse::class.java))

    // The same, as a job.
    results["refId"] = client.post(QueueOpenAiChatCompletion().apply { this.request = request; this.refId = refId }).refId
    val query = GetOpenAiChatStatus().apply { this.refId = refId }
    var status = client.get(query)
    while (status.jobState in listOf(BackgroundJobState.Queued, BackgroundJobState.Started)) {
        Thread.sleep(50)
        status = client.get(query)
    }
    results["state"] = status.jobState
    results["result"] = text(status.result!!)

    // An error.
    try {
        client.post(OpenAiChatCompletion().apply { model = "llama3:8b" })
    } catch (error: WebServiceException) {
        results["error"] = listOf(error.responseStatus.errorCode, error.responseStatus.message)
    }

    // A tool with a nested schema, and content in parts.
    val schema = hashMapOf<String, Any>("type" to "object", "properties" to mapOf(
        "city" to mapOf("type" to "string", "enum" to listOf("a", "b")),
        "options" to mapOf("properties" to mapOf<String, Any>())))
    val tool = OpenAiTools().apply {
        type = "function"
        function = OpenAiToolFunction().apply { name = "weather"; parameters = schema }
    }
    val parts = listOf(mapOf("type" to "text", "text" to "Describe"),
        mapOf("type" to "image_url", "image_url" to mapOf("url" to "data:image/png;base64,AA==")))
    val call = client.post(OpenAiChatCompletion().apply {
        model = "llama3:8b"
        messages = arrayListOf(OpenAiMessage().apply { role = "user"; content = parts })
        tools = arrayListOf(tool)
    })
    val arguments = call.choices!![0].message!!.toolCalls!![0].function!!.arguments
    results["arguments"] = Gson().fromJson(arguments, JsonObject::class.java)

    // An image.
    val image = client.post(TextToImage().apply {
        model = "gpt-image-2"; positivePrompt = "A llama"; width = 512; height = 512
    })
    results["image"] = image.results!![0].url
    println(Gson().toJson(results))
}

fun text(response: OpenAiChatResponse) = response.choices!![0].message!!.content
