"""What ``%navi`` lines mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from navi_jupyter.kernel.errors import UsageError
from navi_jupyter.kernel.grammar.command_line import _SHAPES, Action, Prompt, parse_cell, parse_line
from navi_jupyter.kernel.grammar.recall_command import NewRecall


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("", Action(name="status")),
        ("   ", Action(name="status")),
        ("status", Action(name="status")),
        ("help", Action(name="help")),
        ("--help", Action(name="help")),
        ("stop", Action(name="stop")),
        ("chat", Action(name="chat")),
        ("recalls", Action(name="recalls")),
        ("recalls --all", Action(name="recalls", options={"all": ""})),
        ("cancel rc_0123456789ab", Action(name="cancel", args=("rc_0123456789ab",))),
        ("pause rc_0123456789ab", Action(name="pause", args=("rc_0123456789ab",))),
        ("session", Action(name="session")),
        ("session new", Action(name="session", args=("new",))),
        ("session list", Action(name="session", args=("list",))),
        ("session unlink", Action(name="session", args=("unlink",))),
        ("session use 2 --move", Action(name="session", args=("use", "2"), options={"move": ""})),
        ("session use s_0123", Action(name="session", args=("use", "s_0123"))),
        ("profile", Action(name="profile")),
        ("profile careful", Action(name="profile", args=("careful",))),
        ("model anthropic:claude", Action(name="model", args=("anthropic:claude",))),
        ("export", Action(name="export", args=("md", ""))),
        ("approve", Action(name="approve")),
        ("approve i_0123456789ab --always", Action(name="approve", args=("i_0123456789ab",), options={"always": ""})),
        ("deny i_0123456789ab wrong file", Action(name="deny", args=("i_0123456789ab", "wrong file"))),
        ("deny wrong file", Action(name="deny", args=("", "wrong file"), options={"else": "deny wrong file"})),
        ("answer i_0123456789ab 7", Action(name="answer", args=("i_0123456789ab", "7"))),
        ("queue", Action(name="queue")),
        ("usage", Action(name="usage")),
        ("remember that I prefer polars", Action(name="remember", args=("I prefer polars",))),
        ("memory polars", Action(name="memory", args=("polars",))),
        ("forget f_0123456789ab", Action(name="forget", args=("f_0123456789ab",))),
        ("cancel 3", Action(name="cancel", args=("3",))),
        ("allow 3 run_code", Action(name="allow", args=("3",), options={"allow": "run_code"})),
        (
            "allow weekly report run_code,write",
            Action(
                name="allow",
                args=("weekly report",),
                options={"allow": "run_code,write", "else": "allow weekly report run_code,write"},
            ),
        ),
        ("revoke 3", Action(name="revoke", args=("3",))),
        ("fire 3 --allow run_code", Action(name="fire", args=("3",), options={"allow": "run_code"})),
        ("fire #3", Action(name="fire", args=("#3",))),
        ("cancel loss", Action(name="cancel", args=("loss",), options={"else": "cancel loss"})),
        ("pause the loss", Action(name="pause", args=("the loss",), options={"else": "pause the loss"})),
        ("session use 2", Action(name="session", args=("use", "2"))),
        ("session use loss", Action(name="session", args=("use", "loss"), options={"else": "session use loss"})),
        ("approve -b", Action(name="approve", options={"no-wait": ""})),
        ("approve 2 --always -b", Action(name="approve", args=("2",), options={"always": "", "no-wait": ""})),
        (
            "deny -b wrong file",
            Action(name="deny", args=("", "wrong file"), options={"no-wait": "", "else": "deny wrong file"}),
        ),
        ("answer -b i_0123456789ab 7", Action(name="answer", args=("i_0123456789ab", "7"), options={"no-wait": ""})),
        ("approve 2 --always", Action(name="approve", args=("2",), options={"always": ""})),
        ("unqueue 1", Action(name="unqueue", args=("1",))),
        ("forget 2", Action(name="forget", args=("2",))),
        ("export ipynb", Action(name="export", args=("ipynb", ""))),
        ("export talk.json", Action(name="export", args=("json", "talk.json"))),
        ('export md "my talk.md" --force', Action(name="export", args=("md", "my talk.md"), options={"force": ""})),
    ],
)
def test_a_subcommand_is_one_when_its_words_fit(line: str, action: Action) -> None:
    assert parse_line(line) == action


@pytest.mark.parametrize(
    "line",
    [
        "why is the loss flat?",
        "approve of my plan",
        "remember to check the loss at six",
        "memory of my data frame is too large?",
        "memory usage?",
        "forget about it",
        "queue up a run for me",
        "tools I could use",
        "stop the presses please",
        "chat with me about pandas",
        "recalls are what exactly?",
        "cancel everything",
        "allow me to explain this",
        "revoke everything",
        "cancel all of my recalls",
        "pause for a moment",
        "session notes from today",
        "session use of memory is high, why?",
        "profile this function for me",
        "model the data with a tree",
        "export the frame as csv",
        "export of goods",
        "recall in detail what we did",
        "recall at length the plot",
        "recall what I said",
        "recall when we met",
        "help me with this",
        "status of the training?",
        "- one\n- two",
        "-5 + 3 is what?",
        '{"json": {"stays": 1}}',
    ],
)
def test_any_other_words_are_a_prompt(line: str) -> None:
    assert parse_line(line) == Prompt(text=line)


# --- mistyped subcommands: never a prompt


OF_ITEMS = ("cancel", "pause", "resume", "fire", "revoke", "allow", "unqueue", "forget")
ALONE = ("away", "chat", "help", "mcp", "models", "profiles", "queue", "status", "stop", "tools", "usage")
TAKING_WORDS = ("approve", "approvals", "deny", "answer", "export", "memory", "model", "profile", "recall", "recalls")
REST = ("session", "timezone", "remember")


def test_the_tables_below_have_every_subcommand() -> None:
    assert sorted(OF_ITEMS + ALONE + TAKING_WORDS + REST) == sorted(_SHAPES)


def usage_error(line: str) -> str:
    """The message of the usage error that a line is; it says how to ask Navi all the same."""
    with pytest.raises(UsageError) as error:
        parse_line(line)
    assert "\n" not in error.value.message
    assert not isinstance(parse_line(f"-- {line}"), Action)
    return error.value.message


@pytest.mark.parametrize("name", [*OF_ITEMS, "recall", "remember"])
def test_a_subcommand_without_what_it_is_about_is_a_usage_error(name: str) -> None:
    assert f"%navi {name} " in usage_error(name)


@pytest.mark.parametrize("name", [*ALONE, "recalls", "approvals", "session", "export"])
@pytest.mark.parametrize("words", ["foo", "now please", "pdf"])
def test_words_that_a_subcommand_does_not_take_are_a_usage_error(name: str, words: str) -> None:
    message = usage_error(f"{name} {words}")
    assert f"%navi {name} does not take '{words}'" in message
    assert f"%navi -- {name} {words}" in message


@pytest.mark.parametrize("line", ["approve 2 please", "model gpt five", "profile careful please", "timezone mars x"])
def test_more_words_than_a_subcommand_takes_are_a_usage_error(line: str) -> None:
    assert f"Write %navi {line.split()[0]} " in usage_error(line)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("recal in 10m x", "recall in 10m x"),
        ("recal every other friday at 16:00 check the loss", "recall every other friday at 16:00 check the loss"),
        ("recall evry 1h check the loss", "recall every 1h check the loss"),
        ("recal", "recall"),
        ("Recall in 10m x", "recall in 10m x"),
        ("Stop", "stop"),
        ("stp", "stop"),
        ("sesion list", "session list"),
        ("session lst", "session list"),
        ("sessions", "session"),
        ("cancle 3", "cancel 3"),
        ("cancle loss", "cancel loss"),
        ("exprot md", "export md"),
        ("modle openai:gpt", "model openai:gpt"),
        ("rember that I prefer polars", "remember that I prefer polars"),
        ("aprove 2 --always", "approve 2 --always"),
        ("quue", "queue"),
        ("hlep", "help"),
        ("timezon Asia/Tokyo", "timezone Asia/Tokyo"),
    ],
)
def test_a_misspelt_subcommand_is_a_usage_error_with_the_right_line(line: str, meant: str) -> None:
    message = usage_error(line)
    assert message.startswith(f"Did you mean %navi {meant}?")
    assert message.endswith(f"%navi -- {line}")


def misspellings(word: str) -> list[str]:
    """One letter left out, one twice, two exchanged: anywhere but at the beginning."""
    places = range(1, len(word))
    left_out = [word[:n] + word[n + 1 :] for n in places]
    twice = [word[:n] + word[n] + word[n:] for n in places]
    exchanged = [word[:n] + word[n + 1] + word[n] + word[n + 2 :] for n in range(1, len(word) - 1)]
    return [one for one in (*left_out, *twice, *exchanged) if one not in _SHAPES and one != word]


@pytest.mark.parametrize("name", [name for name in _SHAPES if len(name) > 3])
def test_no_misspelling_of_a_subcommand_alone_is_a_prompt(name: str) -> None:
    for word in misspellings(name):
        assert "Did you mean %navi" in usage_error(word), word


@pytest.mark.parametrize(
    "line",
    [
        "stop the training if the loss is nan",
        "export the table to csv please",
        "recall crop yields of 2024 in a table",
        "Recall what we did last week",
        "what is this?",
        "what",
        "chart loss",
        "parse data.csv",
        "plot it",
        "hello",
        "find outliers",
        "usage today?",
        "cancel all",
        "Models of heat flow are what?",
    ],
)
def test_a_sentence_that_begins_like_a_subcommand_stays_a_prompt(line: str) -> None:
    assert parse_line(line) == Prompt(text=line)


@pytest.mark.parametrize("line", ["-- stop", "-- recall in 10m x", "-- --help", "--  model x"])
def test_two_dashes_make_anything_a_prompt(line: str) -> None:
    assert parse_line(line) == Prompt(text=line[2:].strip())


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("-b hello", Prompt(text="hello", wait=False)),
        ("--no-wait hello", Prompt(text="hello", wait=False)),
        ("--raw {x}", Prompt(text="{x}", interpolate=False)),
        ("--model offline --mode reject hello", Prompt(text="hello", model="offline", mode="reject")),
        ("--session=s_1 -b  two  words", Prompt(text="two  words", wait=False, session="s_1")),
        ("-b -- -b", Prompt(text="-b", wait=False)),
    ],
)
def test_options_stand_before_the_text(line: str, prompt: Prompt) -> None:
    assert parse_line(line) == prompt


@pytest.mark.parametrize(
    ("line", "schedule", "message"),
    [
        ("in 10m check the loss", {"kind": "once", "in": "10m"}, "check the loss"),
        ("in 1h30m check", {"kind": "once", "in": "1h30m"}, "check"),
        ("in 1h 30 minutes check", {"kind": "once", "in": "1h30m"}, "check"),
        ("in 90 seconds  look  twice", {"kind": "once", "in": "90s"}, "look  twice"),
        ("in 2 weeks renew", {"kind": "once", "in": "14d"}, "renew"),
        ("every 1h check", {"kind": "every", "every": "1h"}, "check"),
        ("at 2027-07-31T18:30+00:00 pay", {"kind": "once", "at": "2027-07-31T18:30:00+00:00"}, "pay"),
        ("--tz Asia/Tokyo at 2027-01-31T18:30 pay", {"kind": "once", "at": "2027-01-31T18:30:00+09:00"}, "pay"),
        ('cron "0 9 * * 1-5" stand up', {"kind": "cron", "expr": "0 9 * * 1-5"}, "stand up"),
        ("cron '@hourly' look", {"kind": "cron", "expr": "@hourly"}, "look"),
        ("cron 0 9 * * MON-FRI stand up", {"kind": "cron", "expr": "0 9 * * MON-FRI"}, "stand up"),
        ('cron "0 9 * * *" --tz Asia/Tokyo tea', {"kind": "cron", "expr": "0 9 * * *", "tz": "Asia/Tokyo"}, "tea"),
        ("when done summarize", {"kind": "when", "when": "done"}, "summarize"),
    ],
)
def test_a_recall_says_when_and_what(line: str, schedule: dict[str, str], message: str) -> None:
    assert parse_line("recall " + line) == NewRecall(message=message, schedule=schedule)


@pytest.mark.parametrize(
    ("line", "schedule", "message"),
    [
        ("when done summarize the output", {"when": "done"}, "summarize the output"),
        ("when failed --each --cooldown 10m fix it", {"when": "failed", "repeat": "each", "cooldown": "10m"}, "fix it"),
        ("when slow 10m look", {"when": "slow 10m"}, "look"),
        ("when slower than 1 h 30 minutes look", {"when": "slower 1h30m"}, "look"),
        ("when changed data/*.csv load it", {"when": "changed data/*.csv"}, "load it"),
        ('when changed "my data.csv" load it', {"when": "changed my data.csv"}, "load it"),
        ('when true "loss < 0.1" tell me', {"when": "true loss < 0.1"}, "tell me"),
        ('when "idle for 5m" go on', {"when": "idle for 5m"}, "go on"),
    ],
)
def test_a_recall_waits_for_an_event(line: str, schedule: dict[str, str], message: str) -> None:
    assert parse_line("recall " + line) == NewRecall(message=message, schedule={"kind": "when", **schedule})


def test_a_time_in_english_stands_in_quotes() -> None:
    line = 'recall --tz Europe/Paris "every other friday at 16:00" --notify phone,mail --title x check the loss'
    assert parse_line(line) == NewRecall(
        message="check the loss",
        schedule={},
        policy={"notify": ["phone", "mail"]},
        title="x",
        words="every other friday at 16:00",
        tz="Europe/Paris",
    )


@pytest.mark.parametrize(
    ("line", "words", "message"),
    [
        ("at 18:30 --tz Asia/Tokyo look", "at 18:30 look", ""),
        ("--tz Asia/Tokyo at 18:30 look", "at 18:30 look", ""),
        ("at 18:30 look --tz Asia/Tokyo", "at 18:30 look", ""),
        ("at 18:30 look --tz=Asia/Tokyo at it", "at 18:30 look at it", ""),
        ("tomorrow at 9 --tz Asia/Tokyo -- see --help", "tomorrow at 9", "see --help"),
    ],
)
def test_options_of_a_recall_stand_anywhere(line: str, words: str, message: str) -> None:
    expected = NewRecall(message=message, schedule={}, words=words, sentence=True, tz="Asia/Tokyo")
    assert parse_line("recall " + line) == expected


@pytest.mark.parametrize(
    ("line", "message", "title"),
    [
        ('in 10m run "train.py --title no" --title "the loss" now', 'run "train.py --title no" now', "the loss"),
        ("in 10m run train.py --epochs 3", "run train.py --epochs 3", None),
        ("in 10m -- run train.py --title x", "run train.py --title x", None),
        ("in 10m look -- it matters --title x", "look -- it matters --title x", None),
        ("in 10m Bob's --title 'the loss' isn't it", "Bob's isn't it", "the loss"),
        ("--title='the loss' in 10m 'look  twice'", "look  twice", "the loss"),
    ],
)
def test_what_only_looks_like_an_option_stays_in_the_message(line: str, message: str, title: str | None) -> None:
    assert parse_line("recall " + line) == NewRecall(
        message=message, schedule={"kind": "once", "in": "10m"}, title=title
    )


@pytest.mark.parametrize("line", ["in 10m --bogus look", "--bogus in 10m look", "in 10m -x look"])
def test_an_unknown_option_beside_the_time_is_an_error(line: str) -> None:
    with pytest.raises(UsageError, match="Unknown option"):
        parse_line("recall " + line)


def test_all_recalls_are_paused_and_resumed_at_once() -> None:
    assert parse_line("recall pause all") == Action(name="pause_all")
    assert parse_line("recall resume all") == Action(name="resume_all")


def test_a_recall_takes_a_title_and_its_policy() -> None:
    line = 'recall every 1h --max-fires 3 --misfire skip --until 2027-01-01T00:00:00Z --title "the loss" check it'
    assert parse_line(line) == NewRecall(
        message="check it",
        schedule={"kind": "every", "every": "1h"},
        policy={"max_fires": 3, "misfire": "skip", "until": "2027-01-01T00:00:00Z"},
        title="the loss",
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("allow 3", "What may it do without asking?"),
        ("cancel", "Which one?"),
        ("resume", "Which one?"),
        ("allow", "Which one?"),
        ("session use", "Which one?"),
        ("recall in 10m", "What should Navi do then?"),
        ("recall in", "not a duration"),
        ("recall in 10x check", "not a duration"),
        ("recall in -5m check", "not a duration"),
        ("recall every 5 check", "not a duration"),
        ("recall at", "not a time"),
        ("recall cron 0 9 * * check", "in quotes"),
        ("recall when", "When what?"),
        ("recall when slow look", "How slow?"),
        ("recall when changed", "Which file?"),
        ("recall when true x > 1 look", "in quotes"),
        ("recall in 10m --each look", "--each goes with when"),
        ('recall "every friday"', "What should Navi do then?"),
        ("recall --tz Mars/Olympus at 9:00 check", "no time zone"),
        ("--bogus hello", "Unknown option --bogus"),
        ("--mode sideways hello", "--mode is one of"),
        ("--model", "needs a value"),
        ("-b", "nothing to ask"),
        ("--", "nothing to ask"),
    ],
)
def test_what_can_not_be_meant_is_an_error_that_says_what_to_write(line: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_line(line)
    assert says in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("line", "when", "message"),
    [
        ("recall when done, summarize it", "done", "summarize it"),
        ("recall when the cell is done, then summarize it", "done", "summarize it"),
        ("recall when this cell finishes summarize", "finished", "summarize"),
        ("recall When it ends: summarize", "done", "summarize"),
        ("recall when it's done tell me", "done", "tell me"),
        ('recall when done "summarize it"', "done", "summarize it"),
        ("recall when the kernel dies tell me", "dies", "tell me"),
        ("recall when the kernel is idle for 5m look", "idle 5m", "look"),
        ("recall when the cell is slower than 5m look", "slower 5m", "look"),
        ("recall summarize the output when done", "done", "summarize the output"),
        ("recall plot the loss as soon as the cell has failed", "failed", "plot the loss"),
    ],
)
def test_an_event_may_be_said_as_people_do(line: str, when: str, message: str) -> None:
    request = parse_line(line)
    assert isinstance(request, NewRecall)
    assert (request.schedule, request.message) == ({"kind": "when", "when": when}, message)


@pytest.mark.parametrize(
    "line",
    [
        "recall every other friday at 16:00 check the loss",
        "recall every 2 hours between 9 and 17 look",
        "recall every 2nd tuesday look",
        "recall every hour until 9pm look",
        "recall every 5 minutes 3 times look",
        "recall in 3 days at 9 look",
        "recall in an hour and a half look",
        "recall at 5pm leave",
        "recall at 2027-01-31T18:30 pay",
        "recall at 2027-01-31 18:30 pay",
        "recall on 2027-01-31T18:30 pay",
        "recall at 9:00 every weekday stand up",
        "recall at 18:30 tomorrow look",
        "recall tomorrow at 8 look",
        "recall on the last friday of the month at 5pm look",
        "recall weekdays at 9 look",
        "recall at 18:30 go home",
        "recall at 8:30 get up",
        "recall at tomorrow 18:30 go home",
        "recall in 10m, look",
        "recall in 6 months renew it",
        "recall every 4 july celebrate",
        "recall half past seven tea",
        "recall 1st and 15th of the month at 9 pay",
        "recall 9pm look",
        "recall two days from now look",
        "recall once a day at 9 look",
    ],
)
def test_a_time_that_our_forms_can_not_say_in_full_is_read_by_the_server(line: str) -> None:
    request = parse_line(line)
    assert isinstance(request, NewRecall)
    assert (request.words, request.sentence) == (line.removeprefix("recall "), True)


@pytest.mark.parametrize(
    ("line", "cell", "message"),
    [
        ("recall when done", "summarize it\nin two lines", "summarize it\nin two lines"),
        ("recall in 10m", "look", "look"),
        ('recall "every friday at 9"', "report", "report"),
        ("recall every other friday at 9", "report", "report"),
    ],
)
def test_a_cell_below_a_recall_without_a_message_is_its_message(line: str, cell: str, message: str) -> None:
    request = parse_cell(line, cell)
    assert isinstance(request, NewRecall)
    assert request.message == message


def test_code_below_a_recall_is_not_swallowed() -> None:
    with pytest.raises(UsageError, match="one percent sign: %navi recall when done summarize"):
        parse_cell("recall when done summarize", "train()")
    assert parse_cell("recall what we did", "in March") == Prompt(text="recall what we did\nin March")


def test_a_cell_is_a_prompt_with_the_line_as_its_beginning() -> None:
    assert parse_cell("", "  one\ntwo\n") == Prompt(text="  one\ntwo")
    assert parse_cell("-b explain this", "x = 1") == Prompt(text="explain this\nx = 1", wait=False)
    assert parse_cell("", "stop") == Prompt(text="stop")


def test_an_empty_cell_is_an_error() -> None:
    with pytest.raises(UsageError, match="empty"):
        parse_cell("", " \n")


def test_what_goes_along_may_be_named_more_than_once() -> None:
    prompt = parse_line("--with-output 7,8 --with-output last --attach a.csv --attach 'b c.csv' what is odd?")
    assert isinstance(prompt, Prompt)
    assert prompt.outputs == ("7", "8", "last")
    assert prompt.files == ("a.csv", "b c.csv")
    assert prompt.text == "what is odd?"


def test_every_subcommand_has_its_place_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme.partition("### From a cell")[2].partition("### ")[0]
    assert not [word for word in _SHAPES if not re.search(rf"\b{word}\b", table)]


def test_a_recall_line_says_what_the_recall_may_do_without_asking() -> None:
    for line in (
        "recall --allow run_code,write in 10m look",
        "recall in 10m look --allow run_code --allow write",
        "recall in 10m --allow=run_code,write look",
    ):
        asked = parse_line(line)
        assert isinstance(asked, NewRecall)
        assert (asked.message, asked.allow) == ("look", ("run_code", "write"))
