"""The magics ``%navi`` and ``%%navi``. Synchronous, because IPython does not await magics.

Not responsible for what a line means (``command_line``) or for how a run looks (``render``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from ..handles import row_number, short_handle
from ..text import code_block, plural
from . import api
from .answer_code import WISH, insert_code
from .ask import PendingPrompt
from .attachments import KernelAttachment
from .client.client import current_service
from .display import cell_outputs
from .display.listing import Listing
from .display.painters import painter_here
from .display.question_text import QuestionListing, question_message
from .display.render import usage_words
from .errors import Interrupted, KernelError, NoSuchItem, Refused, UsageError
from .grammar.answers import UserAnswer, named_option, payload_from
from .grammar.command_line import HELP, Action, Prompt, Request, interpolate, parse_cell, parse_line, parse_prompt
from .grammar.mistakes import is_sentence
from .grammar.notebook_job import job_of
from .grammar.recall_command import NewRecall, leave_names
from .grammar.times import reader_zone
from .programs.recall_line import plan_of
from .recall_keywords import policy_from
from .recalls import Recall, change_all, find_recall, new_recall
from .reply import Reply
from .session import Session, zone_words
from .session_list import session_action
from .shell import current_shell, print_line, show

_LONGEST_SOURCE = 4000  # characters of a cell's source that go with its output


@magics_class
class NaviMagics(Magics):
    """Registered by ``%load_ext navi_jupyter``."""

    # IPython would evaluate what is in braces. Navi only looks names up, and leaves JSON and code in a prompt alone.
    @line_cell_magic
    @no_var_expand
    def navi(self, line: str, cell: str | None = None) -> Any:
        """Ask Navi, or give it a command. ``%navi`` alone shows the status; ``%navi help`` the commands."""
        return self._do(parse_line(line) if cell is None else parse_cell(line, cell))

    def _do(self, request: Request) -> Any:
        match request:
            case Prompt():
                return self._ask(request)
            case NewRecall():
                return self._recall(request)
            case Action(name="deny" | "answer", options={"else": words}) if not api.session().approvals:
                if not is_sentence(words):
                    raise NoSuchItem(f"No question is open in this session. To ask Navi instead: %navi -- {words}")
                return self._ask(parse_prompt(f"-- {words}"))
            case Action():
                return self._act(request)

    def _act(self, action: Action) -> Any:
        try:
            return _ACTIONS[action.name](action)
        except NoSuchItem as error:
            sentence = action.options.get("else")
            # A misspelt title: what there is helps more than an agent that is asked to guess.
            if sentence is None or not is_sentence(sentence):
                hint = "" if sentence is None else f" To ask Navi instead: %navi -- {sentence}"
                raise NoSuchItem(error.message + hint) from None
            return self._ask(parse_prompt(f"-- {sentence}"))

    def _recall(self, request: NewRecall) -> Recall | Reply | None:
        service, target = current_service(), _target(request.session)
        try:
            schedule, policy, message = plan_of(service, request, session_id=target.id, say=print_line)
        except Refused as refused:
            if request.words is not None and request.sentence and refused.server_code == "invalid_request":
                rest = f" -- {request.message}" if request.message else ""
                return self._ask(parse_prompt(f"-- recall {request.words}{rest}"))  # no time in it: for the agent
            raise
        policy = policy_from(service, policy, tz=request.tz, session_id=target.id)
        message = self._filled(message)
        run = job_of(message, request.job, lambda: target.state["notebook_path"])
        recall = new_recall(
            service, target.id, message, schedule, title=request.title, policy=policy, allow=request.allow, run=run
        )
        if recall.allowed:
            print_line(
                f"It may use {', '.join(recall.allowed)} without asking. To revoke that: %navi revoke {recall.handle}"
            )
        print_line(f"To cancel it: %navi cancel {recall.handle}")
        return recall

    def _ask(self, prompt: Prompt) -> Reply | None:
        text = self._filled(prompt.text) if prompt.interpolate else prompt.text
        # Images go to the model as images; everything else as files, which tools can read.
        outputs, sources = self._outputs(prompt)
        files = [*(file for file in outputs if not file.is_image), *prompt.files]
        sources += f"\n\n{WISH}" if prompt.insert else ""
        pending = _target(prompt.session).asking(
            text + sources,
            show=painter_here(),
            model=prompt.model,
            mode=prompt.mode,
            display=None if text + sources == prompt.text else prompt.text,
            images=[file for file in outputs if file.is_image],
            files=files,
        )
        if not prompt.wait:
            return pending.start()
        reply = _waited(pending)
        if prompt.insert and reply.status == "completed":
            insert_code(reply.text)
        return reply

    def _outputs(self, prompt: Prompt) -> tuple[list[KernelAttachment], str]:
        """The files of the outputs that ``--with-output`` names, and the source of their cells for the model."""
        files, sources = [], ""
        for which in prompt.outputs or _error_meant(prompt):
            found, source = cell_outputs.outputs_of(current_shell(), which)
            files += found
            names = ", ".join(file.name for file in found)
            sources += f"\n\n[{names}: the output of this cell]\n{code_block(source[:_LONGEST_SOURCE].strip())}"
        return files, sources

    def _filled(self, text: str) -> str:
        return interpolate(text, current_shell().user_ns, _shown)


def _error_meant(prompt: Prompt) -> tuple[str, ...]:
    """The cell whose error goes along by itself: the last that failed, with a prompt by name that is about an error."""
    word = prompt.text.split(maxsplit=1)[0] if prompt.text.startswith("/") else ""
    failed = cell_outputs.last_failed() if word and not prompt.files else None
    if failed is None:
        return ()
    listed = current_service().call("GET", "prompts")["prompts"]
    about_errors = any(f"/{one['name']}" == word and one["text"] and "{error}" in one["text"] for one in listed)
    return (failed,) if about_errors else ()


def _waited(pending: PendingPrompt) -> Reply:
    try:
        return pending.wait()
    except Interrupted:
        return pending.reply(waited=False)


def _target(named: str | None) -> Session:
    """The session that is named or this notebook's; what the user should know about the latter is printed once."""
    session, service = api.session(named), current_service()
    if service.note and named is None:
        print_line(service.note)
        service.note = None
    return session


