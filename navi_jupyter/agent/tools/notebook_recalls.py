"""Recalls that execute a notebook: made by an agent, with the user's approval of this very notebook and schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, JsonValue

from ...errors import InvalidRequest, NaviError, ToolDenied
from ...model.base import Title
from ...model.recalls import NotebookJob, Policy, RecallCreate, ScheduleSpec
from ...model.runs import Effect
from ...model.sessions import OriginKind
from ...ports.agent import ToolContext, tool_context
from .base import tool
from .call_details import CallDescription, argument_parts, code_part, fingerprint_of, text_part
from .recall_details import time_words
from .recalls import POLICY_FIELD, changed_result, policy_in, schedule_in

NEEDS = ("run_code", "write_file")
"""The tools without which an agent may not have a notebook executed: it is code, and it leaves a file."""


async def recall_notebook(
    path: Annotated[str, Field(description="The notebook, relative to the server's folder.", max_length=1000)],
    when: Annotated[
        str | None, Field(description="The time, as `create_recall` takes it. Give either this or `schedule`.")
    ] = None,
    schedule: Annotated[ScheduleSpec | None, Field(description="The exact schedule, instead of `when`.")] = None,
    parameters: Annotated[
        dict[str, JsonValue] | None,
        Field(description="Variables that are set after the cell with the tag `parameters`, by name."),
    ] = None,
    kernel: Annotated[str | None, Field(description="Another kernel than the notebook's own, by its name.")] = None,
    output: Annotated[
        str | None,
        Field(description="The folder of the results, relative to the notebook's; default `<name>-results`."),
    ] = None,
    then: Annotated[
        str | None,
        Field(
            description="What to do with each result, written for the one who will read it then; without it no model."
        ),
    ] = None,
    title: Annotated[Title | None, Field(description="A few words for lists.")] = None,
    policy: Annotated[Policy | None, POLICY_FIELD] = None,
) -> dict[str, Any]:
    """Have a notebook executed at a time, once or again and again, without you: each run makes a dated copy of it.

    The user is asked first. Check the answer's `next` against what was meant, and give the user that time.
    """
    context = tool_context.get()
    zone = context.session.timezone
    spec, bounds, note, period = await schedule_in(when, schedule, zone)
    if spec is None:
        raise InvalidRequest("Give either `when` or `schedule`.", field="when")
    try:
        job = NotebookJob(path=path, parameters=parameters or {}, kernel=kernel, output=output, then=then)
    except ValueError as error:
        raise InvalidRequest(str(error), field="path") from None
    request = RecallCreate(
        session_id=context.session.id,
        message=f"Run {job.path}",
        title=title,
        schedule=spec,
        policy=await policy_in(Policy(), policy, bounds, None, None, None, zone),
        run=job,
    )
    recall = await context.recalls.create(request, owner=context.user_id, zone=zone, by_agent=True, code=True)
    return changed_result(recall, zone, period, note)


async def _asks(args: Mapping[str, Any], context: ToolContext) -> str:
    """The question about this very job. Raises ToolDenied, InvalidRequest where an agent may not have it executed."""
    if context.origin.kind is OriginKind.RECALL:
        raise ToolDenied(
            "A recall started this run, and cannot make one that executes a notebook: only the user can allow that,"
            " when they are there."
        )
    await context.recalls.check_leave(
        NEEDS, session_id=context.session.id, owner=context.user_id, profiles=context.profiles
    )
    return f"May a recall execute the notebook {args.get('path')}, each time without asking?"


async def _describe(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    """What would be executed, and when: with the notebook's code as it is now."""
    path = str(args.get("path"))
    code = await _code_of(path, context)
    details = (
        text_part("When", await time_words(args, context.session.timezone)),
        text_part("Notebook", path),
        code_part("Its code as it is now", code),
        *argument_parts(args, ("when", "schedule", "path")),
    )
    return CallDescription(details=details, fingerprint=fingerprint_of(path, code))


async def _code_of(path: str, context: ToolContext) -> str:
    if context.jupyter.notebooks is None:
        return ""
    try:
        notebook = await context.jupyter.notebooks.read(context.session, path)
    except NaviError as error:
        return f"# {error.message}"  # the call reports it
    sources = [cell.source for cell in notebook.cells if cell.kind == "code" and cell.source.strip()]
    return await asyncio.to_thread("\n\n".join, sources)


TOOLS = (tool(recall_notebook, Effect.RUN, asks=_asks, describes=_describe, own=True),)
