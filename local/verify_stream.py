"""The probes of `make verify-deploy` for what could not be proven off AWS: does it stream, and how long may it take?

Two of them reach a provider, with 80 tokens to answer and with 5; a third with LONG_TOKENS, where SLOW_MODEL is set.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from local.deployment import JOB_S, NOBODY, Deployment, Probe, ProbeResult, is_error, probe_result, response_summary

CHAT = "/v1/chat/completions"
EVENTS = "/v1/jobs/{id}/events"
# The routes that stream, by template.yaml, whether or not a call asks for it.
STREAMED_ROUTES = (CHAT, "/api/OpenAiChatCompletion", "/v1/embeddings", "/v1/responses")
COUNT: dict[str, object] = {
    "messages": [{"role": "user", "content": "Count from one to thirty, in words."}],
    "max_tokens": 80,
}
LONG_TOKENS = 4000  # at 80 tokens a second, as fast hosted models write, that is 50 s
LONG_COUNT: dict[str, object] = {
    "messages": [{"role": "user", "content": "Count from one to one thousand, in words, without leaving any out."}],
    "max_tokens": LONG_TOKENS,
}
LONG_S = 900
READ_GAP_S = 0.001  # what comes closer together was read at once
MIN_SPREAD = 0.1  # of the time of the whole answer, between its first piece and its last


@dataclass(frozen=True)
class Heard:
    """An answer that was read as it came; `came` tells when each piece did, in seconds after it was asked for."""

    answer: httpx.Response
    text: str
    came: list[float]

    @property
    def data(self) -> list[str]:
        """What its events say."""
        return [line[5:].strip() for line in self.text.splitlines() if line.startswith("data:")]

    @property
    def is_stream(self) -> bool:
        kind = self.answer.headers.get("content-type", "")
        return self.answer.status_code == 200 and kind.startswith("text/event-stream")

    @property
    def came_in_pieces(self) -> bool:
        """Whether it was sent as it was made. API Gateway gives a length to what it has whole."""
        spread = self.came[-1] - self.came[0] if self.came else 0
        is_spread = spread > MIN_SPREAD * self.came[-1] if self.came else False
        return "content-length" not in self.answer.headers and is_spread

    @property
    def times(self) -> str:
        if not self.came:
            return "nothing came"
        first, last = self.came[0], self.came[-1]
        return (
            f"{len(self.data)} events, {self._reads} reads, first after {first:.2f} s, last {last - first:.2f} s later"
        )

    @property
    def _reads(self) -> int:
        gaps = (after - before for before, after in zip(self.came, self.came[1:], strict=False))
        return sum(gap > READ_GAP_S for gap in gaps) + 1


def heard(at: Deployment, method: str, path: str, body: Mapping[str, object] | None = None) -> Heard:
    """Ask, and read what comes for JOB_S at most."""
    began = time.monotonic()
    came: list[float] = []
    read = bytearray()
    with at.http.stream(method, path, json=body, headers={"accept-encoding": "identity"}) as answer:
        if answer.status_code != 200:
            answer.read()
            return Heard(answer, answer.text, [])
        for piece in answer.iter_bytes():
            came.append(time.monotonic() - began)
            read += piece
            if came[-1] > JOB_S:
                break
    return Heard(answer, read.decode("utf-8", "replace"), came)


def asked_nothing(at: Deployment) -> ProbeResult:
    """Whether each is called at all, and its error comes through as what it is; nothing is bought."""
    answers = [at.http.post(path, json={}) for path in STREAMED_ROUTES]
    wrong = [
        f"{path}: {response_summary(it)}"
        for path, it in zip(STREAMED_ROUTES, answers, strict=True)
        if not is_error(it, 400)
    ]
    return ProbeResult("; ".join(wrong), False) if wrong else probe_result(answers[0], True)


def streamed(at: Deployment) -> ProbeResult:
    it = heard(at, "POST", CHAT, at.chat(**COUNT, stream=True))
    if not it.is_stream:
        kind = it.answer.headers.get("content-type")
        return (
            probe_result(it.answer, False)
            if it.answer.status_code != 200
            else ProbeResult(f"200 {kind} {it.text[:300]}", False)
        )
    if it.data[-1:] != ["[DONE]"]:
        return ProbeResult(f"it ends without [DONE]: {it.data[-1:]}; {it.times}", False)
    if not it.came_in_pieces:
        return ProbeResult(f"all at once: ResponseMode is BUFFERED, or a proxy holds it back; {it.times}", False)
    return ProbeResult(it.times, True)


def refused(at: Deployment) -> ProbeResult:
    answer = at.http.post(CHAT, json=at.chat(provider=NOBODY, stream=True))
    return probe_result(answer, is_error(answer, 400) and answer.headers["content-type"].startswith("application/json"))


def long_answer(at: Deployment) -> ProbeResult:
    """An answer that is not streamed, and takes longer than API Gateway waits for one that is buffered."""
    if not at.slow_model:
        return ProbeResult(f"not checked: set SLOW_MODEL (up to {LONG_TOKENS} tokens)", None)
    began = time.monotonic()
    answer = at.http.post(CHAT, json=at.chat(**LONG_COUNT, model=at.slow_model), timeout=LONG_S)
    took_s = time.monotonic() - began
    if answer.status_code != 200:
        return ProbeResult(f"after {took_s:.1f} s: {response_summary(answer)}", False)
    if took_s <= at.buffered_s:
        return ProbeResult(f"not checked: it took {took_s:.1f} s only; name a slower one", None)
    return ProbeResult(f"200 after {took_s:.1f} s", True)


def watched(at: Deployment) -> ProbeResult:
    """A queued job, watched until it has ended."""
    accepted = at.queue(f"{at.ref_id}-watched")
    if accepted.status_code != 202:
        return probe_result(accepted, False)
    it = heard(at, "GET", EVENTS.format(id=accepted.json()["id"]))
    if not it.is_stream:
        return ProbeResult(f"{response_summary(it.answer) if it.answer.status_code != 200 else it.text[:300]}", False)
    states = [state for state in map(_job_state, it.data) if state]
    return ProbeResult(", ".join(states) or f"no event with a jobState; {it.times}", states[-1:] == ["Completed"])


def _job_state(data: str) -> str:
    try:
        event: Any = json.loads(data)
        return str(event["jobState"])
    except (ValueError, LookupError, TypeError):  # [DONE], or an event of another kind
        return ""


WATCHED = Probe("a queued job's events", "Completed, as the last one", watched)
PROBES = (
    Probe("each route that streams, asked nothing", "400 in our error shape", asked_nothing),
    Probe("a streamed chat", "events as they are made, [DONE]", streamed),
    Probe("a streamed chat that is refused", "400 in our error shape, JSON", refused),
    Probe("a long answer, not streamed", "200 after more than 29 s", long_answer),
    WATCHED,
)
