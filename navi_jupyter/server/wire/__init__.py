"""What only the server sends or takes: the bodies of its requests and answers, its socket's frames, its error shape.

Not responsible for the nouns themselves (``model``) or for what happens in a session (``events``). Imported by the
start task, never at extension load: building pydantic models costs tens of milliseconds.
"""

from __future__ import annotations

from typing import Any

from ...agent.profiles.files import ProfileForm
from ...commands import Command
from ...model.attachments import FactCreate, FactPatch
from ...model.recalls import RecallCreate, RecallFire, RecallPatch
from ...model.runs import KernelFunctions
from ...model.sessions import SessionCreate, SessionPatch
from .agent import McpServerEntry, NamedModel, ProviderSetting
from .agui import RunAgentInput
from .edits import EditChoice, NotebookClaim, NotebookReport
from .recalls import NotifyEntry, PreviewRequest, RecallImport
from .session_list import ForkRequest, ShareRequest
from .sessions import ReadRequest, SessionFind

INPUTS: dict[str, Any] = {
    "Command": Command,
    "SessionCreate": SessionCreate,
    "SessionPatch": SessionPatch,
    "SessionFind": SessionFind,
    "RecallCreate": RecallCreate,
    "RecallFire": RecallFire,
    "RecallPatch": RecallPatch,
    "PreviewRequest": PreviewRequest,
    "RecallImport": RecallImport,
    "ReadRequest": ReadRequest,
    "EditChoice": EditChoice,
    "NotebookClaim": NotebookClaim,
    "NotebookReport": NotebookReport,
    "ForkRequest": ForkRequest,
    "ShareRequest": ShareRequest,
    "FactCreate": FactCreate,
    "FactPatch": FactPatch,
    "KernelFunctions": KernelFunctions,
    "ProviderSetting": ProviderSetting,
    "NamedModel": NamedModel,
    "RunAgentInput": RunAgentInput,
    "ProfileForm": ProfileForm,
    "McpServerEntry": McpServerEntry,
    "NotifyEntry": NotifyEntry,
}
"""What clients send, by the name it has in the schema."""
