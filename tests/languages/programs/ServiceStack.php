<?php namespace ServiceStack;
// Stands in for the interfaces and the client of ServiceStack's PHP package, over PHP's own streams.

interface IReturn { public function createResponse(): mixed; }
interface IReturnVoid {}
interface IGet {}
interface IPost {}

class ResponseStatus {
    public function __construct(public ?string $errorCode = null, public ?string $message = null) {}
}

class ResponseError {}

class JsonConverters {
    public static function from(string $type, mixed $o): mixed {
        return new ResponseStatus($o['errorCode'] ?? null, $o['message'] ?? null);
    }
}

class WebServiceException extends \Exception {
    public function __construct(public ResponseStatus $responseStatus) { parent::__construct($responseStatus->message); }
}

class JsonServiceClient {
    public string $bearerToken = "";

    public function __construct(private string $baseUrl) {}

    public function post(mixed $request): mixed { return $this->send("POST", "/api/" . $request->getTypeName(), $request); }

    public function postUrl(string $path, mixed $body): mixed { return $this->send("POST", $path, $body); }

    public function get(mixed $request): mixed {
        $query = http_build_query((array) $request->jsonSerialize());
        return $this->send("GET", "/api/" . $request->getTypeName() . "?" . $query, $request);
    }

    private function send(string $method, string $path, mixed $request): mixed {
        $options = ["method" => $method, "ignore_errors" => true, "header" => [
            "Authorization: Bearer " . $this->bearerToken, "Content-Type: application/json", "Accept: application/json",
        ]];
        if ($method == "POST") $options["content"] = json_encode($request);
        $text = file_get_contents($this->baseUrl . $path, false, stream_context_create(["http" => $options]));
        $o = json_decode($text, true);
        if (intdiv((int) explode(" ", $http_response_header[0])[1], 100) != 2) {
            throw new WebServiceException(JsonConverters::from("ResponseStatus", $o["responseStatus"]));
        }
        $response = $request->createResponse();
        $response->fromMap($o);
        return $response;
    }
}
