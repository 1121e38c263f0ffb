"""A judge behind an endpoint, against a fake server: errors, time-outs, hostile replies, and a key that nobody keeps."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from judge_server import Step, echoes, fails, says, sends, serving, sleeps

from effivlm.judging.endpoint import KEY_VARIABLE, Endpoint
from effivlm.judging.grading import grade
from effivlm.judging.judge import Query, Reply, Unanswered
from effivlm.judging.remembered import Remembered
from effivlm.judging.rubrics import Item, rubric_of

pytest.importorskip("openai", reason="the client of the extra 'judge' is not installed")
SECRET = "sk-test-abc123-nobody-keeps-me"
QUERY = Query("Which mark?", max_tokens=16)
ITEMS = [Item("a", "What?", "dog", "a dog"), Item("b", "What?", "cat", "a dog")]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)


def endpoint(url: str, waits: list[float] | None = None, attempts: int = 3, timeout_s: float = 5.0) -> Endpoint:
    return Endpoint(
        "judge", url, attempts=attempts, timeout_s=timeout_s, sleep=(waits if waits is not None else []).append
    )


def test_a_query_is_sent_with_temperature_0_its_pictures_and_the_key_of_the_environment() -> None:
    with serving(says("0.5")) as server:
        reply = endpoint(server.url).reply(Query("Mark \ud83d this", (b"\x89PNG...", b"\xff\xd8\xff.."), 16))
    (body,) = server.bodies
    assert reply == Reply("0.5", "judge-2026-01-01")
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0, 16, "judge")
    kinds = [part["image_url"]["url"][:16] for part in body["messages"][0]["content"][1:]]
    assert kinds == ["data:image/png;b", "data:image/jpeg;"]
    assert server.keys == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("passing", [fails(429), fails(500), fails(503)], ids=["429", "500", "503"])
def test_a_passing_refusal_is_tried_again_after_longer_and_longer_waits(passing: Step) -> None:
    waits: list[float] = []
    with serving(passing, passing, says("0.7")) as server:
        assert endpoint(server.url, waits).reply(QUERY).text == "0.7"
    assert waits == [1.0, 2.0]


def test_a_server_says_how_long_to_wait_within_bounds() -> None:
    waits: list[float] = []
    asked = [fails(429, Retry_After=value) for value in ("7", "99999", "-1", "soon", "nan")]
    with serving(*asked, says("1")) as server:
        assert endpoint(server.url, waits, attempts=6).reply(QUERY).text == "1"
    assert waits == [7.0, 60.0, 1.0, 8.0, 1.0]


def test_a_server_that_never_answers_is_given_up_after_all_attempts() -> None:
    waits: list[float] = []
    with (
        serving(sleeps(1.5)) as server,
        pytest.raises(Unanswered, match="did not reply in 2 attempts: APITimeoutError"),
    ):
        endpoint(server.url, waits, attempts=2, timeout_s=0.2).reply(QUERY)
    assert (len(server.bodies), waits) == (2, [1.0])


def test_a_server_that_is_not_there_is_given_up() -> None:
    with serving(says("1")) as server:
        gone = server.url
    with pytest.raises(Unanswered, match="did not reply in 3 attempts: APIConnectionError"):
        endpoint(gone).reply(QUERY)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_final_refusal_is_not_tried_again(status: int) -> None:
    with serving(fails(status, "not like this")) as server, pytest.raises(Unanswered, match="not like this"):
        endpoint(server.url).reply(QUERY)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "hostile",
    [
        *(
            says(None),
            says(""),
            says(" \n"),
            says(["0.5"]),
            says({"mark": 1}),
            sends(""),
            sends("{"),
            sends("[1, 2]"),
            sends("null"),
        ),
        *(sends('"0.5"'), sends('{"choices": []}'), sends('{"choices": "0.5"}'), sends('{"choices": [null]}')),
        *(sends('{"choices": [{"message": "1"}]}'), sends("0.5", Content_Type="text/html"), sends("[" * 100_000)),
    ],
)
def test_a_reply_without_text_is_none(hostile: Step) -> None:
    with serving(hostile) as server, pytest.raises(Unanswered, match=r"no reply|did not reply"):
        endpoint(server.url).reply(QUERY)


def test_an_endless_reply_and_a_strange_model_are_cut_to_size() -> None:
    with serving(says("x" * 1_000_000, model=["no", "name"])) as server:
        reply = endpoint(server.url).reply(QUERY)
    assert (len(reply.text), reply.model) == (20_000, "")


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_key_that_a_server_sends_back_is_in_no_mark_message_log_or_file(
    status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(echoes(status)) as server:
        judge = Remembered(endpoint(server.url), tmp_path)
        graded = grade(judge, rubric_of("mmvet"), ITEMS)
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert SECRET not in f"{graded}{judge}{kept}{caplog.text}"
    assert (len(graded.marks), len(graded.missing)) == ((2, 0) if status == 200 else (0, 2))
    assert ("[key]" in kept) is (status == 200)


def test_without_a_key_nothing_is_asked_and_every_mark_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    with serving(says("1")) as server:
        graded = grade(endpoint(server.url), rubric_of("mmvet"), ITEMS)
    assert server.bodies == []
    assert graded.missing == dict.fromkeys(("a", "b"), f"the environment variable {KEY_VARIABLE} holds no key")
    assert graded.score is None


def test_an_address_with_a_password_or_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="a key belongs into the environment") as caught:
        Endpoint("judge", "https://me:secret@host/v1")
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="'host/v1' is no address"):
        Endpoint("judge", "host/v1")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Endpoint("judge", attempts=0)


def test_a_reply_is_asked_once_and_a_failure_again(tmp_path: Path) -> None:
    with serving(fails(400), says("0.5")) as server:
        judge = Remembered(endpoint(server.url), tmp_path)
        with pytest.raises(Unanswered):
            judge.reply(QUERY)
        first = judge.reply(QUERY)
        assert judge.reply(QUERY) == first
        assert len(server.bodies) == 2
        judge.reply(QUERY, repeat=1)
        Remembered(Endpoint("another", server.url), tmp_path).reply(QUERY)
        judge.reply(Query("Which mark?", (b"picture",), 16))
        assert len(server.bodies) == 5
    (torn, *_) = sorted(tmp_path.rglob("*.json"))
    assert json.loads(torn.read_text())["text"] == "0.5"
    assert list(tmp_path.rglob("*.part")) == []