def _shown(value: Any) -> str:
    """A value as the notebook would show it in plain text (which is short for long lists and data frames)."""
    formatted, _ = current_shell().display_formatter.format(value, include={"text/plain"})
    return str(formatted.get("text/plain", repr(value)))


def _status_text() -> str:
    """One paragraph. A server that is not found is part of the status, not an error."""
    try:
        service = current_service()
        health = service.call("GET", "health")
        state = api.session().state
    except KernelError as problem:
        return f"Navi is not available: {problem}"
    doing = "busy" if state["run"] else "idle"
    return (
        f"Navi {health['version']} at {service.connection.url}\n"
        f"session {state['title']!r} ({short_handle(state['id'])}), {doing}, model {state['model']}, "
        f"profile {state['profile']}, {plural(len(api.recalls()), 'recall')} waiting"
    )


def _change_all(action: Action) -> None:
    word = action.name.removesuffix("_all")
    print_line(f"{plural(change_all(current_service(), word), 'recall')} {word}d.")


def _change_recall(action: Action) -> Recall:
    recall = find_recall(current_service(), action.args[0], session_id=api.session().id)
    names = leave_names(action.options.get("allow", ""))
    if action.name == "allow":
        return recall.allow(*names)
    change: Callable[..., Recall] = getattr(recall, action.name)
    return change(allow=names) if names else change()


def _setting(name: str, plural: str, action: Action) -> Listing[dict[str, Any]] | None:
    """Without a name, the list of what is available; with one, use it in this session."""
    session = api.session()
    if action.args:
        also = "; new sessions have it, too" if name == "model" else ""  # the server keeps it for them
        print_line(f"The session's {name} is now {session.change(**{name: action.args[0]})[name]}{also}.")
        return None
    chosen = session.state[name]

    def row(item: dict[str, Any]) -> list[str]:
        mark = "→" if item["name"] == chosen else ""
        return [mark, item["name"], item.get("description") or "", item.get("why") or ""]

    items = current_service().call("GET", plural)[plural]
    return Listing(items, ("", name, "", "needs"), row, empty=f"There are no {plural}.")


def _export(action: Action) -> None:
    kind, file = action.args
    session = api.session()
    path = Path(file) if file else _free_name(session.id, kind)
    # The kernel's disk is the user's: a typing error must not replace a file of theirs.
    if path.exists() and "force" not in action.options:
        raise UsageError(f"{path} is there already: add --force to replace it.")
    session.export(path, format=kind)
    print_line(f"Saved the conversation as {path}.")


def _free_name(session_id: str, kind: str) -> Path:
    stem = f"navi-{session_id.rpartition('_')[2][:8]}"
    names = (Path(f"{stem}{'' if n == 1 else f'-{n}'}.{kind}") for n in range(1, 10_000))
    return next(path for path in names if not path.exists())


def _approve(action: Action) -> Reply | None:
    question = _question(api.session().approvals, action.args[0] if action.args else "", kind="approval")
    always = {"always": "session"} if "always" in action.options else {}
    return _decide(action, question, UserAnswer("resolved", {"approved": True, **always}), "Approved")


def _deny(action: Action) -> Reply | None:
    asked = api.session().approvals
    chosen, reason = _named_question(asked, *action.args, numbers=True)
    question = _question(asked, chosen)
    denial = {"approved": False, **({"message": reason} if reason else {})}
    decision = UserAnswer("resolved", denial) if question["kind"] == "approval" else UserAnswer("cancelled")
    return _decide(action, question, decision, "Denied")


