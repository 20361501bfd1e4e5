package net.servicestack.client;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonDeserializer;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Date;
import java.util.Map;

/** Stands in for ServiceStack's Java client: Gson without nulls, dates as ISO 8601. */
public class JsonServiceClient {
    private final Gson gson = new GsonBuilder().registerTypeAdapter(Date.class,
        (JsonDeserializer<Date>) (json, type, context) -> Date.from(Instant.parse(json.getAsString()))).create();
    private final HttpClient http = HttpClient.newHttpClient();
    private final String baseUrl;
    private String bearerToken;

    public JsonServiceClient(String baseUrl) { this.baseUrl = baseUrl; }

    public void setBearerToken(String bearerToken) { this.bearerToken = bearerToken; }

    @SuppressWarnings("unchecked")
    public <T> T post(IReturn<T> request) {
        return post("/api/" + request.getClass().getSimpleName(), request, (Class<T>) request.getResponseType());
    }

    public <T> T post(String path, Object request, Class<T> responseType) {
        return send(builder(path).POST(BodyPublishers.ofString(gson.toJson(request))), responseType);
    }

    @SuppressWarnings("unchecked")
    public <T> T get(IReturn<T> request) {
        var query = new ArrayList<String>();
        for (Map.Entry<String, JsonElement> member : ((JsonObject) gson.toJsonTree(request)).entrySet()) {
            query.add(member.getKey() + "=" + URLEncoder.encode(member.getValue().getAsString(), StandardCharsets.UTF_8));
        }
        var path = "/api/" + request.getClass().getSimpleName() + "?" + String.join("&", query);
        return send(builder(path).GET(), (Class<T>) request.getResponseType());
    }

    private HttpRequest.Builder builder(String path) {
        return HttpRequest.newBuilder(URI.create(baseUrl + path))
            .header("Authorization", "Bearer " + bearerToken).header("Content-Type", "application/json");
    }

    private <T> T send(HttpRequest.Builder request, Class<T> responseType) {
        try {
            var response = http.send(request.build(), BodyHandlers.ofString(StandardCharsets.UTF_8));
            if (response.statusCode() / 100 == 2) return gson.fromJson(response.body(), responseType);
            var error = gson.fromJson(response.body(), JsonObject.class).get("responseStatus");
            throw new WebServiceException(gson.fromJson(error, ResponseStatus.class));
        } catch (java.io.IOException | InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }
}
