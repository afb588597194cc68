"""``%navi`` in a real kernel on a real server."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.kernels import NotebookKernel, Shown
from tests.support.server import JupyterServer

pytestmark = pytest.mark.slow

LONG = "count to 2000"  # half a minute and more, if nobody stops it


def session_of(server: JupyterServer, kernel: NotebookKernel) -> dict[str, Any]:
    kernel.ok("print(navi.session().id)")
    session_id = kernel.ok("print(navi.session().id)").stdout.strip()
    return dict(server.get(f"navi/api/sessions/{session_id}"))


def plain(data: dict[str, Any]) -> str:
    return str(data.get("text/plain", ""))


def test_an_answer_streams_into_the_cell_and_is_complete_when_the_cell_ends(kernel: NotebookKernel) -> None:
    shown = kernel.ok("%navi What can you do?")
    states = [plain(data) for data in shown.history]
    assert len(shown.bundles) == 1, "one output, replaced, and no second copy as the cell's result"
    assert len(states) >= 4, states
    assert len({len(state) for state in states}) >= 4, "it grew"
    assert "recall" in states[-1].lower()
    assert set(shown.last) == {"text/html", "text/markdown", "text/plain"}


def test_questions_may_contain_anything_that_ipython_gives_a_meaning(kernel: NotebookKernel) -> None:
    kernel.ok('answer = %navi what\'s {this} $HOME "about"?')
    assert kernel.ok("print(navi.session().messages[0]['content'])").stdout == 'what\'s {this} $HOME "about"?\n'
    assert kernel.ok("print(type(answer).__name__, answer.status)").stdout == "Reply completed\n"


def test_the_help_of_the_magic_is_still_there(kernel: NotebookKernel) -> None:
    assert kernel.ok("%navi?").status == "ok"
    assert "%navi recall in 10m" in kernel.ok("%navi help").stdout


def test_a_cell_is_a_prompt_with_the_values_of_variables(kernel: NotebookKernel) -> None:
    kernel.ok("rows = list(range(3))")
    kernel.ok("%%navi\nHow many are in {rows}?\nAnd in {{rows}} or {nothing}?")
    message = kernel.ok("print(navi.session().messages[0]['content'])").stdout
    assert message == "How many are in {rows}?\nAnd in {{rows}} or {nothing}?\n", "followers see what was written"
    kernel.ok("%navi what do you make of {rows}")
    reply = kernel.ok("print(navi.ask('summarise this session', show=False).text)").stdout
    assert reply


def test_without_waiting_the_cell_ends_at_once_and_the_answer_still_comes(kernel: NotebookKernel) -> None:
    shown = kernel.ok("reply = %navi -b What can you do?")
    assert len(plain(shown.last)) < 60
    kernel.next_update(lambda data: "recall" in plain(data).lower() and len(plain(data)) > 200)
    assert kernel.ok("import time\nwhile reply.status == 'running': time.sleep(.05)\nprint(reply.status)").stdout == (
        "completed\n"
    )


def test_interrupting_the_cell_stops_the_run_and_ends_the_cell_cleanly(
    server: JupyterServer, kernel: NotebookKernel
) -> None:
    interrupted = False

    def interrupt(shown: Shown) -> None:
        nonlocal interrupted
        if not interrupted and "5 " in shown.text:
            interrupted = True
            kernel.interrupt()

    shown = kernel.run(f"%navi {LONG}", seen=interrupt)
    assert interrupted
    assert (shown.status, shown.error) == ("ok", "")
    assert "(stopped)" in shown.text
    session = session_of(server, kernel)
    assert session["run"] is None
    runs = server.get(f"navi/api/sessions/{session['id']}/runs")["runs"]
    assert [run["status"] for run in runs] == ["stopped"]
    assert kernel.ok("%navi What can you do?").text


def test_interrupting_ask_stops_the_run_and_raises_one_line(server: JupyterServer, kernel: NotebookKernel) -> None:
    interrupted = False

    def interrupt(shown: Shown) -> None:
        nonlocal interrupted
        if not interrupted and "5 " in shown.text:
            interrupted = True
            kernel.interrupt()

    shown = kernel.run(f"navi.ask({LONG!r})\nprint('not reached')", seen=interrupt)
    assert shown.status == "error"
    assert shown.error == "navi: Interrupted; the run was stopped."
    assert "not reached" not in shown.stdout
    assert session_of(server, kernel)["run"] is None


def test_stop_ends_what_another_cell_started(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok(f"%navi -b {LONG}")
    assert kernel.ok("%navi stop").stdout == "Stopping.\n"
    kernel.next_update(lambda data: "(stopped)" in plain(data))
    assert session_of(server, kernel)["run"] is None
    assert kernel.ok("%navi stop").stdout == "Nothing is running.\n"


def test_a_prompt_waits_for_the_sessions_other_run(kernel: NotebookKernel) -> None:
    kernel.ok("first = %navi -b count to 60")
    kernel.ok("second = %navi What can you do?")
    assert kernel.ok("print(first.status, second.status)").stdout == "completed completed\n"
    shown = kernel.run("%navi -b count to 200\n%navi --mode reject hello")
    assert shown.status == "error"
    assert shown.error.startswith("navi: ")
    kernel.ok("%navi stop")


def test_a_recall_from_a_cell_fires_into_the_session(kernel: NotebookKernel) -> None:
    shown = kernel.ok("recall = %navi recall in 1s Summarise this session\nrecall")
    assert "Summarise this session" in plain(shown.last)
    assert "text/html" in shown.last
    waited = kernel.ok(
        "for envelope in navi.session().follow(0):\n"
        "    event = envelope['event']\n"
        "    if event.get('name') == 'navi.recall' and event['value']['action'] == 'fired':\n"
        "        break\n"
        "print(recall.status, recall.fired, recall.next_at, [f['status'] for f in recall.firings])"
    )
    assert waited.stdout == "fired 1 None ['succeeded']\n"
    prompts = kernel.ok("print([(m['origin']['kind'], m['role']) for m in navi.session().messages][0])").stdout
    assert prompts == "('recall', 'user')\n"
    away = kernel.ok("%navi away").text
    assert re.search(r"Recall: Summarise this session +completed", away)
    assert kernel.ok("print(navi.session().away('2026-01-01')[0]['status'])").stdout == "completed\n"
    assert "is not a time in ISO 8601" in kernel.run("navi.session().away('yesterday')").error


def test_a_time_in_english_is_said_back_before_it_is_saved(kernel: NotebookKernel) -> None:
    shown = kernel.ok('r = %navi recall "every other friday at 16:00" --tz Europe/Berlin check the loss')
    assert "I read 'every other friday at 16:00' as: every other Friday at 16:00 Europe/Berlin" in shown.stdout
    assert kernel.ok("print(r.schedule['every'], r.schedule['tz'])").stdout == "14d Europe/Berlin\n"


def test_a_time_of_day_and_calendar_days_are_read_alike_in_a_line_and_a_call(kernel: NotebookKernel) -> None:
    shown = kernel.ok("a = %navi recall at 18:30 --tz Asia/Tokyo look --title x")
    assert "18:30 Asia/Tokyo" in shown.stdout
    kernel.ok("b = navi.recall('look', at='18:30', tz='Asia/Tokyo')")
    assert kernel.ok("print(a.schedule['at'] == b.schedule['at'], a.title, a.message)").stdout == "True x look\n"
    days = kernel.ok("c = %navi recall in 2 days --tz Europe/Berlin look")
    assert "2 calendar days from now" in days.stdout
    hours = kernel.ok("d = %navi recall in 24h look")
    assert "24 h from now" in hours.stdout
    kernel.ok("e = navi.recall('look', every='1d', tz='Europe/Berlin'); f = navi.recall('look', every='24h')")
    assert kernel.ok(
        "print(e.schedule['tz'], e.schedule['every'], f.schedule.get('tz'), f.schedule['every'])"
    ).stdout == ("Europe/Berlin 1d None 24h\n")
    kernel.ok("for recall in (a, b, c, d, e, f): recall.cancel()")


def test_every_and_in_may_be_words_as_in_a_line(kernel: NotebookKernel) -> None:
    kernel.ok("a = navi.recall('look', every='friday at 16:00', tz='Europe/Berlin')")
    assert kernel.ok("print(a.schedule['expr'], a.schedule['tz'])").stdout == "0 16 * * 5 Europe/Berlin\n"
    kernel.ok("b = navi.recall('look', every='2 hours, 3 times')")
    assert kernel.ok("print(b.schedule['every'], b.policy['max_fires'])").stdout == "2h 3\n"
    kernel.ok("c = navi.recall('look', in_='an hour and a half', title='x')")
    assert kernel.ok("print(c.schedule['kind'])").stdout == "once\n"
    assert "I do not understand" in kernel.run("navi.recall('x', every='blue moon')").error
    assert "start goes with a duration" in kernel.run("navi.recall('x', every='monday', start='tomorrow')").error
    kernel.ok("for recall in (a, b, c): recall.cancel()")


def test_a_recall_waits_for_the_running_cell_and_all_can_be_paused(kernel: NotebookKernel) -> None:
    kernel.ok("r = %navi recall when failed --each --cooldown 1h look why")
    assert kernel.ok("print(r.schedule['event'], r.next_at)").stdout == "cell_failed None\n"
    kernel.ok("s = r.clone('tell me', retries=2, cancel_on='read')")
    assert kernel.ok("print(s.message, s.policy['retries'], s.policy['cancel_on'])").stdout == "tell me 2 ['read']\n"
    table = kernel.ok("navi.recalls()").text
    assert "each time any cell fails" in table
    assert "when it happens" in table
    paused = re.fullmatch(r"(\d+) recalls paused\.\n", kernel.ok("%navi recall pause all").stdout)
    assert paused, "all of the user's, those of other notebooks too"
    assert int(paused[1]) >= 2
    assert kernel.ok("print(r.status, s.status)").stdout == "paused paused\n"
    assert kernel.ok("%navi recall resume all").stdout == f"{paused[1]} recalls resumed.\n"
    assert kernel.ok("print(r.status, s.status)").stdout == "pending pending\n"


def test_recalls_are_listed_paused_resumed_and_cancelled(kernel: NotebookKernel) -> None:
    assert kernel.ok("%navi recalls").text == "No recalls are waiting."
    kernel.ok('r = %navi recall cron "0 9 * * 1-5" --tz Europe/Berlin --max-fires 3 stand up')
    kernel.ok("s = navi.recall('check the loss', every='1h', title='loss', misfire='skip')")
    shown = kernel.ok("%navi recalls")
    assert "stand up" in shown.text
    assert "every 1h" in shown.text
    assert "<table>" in shown.last["text/html"]
    assert kernel.ok("print(r.schedule['tz'], r.policy['max_fires'], s.title)").stdout == "Europe/Berlin 3 loss\n"
    assert kernel.ok("print(r.pause().status, r.next_at, r.resume().status, r.next_at is None)").stdout == (
        "paused None pending False\n"
    )
    assert "cancelled" in kernel.ok("get_ipython().run_line_magic('navi', 'cancel ' + r.id)").text
    kernel.ok("s.cancel()")
    assert kernel.ok("print(len(navi.recalls()), len(navi.recalls(over=True)))").stdout == "0 2\n"


def test_a_recall_is_given_leave_and_loses_it(kernel: NotebookKernel) -> None:
    made = kernel.ok("a = %navi recall every 1h --allow run_code,write --title plot update the plot")
    assert "It may use run_code, effect:write without asking. To revoke that: %navi revoke " in made.stdout
    table = kernel.ok("%navi recalls").text
    assert "run_code, write" in table
    kernel.ok("b = navi.recall('look', every='1h', allow='run')")
    assert kernel.ok("print(a.allowed, b.allowed)").stdout == "('run_code', 'effect:write') ('effect:run',)\n"
    kernel.ok("%navi revoke plot")
    kernel.ok("b.revoke('run')\n%navi allow plot run_code")
    assert kernel.ok("print(a.refresh().allowed, b.allowed)").stdout == "('run_code',) ()\n"
    assert "may run_code" in kernel.ok("print(repr(a))").stdout
    kernel.ok("%navi fire plot --allow write")
    assert kernel.ok("print(a.refresh().allowed, a.clone(allow=[]).cancel().allowed)").stdout == (
        "('run_code', 'effect:write') ()\n"
    )
    refused = kernel.run("%navi recall every 1h --allow run_cod look").error
    assert "Did you mean 'run_code'?" in refused
    kernel.ok("for recall in (a, b): recall.cancel()")


def test_a_recall_is_named_by_its_number_its_title_or_a_short_form_of_its_id(kernel: NotebookKernel) -> None:
    made = kernel.ok("a = %navi recall every 1h --title loss check the curve\na")
    handle = kernel.ok("print(a.id[-4:])").stdout.strip()
    assert f"To cancel it: %navi cancel {handle}" in made.stdout
    kernel.ok("b = %navi recall every 2h water the plants\nc = %navi recall every 3h water the lawn")
    table = kernel.ok("%navi recalls").text
    assert re.search(r"^#  +id ", table, re.MULTILINE)
    assert re.search(rf"^3 +{handle} +loss: check the curve +every 1h", table, re.MULTILINE), table
    ids = kernel.ok("print(a.id, b.id, c.id)").stdout.split()
    assert not [one for one in ids if one in made.text + table]

    kernel.ok("%navi pause loss")
    kernel.ok(f"%navi resume {handle}")
    assert kernel.ok("print(a.status)").stdout == "pending\n"
    kernel.ok("navi.recall('a newer one, which takes the first row', every='4h')")
    kernel.ok("%navi cancel 1")
    assert kernel.ok("print(a.status, b.status, c.status)").stdout == "pending pending cancelled\n", (
        "the number is that of the list that was shown"
    )
    kernel.ok("%navi cancel water")
    assert kernel.ok("print(a.status, b.status)").stdout == "pending cancelled\n"
    kernel.ok("%navi cancel 3")
    assert kernel.ok("print(a.status)").stdout == "cancelled\n"


def test_what_names_no_recall_or_several_is_an_error_that_lists_them(kernel: NotebookKernel) -> None:
    kernel.ok("a = %navi recall every 2h water the plants\nb = %navi recall every 3h water the lawn")
    several = kernel.run("%navi cancel water").error
    assert re.search(r"'water' names 2 recalls: 'water the lawn' \(....\) and 'water the plants' \(....\)", several)
    none = kernel.run("%navi cancel coffee").error
    assert "No recall is called 'coffee'. There is 'water the lawn'" in none
    assert "%navi -- cancel coffee" in none
    assert "There is no recall 9: the list has 2" in kernel.run("%navi cancel 9").error
    asked = kernel.ok("r = %navi pause what you do with the coffee machine\nprint(type(r).__name__)")
    assert "Reply" in asked.stdout, "several words that name nothing are a question"
    assert kernel.ok("print(a.status, b.status)").stdout == "pending pending\n"


def test_times_are_on_the_readers_clock_and_name_a_zone_only_where_it_is_another(kernel: NotebookKernel) -> None:
    kernel.ok('a = %navi recall cron "0 9 * * *" --tz Asia/Tokyo tea\nb = %navi recall cron "0 9 * * *" --tz UTC rest')
    table = kernel.ok("%navi recalls").text
    assert re.search(r"tea +cron 0 9 \* \* \* \(Asia/Tokyo\) .* 00:00 \(in [^;]+; 09:00 Asia/Tokyo\)", table), table
    assert re.search(r"rest +cron 0 9 \* \* \* +pending .* 09:00 \(in \w+\)", table), table
    assert "UTC" not in table


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%navi recall in 10x check", "not a duration"),
        ("%navi recall at 25:00 check", "hours go to 23"),
        ("navi.recall('x', at='25:00')", "hours go to 23"),
        ("navi.recall('x', at='every day at 9')", "more than one time"),
        ("navi.recall('x', at=5)", "at: 5 is not a time"),
        ("navi.recall('x', in_=float('nan'))", "nan is not a duration"),
        ("navi.recall('x', every=True)", "True is not a duration"),
        ('%navi recall cron "0 0 31 2 *" never', ""),
        ("%navi recall at 2001-01-01T00:00 too late", ""),
        ('%navi recall when true "loss <" tell me', "no Python expression"),
        ('%navi recall "as you like it" look', "as a time"),
        ("navi.recall('x', when='tomorrow')", "nothing to wait for"),
        ("%navi cancel rec_000000000000000000000000", ""),
        ("%navi session use s_000000000000000000000000", ""),
        ("%navi model no-such-provider:x", ""),
        ("%navi --bogus", "Unknown option"),
        ("%navi recall", "Something is missing"),
        ("%navi sesion list", "Did you mean %navi session list?"),
        ("%navi cancel lost title", "No recall is called"),
        ("%navi deny wrong file", "No question is open"),
        ("navi.recall('x')", "Say when"),
        ("navi.recall('x', in_='1m', every='1h')", "Say when"),
        ("navi.recall('x', in_='1m', bogus=1)", "bogus"),
        ("navi.ask('')", "nothing to ask"),
        ("navi.session('s_none').messages", ""),
        ("navi.session('no such title')", "No session is called"),
    ],
)
def test_errors_are_one_readable_line(shared_kernel: NotebookKernel, line: str, says: str) -> None:
    shown = shared_kernel.run(line)
    assert shown.status == "error"
    assert shown.error.startswith("navi: "), shown.error
    assert "\n" not in shown.error
    assert len(shown.error) > 20
    assert says in shown.error


def test_the_status_and_the_settings_of_the_session(kernel: NotebookKernel) -> None:
    status = kernel.ok("%navi").stdout
    assert re.search(r"idle, model offline, profile \S+, 0 recalls waiting", status)
    assert "%navi TEXT" in status
    assert "→  offline" in kernel.ok("%navi model").text
    assert kernel.ok("%navi model offline").stdout == "The session's model is now offline; new sessions have it, too.\n"
    assert kernel.ok("%navi profile").text


def test_sessions_are_made_changed_and_listed(kernel: NotebookKernel) -> None:
    first = kernel.ok("print(navi.session().id)").stdout.strip()
    kernel.ok("%navi session new")
    second = kernel.ok("print(navi.session().id)").stdout.strip()
    assert second != first
    listing = kernel.ok("%navi session list").text
    assert first not in listing, "ids are for programs"
    row = re.search(rf"^(\d+) +{first[-4:]} ", listing, re.MULTILINE)
    assert row, listing
    assert re.search(rf"→ +{second[-4:]}", listing)
    kernel.ok(f"%navi session use {row[1]}")
    assert kernel.ok("print(navi.session().id)").stdout.strip() == first
    kernel.ok(f"navi.session({second[-6:]!r}).change(title='Night shift')")
    assert kernel.ok("print(navi.session('night').id)").stdout.strip() == second
    kernel.ok("%navi session use night shift")
    assert kernel.ok("print(navi.session().id)").stdout.strip() == second
    shown = kernel.ok("print(navi.session()); navi.session()")
    assert second not in shown.text + str(shown.last)


def test_the_conversation_is_exported_and_nothing_is_overwritten(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok("%navi What can you do?")
    for kind in ("md", "ipynb", "json"):
        kernel.ok(f"%navi export {kind} talk.{kind}")
        assert "What can you do?" in (server.root / f"talk.{kind}").read_text()
    assert "--force" in kernel.run("%navi export talk.md").error
    kernel.ok("%navi export talk.md --force")
    assert kernel.ok("%navi export").stdout != kernel.ok("%navi export").stdout
    assert "What can you do?" in kernel.ok("print(navi.session().export())").stdout


def test_awaiting_an_answer_leaves_the_kernels_loop_free(kernel: NotebookKernel) -> None:
    shown = kernel.ok(
        "import asyncio\n"
        "ticks = 0\n"
        "async def tick():\n"
        "    global ticks\n"
        "    while True:\n"
        "        await asyncio.sleep(.01); ticks += 1\n"
        "ticking = asyncio.create_task(tick())\n"
        "reply = await navi.ask_async('What can you do?')\n"
        "ticking.cancel()\n"
        "print(reply.status, ticks > 10)"
    )
    assert shown.stdout == "completed True\n"
    assert len(shown.history) >= 4


def test_loading_the_extension_twice_and_unloading_it_does_no_harm(kernel: NotebookKernel) -> None:
    kernel.ok("%reload_ext navi_jupyter")
    kernel.ok("%load_ext navi_jupyter")
    assert kernel.ok("%navi What can you do?").text
    kernel.ok("%unload_ext navi_jupyter")


def test_a_server_that_is_not_found_is_told_in_one_line(open_kernel: Callable[..., NotebookKernel]) -> None:
    lost = open_kernel()
    lost.ok(
        "import os\n"
        "for name in ('NAVI_CONNECTION_FILE', 'JPY_PARENT_PID'): os.environ.pop(name, None)\n"
        "%load_ext navi_jupyter"
    )
    shown = lost.run("%navi hello")
    assert shown.error.startswith("navi: No Navi server found")
    assert "NAVI_SERVER_URL" in shown.error
    assert "\n" not in shown.error
    assert "No Navi server found" in lost.ok("%navi").stdout
    lost.ok("os.environ['NAVI_SERVER_URL'] = 'http://127.0.0.1:9/'")
    shown = lost.run("%navi hello")
    assert "does not answer" in shown.error
    assert "\n" not in shown.error
