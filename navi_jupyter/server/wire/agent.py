"""Bodies about what can be used here (profiles, models, tools, MCP servers, memory), and the server's health."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ...model.attachments import Fact
from ...model.base import Value
from ...model.runs import Effect, Permission, RunLimits


class ProfileInfo(Value):
    """A named configuration of the agent."""

    name: str
    description: str
    builtin: bool
    own: bool = False  # your own, by ``PUT profiles/{name}``
    path: str | None  # the file that it comes from
    model: str | None  # the model of new sessions with this profile that name none
    tools: tuple[str, ...]  # names or patterns; ``!`` excludes
    permissions: dict[str, Permission]
    headless: Literal["queue", "deny"]
    """What happens to questions of a run that a recall started: they wait for the user, or are denied."""
    mcp: tuple[str, ...]
    context: dict[str, bool]
    workers: tuple[str, ...]
    limits: RunLimits
    available: bool
    why: str | None  # what is wrong with it, of a file with its line; null when nothing is


class ProfilePage(Value):
    """``GET profiles``."""

    profiles: tuple[ProfileInfo, ...]
    next: str | None


class ModelInfo(Value):
    """A model."""

    name: str  # as sessions and prompts name it
    provider: str
    available: bool
    why: str | None  # what to do to make it usable; null when it is
    command: str | None = None
    """Of an agent program (``acp:…``): the one command that makes it usable, where it is not; null: there is none."""


class ModelPage(Value):
    """``GET models``: the offline one, those in use, suggestions."""

    models: tuple[ModelInfo, ...]
    next: str | None


class ToolInfo(Value):
    """A tool that runs can call."""

    name: str
    description: str
    parameters: dict[str, Any]  # JSON schema of its arguments
    effect: Effect | None  # null for a tool that could not be loaded
    source: str  # ``builtin``, ``package:<distribution>``, ``kernel``, ``mcp:<server>``
    permission: Permission | None
    """What holds when neither profile nor session decides; null for what could not be loaded."""
    available: bool
    why: str | None  # what to do to make it usable; null when it is


class ProviderInfo(Value):
    """A provider of models, and the one thing that it needs."""

    name: str  # the prefix of its model strings
    label: str
    setting: str  # the environment variable, or the name under which it is stored
    kind: Literal["key", "address"]
    prefixes: tuple[str, ...] = ()  # what its keys begin with, where those of no other provider do
    installed: bool  # whether its package is there
    source: Literal["environment", "stored"] | None  # where it is set; null: nowhere
    available: bool
    why: str | None  # why it cannot be used; null when it can


class LocalServer(Value):
    """A server of models that answers on this machine and is not set up yet."""

    name: str  # the prefix of its model strings once its address is stored
    label: str
    url: str
    models: tuple[str, ...]


class ProviderPage(Value):
    """``GET providers``."""

    providers: tuple[ProviderInfo, ...]
    local: tuple[LocalServer, ...]
    may_store: bool  # whether keys and addresses may be stored on this server
    file: str | None  # where they are; null when they may not
    next: str | None


class ProviderSetting(Value):
    """Body of ``PUT providers/{name}``: a key, or an address."""

    value: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


class NamedModel(Value):
    """Body of ``POST models/test`` and ``PUT models/preferred``."""

    model: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class ModelPreference(Value):
    """The model of your new sessions."""

    model: str  # what a session gets that names none
    chosen: str | None  # what you have chosen; null: nothing
    why: str | None  # why the one that you have chosen is not used, in a sentence; null where it is
    default: str  # what it is where nothing is chosen: the administrator's


class ModelTestResult(Value):
    """Whether a model answered a short request."""

    ok: bool
    message: str  # what to do; how long it took when it answered
    seconds: float


class ToolPage(Value):
    """``GET tools``."""

    tools: tuple[ToolInfo, ...]
    next: str | None


class McpToolNote(Value):
    """A tool of an MCP server that runs are not offered, or whose results are not checked."""

    tool: str  # its name at the server
    why: str


class McpServerInfo(Value):
    """A configured MCP server."""

    name: str
    status: Literal["configured", "starting", "ready", "failed", "stopped", "disabled"]
    """``configured``: not started, because no run has used it yet."""
    available: bool  # whether a run can use it, or will once it has started
    why: str | None  # why it cannot be used; null when it can
    transport: Literal["stdio", "http"]
    protocol: str | None  # the version of MCP in use; null when it is not ready
    tools: int  # how many of its tools can be used; 0 when it is not ready
    notes: tuple[McpToolNote, ...] = ()
    own: bool = False  # your own, by ``PUT mcp/{name}``
    host: str | None = None  # of your own; the rest of its address may be a key
    file: str  # where it is configured


class McpServerEntry(Value):
    """Body of ``PUT mcp/{name}``: a server of `mcpServers` that is reached by a URL."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    type: Literal["http", "streamable-http", "streamable_http", "streamableHttp"] = "http"
    headers: Annotated[
        dict[str, Annotated[str, StringConstraints(max_length=8000)]], Field(max_length=50, default_factory=dict)
    ]
    """Sent with each request, as they are: ``${NAME}`` is refused, since the variables are the server's."""
    disabled: bool = False
    trust_hints: bool = False  # whether what it says of its own tools (that one only reads) decides what asks
    protocol: Literal["auto", "legacy"] = "auto"
    call_timeout: Annotated[float, Field(gt=0, le=86_400)] = 300.0  # seconds without an answer or progress


