"""No key and no prompt is in an error's message."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracemind_otel.ai.llm.scrub import scrub

PROMPT = 'Dear model,\n\tmy "patient" is Ada Lovelace, born 1815, with a broken arm.'
WITHHELD = "(the message is withheld: it repeats the prompt)"


def test_an_innocent_message_stays() -> None:
    """A message without a secret is shown unchanged."""
    assert scrub("The model is overloaded.", prompt=PROMPT) == "The model is overloaded."


def test_secrets_are_replaced_everywhere() -> None:
    """A key is replaced as often as the server repeats it."""
    text = scrub("bad key sk-123 (sk-123) or tok-9", secrets=("sk-123", "tok-9", ""))
    assert text == "bad key [redacted] ([redacted]) or [redacted]"


def test_a_short_secret_is_a_word_of_its_own() -> None:
    """A short key, as for a local server, is not replaced inside other words."""
    assert scrub("key ollama is bad: ollamas", secrets=("ollama",)) == "key [redacted] is bad: ollamas"
    assert scrub("a broken token", secrets=("k",)) == "a broken token"


@pytest.mark.parametrize(
    "said",
    [
        PROMPT,
        f"invalid input: {PROMPT}",
        f"invalid input: {json.dumps(PROMPT)}",
        f"invalid input: {json.dumps(PROMPT).replace(' ', '  ')}",
        PROMPT.upper(),
        repr(PROMPT),
        "near '" + PROMPT[20:60] + "'",
    ],
)
def test_a_message_that_repeats_the_prompt_is_withheld(said: str) -> None:
    """A message with the prompt or a part of it, in any quoting, case or spacing, is withheld."""
    assert scrub(said, prompt=PROMPT) == WITHHELD


@pytest.mark.parametrize(
    "prompt",
    ["Привет, моего пациента зовут Ада, ей тридцать лет", "私の患者の名前はエイダ・ラブレスで、年齢は三十六歳です。"],
)
@pytest.mark.parametrize("quote", [json.dumps, ascii, str])
def test_a_prompt_in_another_script_is_found_too(prompt: str, quote: Callable[[str], str]) -> None:
    """A prompt in escapes such as `\u041f` is withheld too."""
    assert scrub(f"invalid input: {quote(prompt)}", prompt=prompt) == WITHHELD


def test_a_short_prompt_is_found_too() -> None:
    """A prompt of a few words is withheld where the message has all of it."""
    assert scrub("cannot parse 'Ada Lovelace'", prompt="Ada  Lovelace") == WITHHELD
    assert scrub("cannot parse 'Ada'", prompt="Ada Lovelace") == "cannot parse 'Ada'"


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_an_empty_prompt_withholds_nothing(prompt: str) -> None:
    """An empty prompt withholds no message."""
    assert scrub("HTTP 500", prompt=prompt) == "HTTP 500"


def test_a_long_message_is_cut() -> None:
    """A long message, such as a page of HTML, is cut."""
    assert scrub("x" * 501) == "x" * 500 + "..."
    assert scrub("x" * 500) == "x" * 500


def test_a_key_at_the_cut_does_not_half_survive() -> None:
    """Keys are replaced before the message is cut."""
    assert "sk-1" not in scrub("x" * 497 + "sk-12345", secrets=("sk-12345",))


around = st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"]), max_size=20)


@given(prompt=st.text(min_size=24, max_size=60), before=around, after=around)
def test_no_prompt_survives(prompt: str, before: str, after: str) -> None:
    """Any prompt anywhere in a message is withheld, unless it is a few letters among spaces."""
    is_short = len("".join(prompt.split()).replace("\\", "")) < 6
    assert (scrub(before + prompt + after, prompt=prompt) == WITHHELD) or is_short


def test_a_huge_message_does_not_hold_up_the_event_loop() -> None:
    """A huge message and a huge prompt are compared quickly, since other calls wait."""
    message, prompt = "<td>0x%05x</td>", "%06d bottles of beer on the wall. "
    page, book = "".join(message % n for n in range(4_000)), "".join(prompt % n for n in range(8_000))
    started = time.thread_time()
    assert scrub(page, prompt=book) == page[:500] + "..."
    assert time.thread_time() - started < 0.5


def test_each_text_of_a_conversation_is_found_by_itself() -> None:
    """A short one too, whatever stands before and after it in the conversation."""
    conversation = ("Be brief", "PIN 4711", "x" * 2_000)
    assert scrub("invalid input: pin 4711", prompt=conversation) == WITHHELD
    assert scrub("invalid input: no PIN", prompt=conversation) == "invalid input: no PIN"
