"""What time it is."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ...clock import now, zone_or_utc
from ...errors import InvalidRequest
from ...model.runs import Effect
from ...ports.agent import tool_context
from ...timetext.format import say_time
from .functions import tool


async def current_time(
    timezone: Annotated[
        str | None, Field(description="IANA name, e.g. Asia/Tokyo. Default: the user's zone.", max_length=64)
    ] = None,
) -> dict[str, Any]:
    """The current date and time, in the user's time zone or a given one."""
    name = timezone or tool_context.get().session.timezone
    zone = zone_or_utc(name)
    if timezone is not None and str(zone) != timezone:
        raise InvalidRequest(f"{timezone!r} is no time zone I know; name one like Europe/Berlin.", field="timezone")
    at = now().astimezone(zone)
    return {"now": at.isoformat(timespec="seconds"), "timezone": str(zone), "said": say_time(at, str(zone))}


TOOLS = (tool(current_time, Effect.READ),)