def _answer(action: Action) -> Reply | None:
    asked = api.session().approvals
    # While one question is open, a number is the value that it asks for.
    chosen, text = _named_question(asked, *action.args, numbers=len(asked) > 1 and " " in action.args[1])
    question = _question(asked, chosen)
    if question["kind"] == "approval":
        decision = UserAnswer("resolved", option=named_option(question.get("options") or (), text))
    else:
        decision = UserAnswer("resolved", payload_from(question.get("response_schema") or {}, text))
    return _decide(action, question, decision, "Answered")


def _decide(action: Action, question: dict[str, Any], decision: UserAnswer, word: str) -> Reply | None:
    """Answer, then wait here for the run that goes on, unless the line has ``-b``."""
    waits = "no-wait" not in action.options
    going_on = api.session().decide(question, decision, show=painter_here(), waits=waits)
    print_line(f"{word}: {question_message(question['message'], question.get('source'))}")
    return _waited(going_on) if waits else None


def _named_question(asked: Listing[dict[str, Any]], chosen: str, text: str, *, numbers: bool) -> tuple[str, str]:
    """The question that the first word of ``text`` names, if it names one, and the rest of the text."""
    word, _, rest = text.partition(" ")
    ids = [name.id for name in asked.names]
    named = numbers and row_number(word) in range(1, len(ids) + 1)
    if not chosen and (named or word in [short_handle(each, ids) for each in ids]):
        return word, rest.strip()
    return chosen, text


def _question(asked: Listing[dict[str, Any]], chosen: str, *, kind: str | None = None) -> dict[str, Any]:
    """The open question that is named, else the only one of its kind. Raises UsageError."""
    if chosen:
        question_id = asked.find(chosen)
        questions = [question for question in asked if question["id"] == question_id]
    else:
        questions = [question for question in asked if kind in (None, question["kind"])]
    if not questions:
        raise UsageError("No such question is open in this session.")
    if len(questions) > 1:
        raise UsageError(f"{len(questions)} questions are open: name one by its number in %navi approvals.")
    return questions[0]


def _unqueue(action: Action) -> None:
    session = api.session()
    queue = session.queue
    command_id = queue.find(action.args[0])
    session.unqueue(command_id)
    print_line(f"Withdrawn: {next((name.title for name in queue.names if name.id == command_id), 'the prompt')}")


def _usage(_: Action) -> None:
    spent = current_service().call("GET", "usage", query={"tz": reader_zone() or "UTC"})
    print_line(f"this session:  {usage_words(api.session().usage) or 'nothing yet'}")
    for name, words in (("today", "today"), ("last_30_days", "last 30 days"), ("total", "in all")):
        print_line(f"{words + ':':<14} {usage_words(spent.get(name) or {}) or 'nothing yet'}")


def _tools(_: Action) -> Listing[dict[str, Any]]:
    def row(tool: dict[str, Any]) -> list[str]:
        summary = (tool.get("description") or "").partition("\n")[0]
        return [tool["name"], tool.get("permission") or "", tool.get("source") or "", tool.get("why") or summary]

    tools = current_service().call("GET", "tools", query={"session_id": api.session().id})["tools"]
    return Listing(tools, ("tool", "may run", "from", ""), row, empty="There are no tools.")


def _mcp(_: Action) -> Listing[dict[str, Any]]:
    return Listing(
        current_service().call("GET", "mcp")["mcp"],
        ("server", "status", ""),
        lambda server: [server["name"], server["status"], server.get("why") or ""],
        empty="No MCP server is configured: put mcpServers into navi/mcp.json in Jupyter's config directory.",
    )


def _forget(action: Action) -> None:
    api.forget(action.args[0])
    print_line("Forgotten.")


_ACTIONS: dict[str, Callable[[Action], Any]] = {
    "status": lambda _: print_line(f"{_status_text()}\n\n{HELP}", end=""),
    "help": lambda _: print_line(HELP, end=""),
    "stop": lambda _: print_line("Stopping." if api.session().stop() else "Nothing is running."),
    "recalls": lambda action: api.recalls(all="all" in action.options, over="all" in action.options),
    "away": lambda _: api.session().away(),
    **dict.fromkeys(("cancel", "pause", "resume", "fire", "allow", "revoke"), _change_recall),
    **dict.fromkeys(("pause_all", "resume_all"), _change_all),
    "session": session_action,
    **dict.fromkeys(("profile", "profiles"), lambda action: _setting("profile", "profiles", action)),
    **dict.fromkeys(("model", "models"), lambda action: _setting("model", "models", action)),
    "timezone": lambda action: print_line(zone_words(api.session(), *action.args)),
    "export": _export,
    "chat": lambda _: show(api.chat()),
    "approve": _approve,
    "deny": _deny,
    "answer": _answer,
    "approvals": lambda action: QuestionListing(api.session().approvals, whole="all" in action.options),
    "queue": lambda _: api.session().queue,
    "unqueue": _unqueue,
    "usage": _usage,
    "tools": _tools,
    "mcp": _mcp,
    "remember": lambda action: print_line(f"Remembered: {api.remember(action.args[0])['text']}"),
    "memory": lambda action: api.memory(*action.args),
    "forget": _forget,
}