class McpProblem(Value):
    """A configuration file that cannot be read."""

    file: str
    message: str


class McpPage(Value):
    """``GET mcp``."""

    mcp: tuple[McpServerInfo, ...]
    problems: tuple[McpProblem, ...]
    next: str | None


class MemoryPage(Value):
    """``GET memory``: what the agent remembers about the user."""

    memory: tuple[Fact, ...]
    next: str | None


class Health(Value):
    """``GET health``. Counts are of this server process."""

    status: Literal["ok", "starting", "failed", "stopping"]
    version: str
    sessions: int  # sessions in memory
    runs: int  # runs in progress
    recalls: int  # recalls that are pending, running or paused, of all owners whom this server serves
    followers: int
    save_transcripts: bool = True  # whether notebooks are saved with answers and transcripts
    loop_lag_ms: float  # the longest delay of the event loop seen in the last ten seconds
    gc_pause_ms: float = 0.0  # the longest pause of garbage collection in that time
    garbage_collection: Literal["tuned", "untouched"] = "untouched"  # as it is now: see the setting
    commit_ms: float = 0.0  # the longest commit to the database in that time
    write_queue: int = 0  # changes of the database that wait for the next commit
    runs_waiting: int = 0  # sessions whose run waits for a slot (`max_concurrent_runs`)
    follower_lag: int = 0  # events by which the follower that is behind most is behind the log
    prompts_queued: int = 0  # runs that wait in queues, of all owners whom this server serves, a moment ago
    database: Literal["sqlite", "postgresql"] = "sqlite"
    replicas: int = 1  # servers of this database that are alive, this one included
    clock_offset_ms: float = 0.0  # by how much the clock of PostgreSQL's machine is ahead of this one's; 0 on SQLite
    message: str | None = None
    """Why it is not ok; or, when it is, what the owner should know (a damaged database is kept aside)."""


class NamedPromptInfo(Value):
    """A prompt by name: a prompt that begins with `/name` is sent as its text."""

    name: str
    description: str
    text: str  # with its placeholders; empty for a file that never was without a mistake
    builtin: bool
    path: str | None  # the file that it comes from
    available: bool
    why: str | None  # what is wrong with its file, with file and line; null when nothing is


class NamedPromptPage(Value):
    """``GET prompts``: the built-in ones, then those of files."""

    prompts: tuple[NamedPromptInfo, ...]
    next: str | None


MentionKind = Literal["cell", "error", "variable", "file", "session", "recall"]


class MentionInfo(Value):
    """Something that a prompt can mention."""

    kind: MentionKind
    token: str  # what stands in the prompt: `@df`, `@cell:In[3]`, `@"my data.csv"`
    label: str
    detail: str  # the first line of a cell, the type of a variable, the size of a file


class MentionPage(Value):
    """``GET sessions/{sid}/mentions``: the best ones first."""

    mentions: tuple[MentionInfo, ...]
    notes: tuple[str, ...]  # what could not be looked at, and why
    next: str | None
