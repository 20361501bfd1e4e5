"""`make demo`: the main features step by step, with the gateway's actual output."""

import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from local.choose_upstream import choose
from local.cloud import Cloud
from local.demo_steps import StepFailed, create_client, expect_status, print_stream, receive_callback, run_steps, step
from local.receiver import receiver

AUDIO_DIR, IMAGE_DIR = Path(".local/audio"), Path(".local/images")
CHAT = {
    "messages": [
        {"role": "system", "content": "You are a helpful AI assistant."},
        {"role": "user", "content": "How do LLMs work?"},
    ],
    "max_tokens": 50,
}


def main() -> int:
    return run_steps("demo", _run)


def _run(started_at: float) -> None:
    with choose(os.environ) as upstream, Cloud(upstream) as cloud, create_client(cloud) as http:
        print(upstream.description)
        print(f"The gateway is running at {cloud.base_url} ({time.monotonic() - started_at:.1f} s).")

        step("1. Synchronous request: POST /v1/chat/completions, model llama3:8b")
        completion = expect_status(http.post("/v1/chat/completions", json={"model": "llama3:8b", **CHAT}), 200)
        print(f"   {completion['choices'][0]['message']['content']}")

        step("2. Streaming: the same request, printed as it arrives")
        print_stream(http, {"model": "llama3:8b", **CHAT})

        with receiver() as hook:
            step("3. Queued job: POST /api/QueueOpenAiChatCompletion, model gpt-4-turbo, with a ReplyTo")
            queued_at = time.monotonic()
            job = {
                "refId": "demo-1",
                "tag": "demo",
                "replyTo": hook.url,
                "request": {"model": "gpt-4-turbo", **CHAT},
            }
            queued = expect_status(http.post("/api/QueueOpenAiChatCompletion", json=job), 200)
            print(f"   RefId {queued['refId']}, Id {queued['id']}\n   {queued['statusUrl']}")

            step("4. Signed callback to ReplyTo")
            callback = receive_callback(hook, cloud.keys.webhook_secret)
            took_s = time.monotonic() - queued_at
            print(f"   after {took_s:.2f} s, job state {callback.headers['x-job-state']}, signature valid")
            for name in ("webhook-id", "webhook-signature", "x-ref-id", "x-tag"):
                print(f"   {name}: {callback.headers[name]}")
            print(f"   {json.loads(callback.body)['choices'][0]['message']['content']}")

        step("5. Job status: the same result as the callback")
        status = expect_status(http.get(queued["statusUrl"]), 200)
        print(f"   jobState {status['jobState']}, attempts {status['attempts']}, usage {json.dumps(status['usage'])}")
        if status["result"] != json.loads(callback.body):
            raise StepFailed("status and callback contain different results")

        step("6. Isolation: another API key cannot read the job")
        headers = {"authorization": f"Bearer {cloud.keys.other_api_key}"}
        not_found = expect_status(http.get(queued["statusUrl"], headers=headers), 404)
        print(f"   404 {not_found['responseStatus']['errorCode']}: {not_found['responseStatus']['message']}")

        _run_audio(http)
        _draw_image(http)


def _run_audio(http: httpx.Client) -> None:
    """Speak a sentence, download the file without an API key, and transcribe it."""
    step("7. Speech: POST /api/TextToSpeech")
    speech = {"input": "Hello, how are you?", "model": "text-to-speech"}
    response = http.post("/api/TextToSpeech", json=speech)
    if response.status_code == 404:  # Ollama, for example
        print(f"   skipped: {response.json()['responseStatus']['message']}")
        return
    file, path = _download(str(expect_status(response, 200)["results"][0]["url"]), AUDIO_DIR)

    step("8. Transcription: POST /v1/audio/transcriptions with that file")
    form = {"model": "whisper-1", "response_format": "json"}
    upload = {"file": (path.name, file.content, file.headers["content-type"])}
    transcript = expect_status(http.post("/v1/audio/transcriptions", data=form, files=upload), 200)
    print(f"   {transcript['text']}")


def _draw_image(http: httpx.Client) -> None:
    """Draw an image and download it without an API key."""
    step("9. Image: POST /api/TextToImage")
    request = {"model": "gpt-image-2", "positivePrompt": "A happy llama in the sun", "width": 1024, "height": 1024}
    response = http.post("/api/TextToImage", json=request)
    if response.status_code == 404:
        print(f"   skipped: {response.json()['responseStatus']['message']}")
        return
    _download(str(expect_status(response, 200)["results"][0]["url"]), IMAGE_DIR)


def _download(url: str, folder: Path) -> tuple[httpx.Response, Path]:
    """Download a file without an API key, and save it. Raises: StepFailed."""
    file = httpx.get(url, follow_redirects=True, trust_env=False)
    if file.status_code != 200:
        raise StepFailed(f"the file's URL returned {file.status_code}")
    path = folder / urlsplit(url).path.rpartition("/")[2]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.content)
    print(f"   {url}\n   {len(file.content):,} bytes of {file.headers['content-type']}, saved as {path}")
    return file, path


if __name__ == "__main__":
    sys.exit(main())
