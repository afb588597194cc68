// Generated from navi_jupyter/schema.json by scripts/generate-types.mjs; do not edit.

/** The answer to a command: it is durable, at `seq`. The same for every repetition of its `command_id`. */
export interface Acceptance {
  readonly command_id: string;
  readonly seq: number;
  readonly run_id: string | null;
}

/** Your command is durable. Only on the socket that sent it. */
export interface Accepted {
  readonly accepted: AcceptedCommand;
}

/** An acceptance, and which kind of command it answers. */
export interface AcceptedCommand {
  readonly command_id: string;
  readonly seq: number;
  readonly run_id: string | null;
  readonly type: "prompt" | "stop" | "unqueue" | "edit" | "answer";
}

/** A change of it, as JSON Patch (RFC 6902). */
export interface ActivityDelta {
  readonly type: "ACTIVITY_DELTA";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
  readonly activityType: string;
  readonly patch: readonly Readonly<Record<string, unknown>>[];
}

/** The whole of something that goes on in a run besides messages. `content` by `activity_type`: protocol.md. */
export interface ActivitySnapshot {
  readonly type: "ACTIVITY_SNAPSHOT";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
  readonly activityType: string;
  readonly content: Readonly<Record<string, unknown>>;
  readonly replace?: boolean | null;
}

/** The mode and the model that an agent program is to use in a session; null: those that it starts with. */
export interface AgentChoice {
  readonly mode: string | null;
  readonly model: string | null;
}

/** The mode and the model that an agent program is to use in a session; null: those that it starts with. */
export interface AgentChoiceInput {
  readonly mode?: string | null;
  readonly model?: string | null;
}

/** A slash command of an agent program: sent to it as the text of a prompt, `/name` and what follows. */
export interface AgentCommand {
  readonly name: string;
  readonly description: string;
  readonly hint: string | null;
}

/** What an agent program offers in a session: the value of `navi.agent_options`. */
export interface AgentOffer {
  readonly agent: string;
  readonly title: string | null;
  readonly modes: readonly AgentOption[];
  readonly mode: string | null;
  readonly models: readonly AgentOption[];
  readonly model: string | null;
  readonly commands: readonly AgentCommand[];
}

/** A mode or a model of an agent program, in its own words. */
export interface AgentOption {
  readonly id: string;
  readonly name: string;
  readonly description: string | null;
}

/** Something that the application wants the model to read. */
export interface AguiContext {
  readonly description: string;
  readonly value: string;
}

/** A message of the client's conversation. What is not read here is kept: a snapshot gives it back as it came. */
export interface AguiMessage {
  readonly id: string;
  readonly role: string;
  readonly content?: string | readonly AguiPart[] | Readonly<Record<string, unknown>> | null;
  readonly toolCallId?: string | null;
  readonly error?: string | null;
}

/** A part of a message's content: text, or an image, a document, audio or video with its source. */
export interface AguiPart {
  readonly type: string;
  readonly text?: string | null;
  readonly source?: AguiSource | null;
}

/** What of `forwardedProps` is read here: settings of the prompt and of its session. */
export interface AguiProps {
  readonly model?: string | null;
  readonly profile?: string | null;
  readonly mode?: "reject" | "enqueue" | "interrupt" | "rollback" | "steer" | "collect" | null;
  readonly timezone?: string | null;
}

/** The answer to one interrupt (`ResumeEntry`). */
export interface AguiResume {
  readonly interruptId: string;
  readonly status: string;
  readonly payload?: unknown;
}

/** Where the bytes of a media part are: `data` (base64), `url` or `file` (of a provider). */
export interface AguiSource {
  readonly type: string;
  readonly value: string;
  readonly mimeType?: string | null;
}

/** A tool of the client's. */
export interface AguiTool {
  readonly name: string;
  readonly description?: string;
  readonly parameters?: unknown;
}

/**
 * Answer an approval or a question of a run. The first answer counts; `cancelled` declines.
 *
 * `payload` is a :class:`navi_jupyter.model.runs.Approval` for an approval (missing: approved as it is), for a
 * question what fits its `response_schema`.
 */
export interface Answer {
  readonly type: "answer";
  readonly command_id?: string | null;
  readonly interrupt_id: string;
  readonly status: "resolved" | "cancelled";
  readonly payload?: unknown;
  readonly option?: string | null;
}

/**
 * What is the matter with the answer of a run that completed: a stable code and a sentence with what to do.
 *
 * `answer_cut`, `answer_filtered`, `answer_empty`.
 */
export interface AnswerNotice {
  readonly code: string;
  readonly message: string;
}

export type AnyEvent = TextMessageStart | TextMessageContent | TextMessageEnd | ReasoningStart | ReasoningMessageStart | ReasoningMessageContent | ReasoningMessageEnd | ReasoningEnd | ToolCallStart | ToolCallArgs | ToolCallEnd | ToolCallResult | ActivitySnapshot | ActivityDelta | SubagentStarted | SubagentFinished | SubagentError | RunStarted | RunFinished | RunError | MessagesSnapshot | Custom;

/** One of the answers that an agent program offers to its question whether it may do something. */
export interface AskOption {
  readonly id: string;
  readonly name: string;
  readonly kind: "allow_once" | "allow_always" | "reject_once" | "reject_always";
}

/** The machine of the one who asks: field `client`, as the program there reports it. */
export interface Asker {
  readonly tz: string;
  readonly source?: "browser" | "kernel" | null;
}

/** A stored file. Its content is immutable; the same content is stored once per owner. */
export interface Attachment {
  readonly id: string;
  readonly owner: string;
  readonly name: string;
  readonly media_type: string;
  readonly size: number;
  readonly sha256: string;
  readonly created_at: string;
}

/** An attachment as messages show it. */
export interface AttachmentInfo {
  readonly id: string;
  readonly name: string;
  readonly media_type: string;
  readonly size: number;
}

/** An image or a file that goes with a prompt: exactly one of `id`, `data` and `path`. */
export interface AttachmentRef {
  readonly id?: string | null;
  readonly data?: string | null;
  readonly path?: string | null;
  readonly name?: string | null;
  readonly media_type?: string | null;
}

/** `GET attention`: what waits for you in all sessions. */
export interface Attention {
  readonly unread: number;
  readonly questions: number;
  readonly sessions: readonly WaitingSession[];
}

/** `GET sessions/{sid}/away`: what happened in a session since then, oldest first. */
export interface Away {
  readonly since: string;
  readonly runs: readonly AwayRun[];
  readonly not_run: readonly AwaySlot[];
  readonly missed: number;
  readonly failed: number;
}

/** A turn that took place. */
export interface AwayRun {
  readonly run_id: string;
  readonly at: string;
  readonly status: RunStatus;
  readonly origin: Origin;
  readonly prompt: string;
  readonly answer: string;
  readonly error: string | null;
  readonly reason: string | null;
}

/** A slot that did not run, and why. */
export interface AwaySlot {
  readonly recall_id: string;
  readonly title: string;
  readonly slot: string;
  readonly status: string;
  readonly reason: string | null;
  readonly coalesced: number;
}

/** Several events of one flush. */
export interface Batch {
  readonly batch: readonly Envelope[];
}

/** A day to come in the reader's zone. */
export interface CalendarDay {
  readonly date: string;
  readonly count: number;
  readonly more: number;
  readonly coming: readonly ComingTimes[];
}

/** One part of what the user sees of a call before they decide about it: what it would do, as it is now. */
export interface CallDetail {
  readonly label: string;
  readonly text: string;
  readonly kind: "text" | "code" | "diff";
  readonly language: string | null;
  readonly foreign: boolean;
  readonly omitted: number;
  readonly cell: CellPlace | null;
}

/** A cell whose outputs, or whose source, differ between two results. */
export interface CellDiff {
  readonly cell: string | null;
  readonly number: number | null;
  readonly source: string;
  readonly diff: string;
  readonly omitted: number;
}

/** A cell of a notebook, by which a view finds it: a page that shows the notebook can go there. */
export interface CellPlace {
  readonly path: string;
  readonly id: string;
  readonly index: number;
  readonly execution_count: number | null;
}

/** The answer to a claim. */
export interface ClaimedRequest {
  readonly change: NotebookChange | null;
}

/** The notebook that the page of a prompt shows; or a file in an editor, which has no cells. */
export interface ClientNotebook {
  readonly path: string;
  readonly cells?: readonly ShownCell[] | null;
  readonly active?: string | null;
  readonly selection?: ShownSelection | null;
  readonly error?: ShownError | null;
  readonly unsaved?: boolean;
}

/** A tool of the program that sends a prompt: that program executes it, and sends the result of the call. */
export interface ClientTool {
  readonly name: string;
  readonly description?: string;
  readonly parameters?: Readonly<Record<string, unknown>>;
}

/** A recall on a day to come: its first time on that day, and how many there are. */
export interface ComingTimes {
  readonly recall_id: string;
  readonly title: string;
  readonly session_id: string;
  readonly session_title: string | null;
  readonly at: string;
  readonly times: number;
}

export type Command = Prompt | Stop | Unqueue | Edit | Answer;

/** Fires when the wall clock of `tz` matches `expr` (DST: Debian cron's policy). */
export interface Cron {
  readonly kind: "cron";
  readonly expr: string;
  readonly tz: string;
}

/** `{"kind":"cron","expr":…,"tz"?:…}`. */
export interface CronSpec {
  readonly kind: "cron";
  readonly expr: string;
  readonly tz?: string | null;
}

export interface Custom {
  readonly type: "CUSTOM";
  readonly name: "navi.queue" | "navi.stop" | "navi.interrupt" | "navi.recall" | "navi.mcp" | "navi.session" | "navi.kernel" | "navi.notebook" | "navi.tool" | "navi.usage" | "navi.notice" | "navi.agent_options" | "navi.gap";
  readonly value: Readonly<Record<string, unknown>>;
}

/** Change the text of a prompt that is still waiting. */
export interface Edit {
  readonly type: "edit";
  readonly command_id?: string | null;
  readonly target: string;
  readonly text: string;
  readonly display?: string | null;
}

/** Body of `POST runs/{rid}/undo` and `POST runs/{rid}/keep`: may be missing. */
export interface EditChoice {
  readonly cells?: readonly string[] | null;
}

/** A cell of a notebook. */
export interface EditedCell {
  readonly path: string;
  readonly cell: string;
}

/** What calling a tool does to the world: decides whether it asks where no permission is set. */
export type Effect = "read" | "note" | "write" | "run" | "outside";

/** One row of a session's log, as followers get it. */
export interface Envelope {
  readonly seq: number;
  readonly session_id: string;
  readonly run_id: string | null;
  readonly ts: string;
  readonly origin: Origin;
  readonly event: TextMessageStart | TextMessageContent | TextMessageEnd | ReasoningStart | ReasoningMessageStart | ReasoningMessageContent | ReasoningMessageEnd | ReasoningEnd | ToolCallStart | ToolCallArgs | ToolCallEnd | ToolCallResult | ActivitySnapshot | ActivityDelta | SubagentStarted | SubagentFinished | SubagentError | RunStarted | RunFinished | RunError | MessagesSnapshot | Custom;
  readonly snapshot?: boolean | null;
}

/** Every answer with a status of 400 or more. */
export interface ErrorBody {
  readonly message: string;
  readonly reason: string;
  readonly code: string;
  readonly field?: string | null;
}

/** `GET sessions/{sid}/events`: envelopes with `seq` > `after`, in order. */
export interface EventPage {
  readonly events: readonly Envelope[];
  readonly head_seq: number;
}

/** Fires at `start + n * every` (n >= 1 when `start` is the creation), in elapsed time: no drift, DST-free. */
export interface Every {
  readonly kind: "every";
  readonly every: string;
  readonly start: string;
  readonly tz: string | null;
}

/**
 * `{"kind":"every","every":"1h","start"?:…,"tz"?:…}`.
 *
 * Whole days (`1d`, `14d`) are counted on the wall clock of `tz`, the user's zone when it is left out; hours and
 * minutes (`24h`) are elapsed time.
 */
export interface EverySpec {
  readonly kind: "every";
  readonly every: string;
  readonly start?: string | null;
  readonly tz?: string | null;
}

/** Something that the agent remembers about a user, over all sessions. */
export interface Fact {
  readonly id: string;
  readonly owner: string;
  readonly text: string;
  readonly source: "user" | "agent";
  readonly session_id: string | null;
  readonly created_at: string;
  readonly updated_at: string;
}

/** Body of `POST memory`. */
export interface FactCreate {
  readonly text: string;
  readonly session_id?: string | null;
}

/** Body of `PATCH memory/{id}`. */
export interface FactPatch {
  readonly text: string;
}

/** Why a run did not complete: a stable code and a sentence. */
export interface Failure {
  readonly code: string;
  readonly message: string;
}

/** One slot of a recall: the ledger's row. */
export interface Firing {
  readonly id: string;
  readonly recall_id: string;
  readonly slot: string;
  readonly kind: "auto" | "manual" | "event";
  readonly status: FiringStatus;
  readonly reason: string | null;
  readonly run_id: string | null;
  readonly attempt: number;
  readonly coalesced: number;
  readonly not_before: string;
  readonly started_at: string | null;
  readonly ended_at: string | null;
  readonly lateness_ms: number | null;
  readonly delivery: "none" | "pending" | "delivered" | "failed";
  readonly delivery_error: string | null;
  readonly attempts: readonly FiringAttempt[];
}

/** One run that a firing has had. */
export interface FiringAttempt {
  readonly run_id: string;
  readonly status: RunStatus;
  readonly reason: string | null;
  readonly started_at: string | null;
  readonly ended_at: string | null;
}

/** `GET recalls/{id}/firings`: the ledger, newest first. */
export interface FiringPage {
  readonly firings: readonly Firing[];
  readonly next: string | null;
}

/** How far a firing is. All but the first three are final. */
export type FiringStatus = "pending" | "claimed" | "running" | "succeeded" | "failed" | "skipped" | "missed" | "coalesced" | "cancelled" | "expired";

/** Body of `POST sessions/{sid}/fork`. */
export interface ForkRequest {
  readonly message_id?: string | null;
  readonly title?: string | null;
}

/** The session of a notebook, and how it was found. */
export interface FoundSession {
  readonly session: Session | null;
  readonly how: "found" | "moved" | "copied" | "created" | "none";
  readonly path: string | null;
  readonly note: string | null;
  readonly earlier: readonly Session[];
}

/** `GET health`. Counts are of this server process. */
export interface Health {
  readonly status: "ok" | "starting" | "failed" | "stopping";
  readonly version: string;
  readonly sessions: number;
  readonly runs: number;
  readonly recalls: number;
  readonly followers: number;
  readonly save_transcripts: boolean;
  readonly loop_lag_ms: number;
  readonly gc_pause_ms: number;
  readonly garbage_collection: "tuned" | "untouched";
  readonly commit_ms: number;
  readonly write_queue: number;
  readonly runs_waiting: number;
  readonly follower_lag: number;
  readonly prompts_queued: number;
  readonly database: "sqlite" | "postgresql";
  readonly replicas: number;
  readonly clock_offset_ms: number;
  readonly message: string | null;
}

/** `GET sessions/{sid}/search`: the newest first. */
export interface HitPage {
  readonly hits: readonly SearchHit[];
  readonly next: string | null;
  readonly complete: boolean;
}

/** A piece of a text, and whether it is what was searched for. */
export interface HitPart {
  readonly text: string;
  readonly match: boolean;
}

/** `POST recalls/import`: what was made or, with `dry_run`, would be. */
export interface Imported {
  readonly recalls: readonly Recall[];
  readonly dry_run: boolean;
  readonly words: Readonly<Record<string, string>>;
}

/** Something that a run waits for (AG-UI's interrupt). */
export interface Interrupt {
  readonly id: string;
  readonly session_id: string;
  readonly run_id: string;
  readonly kind: InterruptKind;
  readonly message: string;
  readonly tool_call_id: string | null;
  readonly tool: string | null;
  readonly args: Readonly<Record<string, unknown>> | null;
  readonly source: string | null;
  readonly details: readonly CallDetail[];
  readonly fingerprint: string | null;
  readonly response_schema: Readonly<Record<string, unknown>> | null;
  readonly options: readonly AskOption[];
  readonly subagent_run_id: string | null;
  readonly durable: boolean;
  readonly created_at: string;
  readonly expires_at: string | null;
  readonly status: InterruptStatus;
  readonly payload: unknown;
  readonly answered_by: string | null;
  readonly answered_at: string | null;
}

/** A question that a run waits for, as AG-UI has it; `navi.interrupt` tells the same in full. */
export interface InterruptEntry {
  readonly id: string;
  readonly reason: string;
  readonly message?: string | null;
  readonly toolCallId?: string | null;
  readonly responseSchema?: Readonly<Record<string, unknown>> | null;
  readonly expiresAt?: string | null;
}

/** Why a run asks. */
export type InterruptKind = "approval" | "question";

/** How far a question is. All but the first are final. */
export type InterruptStatus = "open" | "resolved" | "cancelled" | "expired";

export type JsonValue = unknown;

/** A function that the user offers as a tool (`@navi.tool`), as its kernel describes it. */
export interface KernelFunction {
  readonly name: string;
  readonly description?: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly effect?: Effect;
  readonly awaits?: boolean;
}

/** Body of `POST kernels/{kid}/tools`: functions that are new, or have changed. */
export interface KernelFunctions {
  readonly tools: readonly KernelFunction[];
}

/** A cell that was not brought back. */
export interface LeftCell {
  readonly path: string;
  readonly cell: string;
  readonly reason: string;
}

/** A server of models that answers on this machine and is not set up yet. */
export interface LocalServer {
  readonly name: string;
  readonly label: string;
  readonly url: string;
  readonly models: readonly string[];
}

/** `GET mcp`. */
export interface McpPage {
  readonly mcp: readonly McpServerInfo[];
  readonly problems: readonly McpProblem[];
  readonly next: string | null;
}

/** A configuration file that cannot be read. */
export interface McpProblem {
  readonly file: string;
  readonly message: string;
}

/** Body of `PUT mcp/{name}`: a server of `mcpServers` that is reached by a URL. */
export interface McpServerEntry {
  readonly url: string;
  readonly type?: "http" | "streamable-http" | "streamable_http" | "streamableHttp";
  readonly headers?: Readonly<Record<string, string>>;
  readonly disabled?: boolean;
  readonly trust_hints?: boolean;
  readonly protocol?: "auto" | "legacy";
  readonly call_timeout?: number;
}

/** A configured MCP server. */
export interface McpServerInfo {
  readonly name: string;
  readonly status: "configured" | "starting" | "ready" | "failed" | "stopped" | "disabled";
  readonly available: boolean;
  readonly why: string | null;
  readonly transport: "stdio" | "http";
  readonly protocol: string | null;
  readonly tools: number;
  readonly notes: readonly McpToolNote[];
  readonly own: boolean;
  readonly host: string | null;
  readonly file: string;
}

/** A tool of an MCP server that runs are not offered, or whose results are not checked. */
export interface McpToolNote {
  readonly tool: string;
  readonly why: string;
}

/** `GET memory`: what the agent remembers about the user. */
export interface MemoryPage {
  readonly memory: readonly Fact[];
  readonly next: string | null;
}

/** Something that a prompt can mention. */
export interface MentionInfo {
  readonly kind: "cell" | "error" | "variable" | "file" | "session" | "recall";
  readonly token: string;
  readonly label: string;
  readonly detail: string;
}

/** `GET sessions/{sid}/mentions`: the best ones first. */
export interface MentionPage {
  readonly mentions: readonly MentionInfo[];
  readonly notes: readonly string[];
  readonly next: string | null;
}

/** One message of the folded conversation. */
export interface MessageInfo {
  readonly id: string;
  readonly role: "user" | "assistant" | "tool";
  readonly content: string;
  readonly run_id: string | null;
  readonly origin: Origin;
  readonly at: string;
  readonly tool_calls: readonly ToolCallInfo[];
  readonly tool_call_id: string | null;
  readonly reasoning: string;
  readonly queued: boolean;
  readonly partial: boolean;
  readonly subagent_run_id: string | null;
  readonly attachments: readonly AttachmentInfo[];
  readonly usage: Usage | null;
}

/** `GET sessions/{sid}/messages`: the whole conversation, oldest first; `next` is always null. */
export interface MessagePage {
  readonly messages: readonly MessageInfo[];
  readonly next: string | null;
}

export interface MessagesSnapshot {
  readonly type: "MESSAGES_SNAPSHOT";
  readonly messages: readonly Readonly<Record<string, unknown>>[];
  readonly earlier?: string | null;
}

/** A model. */
export interface ModelInfo {
  readonly name: string;
  readonly provider: string;
  readonly available: boolean;
  readonly why: string | null;
  readonly command: string | null;
}

/** `GET models`: the offline one, those in use, suggestions. */
export interface ModelPage {
  readonly models: readonly ModelInfo[];
  readonly next: string | null;
}

/** The model of your new sessions. */
export interface ModelPreference {
  readonly model: string;
  readonly chosen: string | null;
  readonly why: string | null;
  readonly default: string;
}

/** Whether a model answered a short request. */
export interface ModelTestResult {
  readonly ok: boolean;
  readonly message: string;
  readonly seconds: number;
}

/** Body of `POST models/test` and `PUT models/preferred`. */
export interface NamedModel {
  readonly model: string;
}

/** A prompt by name: a prompt that begins with `/name` is sent as its text. */
export interface NamedPromptInfo {
  readonly name: string;
  readonly description: string;
  readonly text: string;
  readonly builtin: boolean;
  readonly path: string | null;
  readonly available: boolean;
  readonly why: string | null;
}

/** `GET prompts`: the built-in ones, then those of files. */
export interface NamedPromptPage {
  readonly prompts: readonly NamedPromptInfo[];
  readonly next: string | null;
}

/** What a page is to do with the notebook that it has open. */
export interface NotebookChange {
  readonly path: string;
  readonly action: "insert" | "edit" | "delete" | "save" | "show";
  readonly cell: string | null;
  readonly source: string | null;
  readonly expected: string | null;
  readonly after: string | null;
  readonly new_cell: Readonly<Record<string, unknown>> | null;
}

/** Body of `POST sessions/{sid}/notebook-requests/{nid}/claim`: a page has the notebook open. */
export interface NotebookClaim {
  readonly unsaved: boolean;
}

/**
 * What a recall does when it fires: a notebook is executed, in a kernel of its own. It needs no model.
 *
 * The notebook itself stays as it is; what it shows goes into a dated copy of it.
 */
export interface NotebookJob {
  readonly kind: "notebook";
  readonly path: string;
  readonly parameters: Readonly<Record<string, JsonValue>>;
  readonly output: string | null;
  readonly kernel: string | null;
  readonly then: string | null;
}

/**
 * What a recall does when it fires: a notebook is executed, in a kernel of its own. It needs no model.
 *
 * The notebook itself stays as it is; what it shows goes into a dated copy of it.
 */
export interface NotebookJobInput {
  readonly kind: "notebook";
  readonly path: string;
  readonly parameters?: Readonly<Record<string, JsonValue>>;
  readonly output?: string | null;
  readonly kernel?: string | null;
  readonly then?: string | null;
}

/** A kernel that is installed here. */
export interface NotebookKernel {
  readonly name: string;
  readonly title: string;
}

/** Whether a notebook carries the id of its session in `metadata.navi.session_id`. */
export type NotebookLinkState = "linked" | "pending" | "earlier";

/** `GET recalls/notebooks`: the best first. */
export interface NotebookPage {
  readonly notebooks: readonly NotebookPath[];
  readonly next: string | null;
}

/** A variable that a notebook takes: its cell with the tag `parameters` sets it. */
export interface NotebookParameter {
  readonly name: string;
  readonly default: string;
}

/** A notebook that a recall could execute. */
export interface NotebookPath {
  readonly path: string;
}

/** Body of `POST sessions/{sid}/notebook-requests/{nid}/report`: the page has made the change, or cannot. */
export interface NotebookReport {
  readonly cell?: ReportedCell | null;
  readonly notebook?: ClientNotebook | null;
  readonly refusal?: "changed" | "not_found" | "conflict" | null;
}

/** `GET recalls/notebook`: what a recall that executes a notebook can be given. */
export interface NotebookToRun {
  readonly path: string;
  readonly parameters: readonly NotebookParameter[] | null;
  readonly kernel: string | null;
  readonly kernels: readonly NotebookKernel[];
}

/** Body of `PUT notify/{name}`: `url`, or `webhook` and `secret`, as in `navi/notify.toml`. */
export interface NotifyEntry {
  readonly url?: string | null;
  readonly webhook?: string | null;
  readonly secret?: string | readonly string[] | null;
  readonly events?: readonly ("firing" | "run")[];
  readonly content?: boolean;
}

/** `GET notify`. */
export interface NotifyPage {
  readonly notify: readonly NotifyTarget[];
  readonly quiet: string | null;
  readonly per_hour: number;
  readonly problems: readonly NotifyProblem[];
  readonly next: string | null;
}

/** Something wrong with a file as a whole, or with a setting in it. */
export interface NotifyProblem {
  readonly file: string;
  readonly message: string;
}

/** Somewhere a notification can be sent. */
export interface NotifyTarget {
  readonly name: string;
  readonly service: string | null;
  readonly source: string;
  readonly own: boolean;
  readonly available: boolean;
  readonly why: string | null;
  readonly waiting: number;
  readonly sent: number;
  readonly failed: number;
  readonly last_sent_at: string | null;
  readonly last_error: string | null;
}

/** `POST notify/{name}/test`. */
export interface NotifyTrial {
  readonly delivered: boolean;
  readonly error: string | null;
}

/** Fires once, at `at`. */
export interface Once {
  readonly kind: "once";
  readonly at: string;
}

/** `{"kind":"once","at":…}` or `{"kind":"once","in":"10m"}`: exactly one of the two. */
export interface OnceSpec {
  readonly kind: "once";
  readonly at?: string | null;
  readonly in?: string | null;
}

/** Who caused something; `recall_id` is set exactly when a recall did. */
export interface Origin {
  readonly kind: OriginKind;
  readonly recall_id: string | null;
  readonly kernel_id?: string | null;
}

/** Who caused something. */
export type OriginKind = "user" | "recall" | "system";

/** How a run that did not fail ended, or (`interrupt`) why it pauses. `interrupts` are there exactly then. */
export interface Outcome {
  readonly type: "success" | "interrupt" | "cancelled";
  readonly interrupts?: readonly InterruptEntry[] | null;
}

/** What ended on a day in the reader's zone: of each recall the last firing, the latest first, 50 at most. */
export interface OverviewDay {
  readonly date: string;
  readonly ran: number;
  readonly failed: number;
  readonly missed: number;
  readonly firings: readonly OverviewFiring[];
}

/** A firing in the overview, with its recall and session. */
export interface OverviewFiring {
  readonly firing: Firing;
  readonly title: string;
  readonly session_id: string;
  readonly session_title: string | null;
  readonly unseen: boolean;
  readonly asks: boolean;
  readonly ran: number;
  readonly failed: number;
  readonly missed: number;
  readonly result: string | null;
}

/** Whether a tool may be called. Later ones are stricter. */
export type Permission = "allow" | "ask" | "deny";

/** What to do when it cannot simply run on time. */
export interface Policy {
  readonly misfire: "skip" | "latest" | "all";
  readonly grace: string | null;
  readonly busy: "defer" | "queue" | "skip" | "interrupt";
  readonly retries: number;
  readonly timeout: string | null;
  readonly until: string | null;
  readonly max_fires: number | null;
  readonly jitter: string | null;
  readonly cancel_on: readonly ("user_message" | "read")[];
  readonly notify: readonly string[];
  readonly needs: "auto" | "kernel" | "none";
  readonly quiet: string | null;
}

/** What to do when it cannot simply run on time. */
export interface PolicyInput {
  readonly misfire?: "skip" | "latest" | "all";
  readonly grace?: string | null;
  readonly busy?: "defer" | "queue" | "skip" | "interrupt";
  readonly retries?: number;
  readonly timeout?: string | null;
  readonly until?: string | null;
  readonly max_fires?: number | null;
  readonly jitter?: string | null;
  readonly cancel_on?: readonly ("user_message" | "read")[];
  readonly notify?: readonly string[];
  readonly needs?: "auto" | "kernel" | "none";
  readonly quiet?: string | null;
}

/** The next fires strictly after `after`, in the schedule's zone, and what is odd about the schedule. */
export interface Preview {
  readonly times: readonly string[];
  readonly warnings: readonly string[];
  readonly schedule: Once | Every | Cron | When;
  readonly policy: Policy;
  readonly meaning: string;
  readonly message: string;
  readonly phrase: string;
  readonly timezone: string;
  readonly run: NotebookJob | null;
}

/** Body of `POST recalls/preview`: exactly one of `schedule` and `text`. */
export interface PreviewRequest {
  readonly schedule?: OnceSpec | EverySpec | CronSpec | WhenSpec | null;
  readonly text?: string | null;
  readonly sentence?: boolean;
  readonly end?: boolean;
  readonly n?: number;
  readonly after?: string | null;
  readonly tz?: string | null;
  readonly session_id?: string | null;
  readonly client?: Asker | null;
}

/**
 * A profile as a file has it. What it leaves out comes from the profile that it extends.
 *
 * `more_instructions`, `permissions`, `context` and `limits` add to those of the extended profile.
 */
export interface ProfileForm {
  readonly extends?: string | null;
  readonly description?: string | null;
  readonly model?: string | null;
  readonly instructions?: string | null;
  readonly more_instructions?: string | null;
  readonly tools?: readonly string[] | null;
  readonly permissions?: Readonly<Record<string, Permission>>;
  readonly headless?: "queue" | "deny" | null;
  readonly mcp?: readonly string[] | null;
  readonly context?: Readonly<Record<string, boolean>>;
  readonly workers?: readonly string[] | null;
  readonly limits?: RunLimitsInput;
}

/** A named configuration of the agent. */
export interface ProfileInfo {
  readonly name: string;
  readonly description: string;
  readonly builtin: boolean;
  readonly own: boolean;
  readonly path: string | null;
  readonly model: string | null;
  readonly tools: readonly string[];
  readonly permissions: Readonly<Record<string, Permission>>;
  readonly headless: "queue" | "deny";
  readonly mcp: readonly string[];
  readonly context: Readonly<Record<string, boolean>>;
  readonly workers: readonly string[];
  readonly limits: RunLimits;
  readonly available: boolean;
  readonly why: string | null;
}

/** `GET profiles`. */
export interface ProfilePage {
  readonly profiles: readonly ProfileInfo[];
  readonly next: string | null;
}

/** Ask the agent. `mode`: what happens when a run is in progress. */
export interface Prompt {
  readonly type: "prompt";
  readonly command_id?: string | null;
  readonly text: string;
  readonly display?: string | null;
  readonly images?: readonly AttachmentRef[];
  readonly files?: readonly AttachmentRef[];
  readonly model?: string | null;
  readonly mode?: "reject" | "enqueue" | "interrupt" | "rollback" | "steer" | "collect";
  readonly client?: PromptClient | null;
  readonly mentions?: readonly string[];
  readonly tools?: readonly ClientTool[];
  readonly replaces?: string | null;
  readonly traceparent?: string | null;
  readonly again?: boolean;
}

/** Field `client` of a prompt: the machine of the one who asks, and what its page shows. */
export interface PromptClient {
  readonly tz: string;
  readonly source?: "browser" | "kernel" | null;
  readonly notebook?: ClientNotebook | null;
}

/** What a recall does when it fires: its message is a prompt for the agent. */
export interface PromptJob {
  readonly kind: "prompt";
}

/** A provider of models, and the one thing that it needs. */
export interface ProviderInfo {
  readonly name: string;
  readonly label: string;
  readonly setting: string;
  readonly kind: "key" | "address";
  readonly prefixes: readonly string[];
  readonly installed: boolean;
  readonly source: "environment" | "stored" | null;
  readonly available: boolean;
  readonly why: string | null;
}

/** `GET providers`. */
export interface ProviderPage {
  readonly providers: readonly ProviderInfo[];
  readonly local: readonly LocalServer[];
  readonly may_store: boolean;
  readonly file: string | null;
  readonly next: string | null;
}

/** Body of `PUT providers/{name}`: a key, or an address. */
export interface ProviderSetting {
  readonly value: string;
}

/** `GET sessions/{sid}/interrupts/{iid}`: a question, open or settled. */
export interface Question {
  readonly id: string;
  readonly session_id: string;
  readonly run_id: string;
  readonly kind: InterruptKind;
  readonly message: string;
  readonly tool_call_id: string | null;
  readonly tool: string | null;
  readonly args: Readonly<Record<string, unknown>> | null;
  readonly source: string | null;
  readonly details: readonly CallDetail[];
  readonly fingerprint: string | null;
  readonly response_schema: Readonly<Record<string, unknown>> | null;
  readonly options: readonly AskOption[];
  readonly subagent_run_id: string | null;
  readonly durable: boolean;
  readonly created_at: string;
  readonly expires_at: string | null;
  readonly status: InterruptStatus;
  readonly payload: unknown;
  readonly answered_by: string | null;
  readonly answered_at: string | null;
  readonly drawn: boolean;
}

/** A prompt that waits; `edit` and `unqueue` name it by its `command_id`. */
export interface QueuedPrompt {
  readonly command_id: string;
  readonly text: string;
  readonly display: string | null;
  readonly attachments: readonly AttachmentInfo[];
}

/** A run that waits for its turn. */
export interface QueuedRun {
  readonly id: string;
  readonly session_id: string;
  readonly command_id: string;
  readonly status: RunStatus;
  readonly origin: Origin;
  readonly model: string;
  readonly created_at: string;
  readonly started_at: string | null;
  readonly ended_at: string | null;
  readonly usage: Usage;
  readonly error: Failure | null;
  readonly notice: AnswerNotice | null;
  readonly merged_into: string | null;
  readonly timezone: string | null;
  readonly rolled_back: boolean;
  readonly mode: string;
  readonly prompts: readonly QueuedPrompt[];
}

/** How far the user has seen a session. */
export interface ReadMark {
  readonly seq: number;
  readonly unread: number;
}

/** Body of `POST sessions/{sid}/read`. */
export interface ReadRequest {
  readonly seq: number;
}

/** With whom a session is shared, to read. */
export interface ReaderList {
  readonly readers: readonly string[];
}

export interface ReasoningEnd {
  readonly type: "REASONING_END";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
}

export interface ReasoningMessageContent {
  readonly type: "REASONING_MESSAGE_CONTENT";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
  readonly delta: string;
}

export interface ReasoningMessageEnd {
  readonly type: "REASONING_MESSAGE_END";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
}

export interface ReasoningMessageStart {
  readonly type: "REASONING_MESSAGE_START";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
  readonly role: "reasoning";
}

export interface ReasoningStart {
  readonly type: "REASONING_START";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
}

/** A stored wish to be woken. */
export interface Recall {
  readonly id: string;
  readonly session_id: string;
  readonly title: string;
  readonly message: string;
  readonly schedule: Once | Every | Cron | When;
  readonly policy: Policy;
  readonly status: RecallStatus;
  readonly next_at: string | null;
  readonly last_at: string | null;
  readonly fired: number;
  readonly created_at: string;
  readonly origin: OriginKind;
  readonly allow: readonly string[];
  readonly reason: string | null;
  readonly run: PromptJob | NotebookJob;
  readonly last_result: string | null;
}

/** Body of `POST recalls`. */
export interface RecallCreate {
  readonly session_id: string;
  readonly title?: string | null;
  readonly schedule: OnceSpec | EverySpec | CronSpec | WhenSpec;
  readonly policy?: PolicyInput;
  readonly client?: Asker | null;
  readonly allow?: readonly string[];
  readonly run?: PromptJob | NotebookJobInput;
  readonly message?: string;
}

/** Body of `POST recalls/{id}/fire`; may be left out. */
export interface RecallFire {
  readonly allow?: readonly string[];
}

/** Body of `POST recalls/import`, which takes plain TOML as well. */
export interface RecallImport {
  readonly toml: string;
}

/** `GET recalls`. */
export interface RecallPage {
  readonly recalls: readonly Recall[];
  readonly next: string | null;
  readonly last: Readonly<Record<string, Firing>>;
  readonly words: Readonly<Record<string, string>>;
}

/** Body of `PATCH recalls/{id}`: the fields that are there are changed. */
export interface RecallPatch {
  readonly message?: string | null;
  readonly title?: string | null;
  readonly schedule?: OnceSpec | EverySpec | CronSpec | WhenSpec | null;
  readonly policy?: PolicyInput | null;
  readonly allow?: readonly string[] | null;
  readonly run?: PromptJob | NotebookJobInput | null;
}

/** A dated copy of a recall's notebook, with the outputs of one run. */
export interface RecallResult {
  readonly run_id: string;
  readonly path: string;
  readonly created_at: string;
  readonly status: RunStatus;
  readonly reason: string | null;
  readonly exists: boolean;
}

/** How far a recall is. The last four are final. */
export type RecallStatus = "pending" | "running" | "paused" | "fired" | "failed" | "cancelled" | "expired";

/** How many recalls were changed. */
export interface RecallsChanged {
  readonly changed: number;
}

/** `GET recalls/overview`: recalls of all sessions. */
export interface RecallsOverview {
  readonly now: string;
  readonly timezone: string;
  readonly open: number;
  readonly paused: number;
  readonly next: ComingTimes | null;
  readonly needs: readonly OverviewFiring[];
  readonly active: readonly OverviewFiring[];
  readonly past: readonly OverviewDay[];
  readonly recalls: readonly Recall[];
  readonly words: Readonly<Record<string, string>>;
  readonly sessions: Readonly<Record<string, string>>;
  readonly coming: readonly CalendarDay[];
  readonly complete: boolean;
}

/** Your command was refused. Only on the socket that sent it; the socket stays open. */
export interface Rejected {
  readonly rejected: Rejection;
}

/** Why a command was refused. `command_id` is null when the frame was too broken to have one. */
export interface Rejection {
  readonly command_id: string | null;
  readonly code: string;
  readonly message: string;
  readonly field: string | null;
}

/** A cell that a page has added, changed or deleted: as it is then, or was. */
export interface ReportedCell {
  readonly id: string;
  readonly index: number;
  readonly type: "code" | "markdown" | "raw";
  readonly source: string;
}

/** `GET recalls/{id}/results/diff`: what of the outputs has changed from one result to another. */
export interface ResultDiff {
  readonly old: RecallResult;
  readonly new: RecallResult;
  readonly cells: readonly CellDiff[];
  readonly unchanged: number;
}

/** `GET recalls/{id}/results`: the dated copies, newest first. */
export interface ResultPage {
  readonly results: readonly RecallResult[];
  readonly next: string | null;
}

/** One turn of the agent in a session. */
export interface Run {
  readonly id: string;
  readonly session_id: string;
  readonly command_id: string;
  readonly status: RunStatus;
  readonly origin: Origin;
  readonly model: string;
  readonly created_at: string;
  readonly started_at: string | null;
  readonly ended_at: string | null;
  readonly usage: Usage;
  readonly error: Failure | null;
  readonly notice: AnswerNotice | null;
  readonly merged_into: string | null;
  readonly timezone: string | null;
  readonly rolled_back: boolean;
}

/** Body of `POST agui`: AG-UI 1.0's input of a run, by which a client prompts, answers and joins. */
export interface RunAgentInput {
  readonly threadId: string;
  readonly runId: string;
  readonly parentRunId?: string | null;
  readonly protocolVersion?: string | null;
  readonly messages: readonly AguiMessage[];
  readonly tools?: readonly AguiTool[] | null;
  readonly context?: readonly AguiContext[] | null;
  readonly state?: unknown;
  readonly forwardedProps?: AguiProps;
  readonly resume?: readonly AguiResume[] | null;
}

/** A cell that a run has changed, added or deleted. */
export interface RunEdit {
  readonly path: string;
  readonly cell: string;
  readonly kind: "code" | "markdown" | "raw";
  readonly before: string | null;
  readonly after: string | null;
  readonly place: string;
  readonly omitted: boolean;
  readonly state: "open" | "kept" | "undone";
  readonly at: string;
}

/** `GET runs/{rid}/edits`: in the order of each cell's last change. */
export interface RunEditList {
  readonly run_id: string;
  readonly session_id: string;
  readonly edits: readonly RunEdit[];
}

export interface RunError {
  readonly type: "RUN_ERROR";
  readonly message: string;
  readonly code: string;
  readonly usage?: readonly TokenUsage[] | null;
}

export interface RunFinished {
  readonly type: "RUN_FINISHED";
  readonly threadId: string;
  readonly runId: string;
  readonly outcome: Outcome;
  readonly usage?: readonly TokenUsage[] | null;
}

/** What a profile may set; the traits of the server are the ceiling. */
export interface RunLimits {
  readonly max_iterations: number | null;
  readonly timeout: string | null;
  readonly max_tokens: number | null;
  readonly max_cost: number | null;
}

/** What a profile may set; the traits of the server are the ceiling. */
export interface RunLimitsInput {
  readonly max_iterations?: number | null;
  readonly timeout?: string | null;
  readonly max_tokens?: number | null;
  readonly max_cost?: number | null;
}

/** `GET sessions/{sid}/runs`: newest first. */
export interface RunPage {
  readonly runs: readonly Run[];
  readonly questions: readonly SettledQuestion[];
  readonly next: string | null;
}

export interface RunStarted {
  readonly type: "RUN_STARTED";
  readonly threadId: string;
  readonly runId: string;
}

/** How far a run is. The last five are final. */
export type RunStatus = "queued" | "running" | "waiting" | "completed" | "stopped" | "failed" | "timed_out" | "interrupted";

export type Schedule = Once | Every | Cron | When;

/** Where something was found: a message, or the title of a session. */
export interface SearchHit {
  readonly role: "user" | "assistant" | "title";
  readonly message_id: string | null;
  readonly run_id: string | null;
  readonly at: string;
  readonly snippet: readonly HitPart[];
}

export type ServerFrame = Envelope | Batch | Accepted | Rejected;

/** One conversation, owned by one user. */
export interface Session {
  readonly id: string;
  readonly owner: string;
  readonly title: string;
  readonly profile: string;
  readonly model: string;
  readonly notebook_path: string | null;
  readonly notebook_link: NotebookLinkState | null;
  readonly earlier_path: string | null;
  readonly kernel_id: string | null;
  readonly server: string;
  readonly timezone: string;
  readonly timezone_source: ZoneSource;
  readonly created_at: string;
  readonly updated_at: string;
  readonly head_seq: number;
  readonly allowed_tools: readonly string[];
  readonly context: Readonly<Record<string, boolean>>;
  readonly agent_options: AgentChoice;
  readonly title_source: TitleSource;
  readonly archived_at: string | null;
  readonly deleted_at: string | null;
}

/** What a session is doing. */
export type SessionActivity = "idle" | "running" | "waiting";

/** Body of `POST sessions`. */
export interface SessionCreate {
  readonly title?: string | null;
  readonly profile?: string | null;
  readonly model?: string | null;
  readonly notebook_path?: string | null;
  readonly kernel_id?: string | null;
  readonly timezone?: string | null;
  readonly timezone_source?: ZoneSource | null;
  readonly allowed_tools?: readonly string[] | null;
  readonly context?: Readonly<Record<string, boolean>> | null;
  readonly agent_options?: AgentChoiceInput | null;
}

/** A session with what it is doing. */
export interface SessionDetail {
  readonly id: string;
  readonly owner: string;
  readonly title: string;
  readonly profile: string;
  readonly model: string;
  readonly notebook_path: string | null;
  readonly notebook_link: NotebookLinkState | null;
  readonly earlier_path: string | null;
  readonly kernel_id: string | null;
  readonly server: string;
  readonly timezone: string;
  readonly timezone_source: ZoneSource;
  readonly created_at: string;
  readonly updated_at: string;
  readonly head_seq: number;
  readonly allowed_tools: readonly string[];
  readonly context: Readonly<Record<string, boolean>>;
  readonly agent_options: AgentChoice;
  readonly title_source: TitleSource;
  readonly archived_at: string | null;
  readonly deleted_at: string | null;
  readonly run: Run | null;
  readonly queue: readonly QueuedRun[];
  readonly approvals: readonly Interrupt[];
  readonly usage: Usage;
  readonly agent_offer: AgentOffer | null;
  readonly unread: number;
  readonly access: "owner" | "reader";
  readonly readers: readonly string[];
}

/** Body of `POST sessions/find`: what the asker knows of its notebook and kernel, and fields of a new session. */
export interface SessionFind {
  readonly title?: string | null;
  readonly profile?: string | null;
  readonly model?: string | null;
  readonly notebook_path?: string | null;
  readonly kernel_id?: string | null;
  readonly timezone?: string | null;
  readonly timezone_source?: ZoneSource | null;
  readonly allowed_tools?: readonly string[] | null;
  readonly context?: Readonly<Record<string, boolean>> | null;
  readonly agent_options?: AgentChoiceInput | null;
  readonly create?: boolean;
  readonly cell_id?: string | null;
  readonly cell_source?: string | null;
  readonly is_open?: boolean;
  readonly session_id?: string | null;
}

/** A session as it is listed. */
export interface SessionInfo {
  readonly id: string;
  readonly owner: string;
  readonly title: string;
  readonly profile: string;
  readonly model: string;
  readonly notebook_path: string | null;
  readonly notebook_link: NotebookLinkState | null;
  readonly earlier_path: string | null;
  readonly kernel_id: string | null;
  readonly server: string;
  readonly timezone: string;
  readonly timezone_source: ZoneSource;
  readonly created_at: string;
  readonly updated_at: string;
  readonly head_seq: number;
  readonly allowed_tools: readonly string[];
  readonly context: Readonly<Record<string, boolean>>;
  readonly agent_options: AgentChoice;
  readonly title_source: TitleSource;
  readonly archived_at: string | null;
  readonly deleted_at: string | null;
  readonly unread: number;
  readonly activity: SessionActivity;
  readonly access: "owner" | "reader";
  readonly hit: SearchHit | null;
  readonly hits: number;
}

/** `GET sessions`: most recently used first; in a search, the session with the newest find first. */
export interface SessionPage {
  readonly sessions: readonly SessionInfo[];
  readonly next: string | null;
  readonly complete: boolean;
}

/** Body of `PATCH sessions/{sid}`: the fields that are there are changed. */
export interface SessionPatch {
  readonly title?: string | null;
  readonly profile?: string | null;
  readonly model?: string | null;
  readonly notebook_path?: string | null;
  readonly kernel_id?: string | null;
  readonly timezone?: string | null;
  readonly timezone_source?: ZoneSource | null;
  readonly allowed_tools?: readonly string[] | null;
  readonly context?: Readonly<Record<string, boolean>> | null;
  readonly agent_options?: AgentChoiceInput | null;
}

/** How a question to the user was settled, without what it showed: who allowed what, and when. */
export interface SettledQuestion {
  readonly id: string;
  readonly run_id: string;
  readonly kind: InterruptKind;
  readonly message: string;
  readonly tool_call_id: string | null;
  readonly tool: string | null;
  readonly source: string | null;
  readonly options: readonly AskOption[];
  readonly subagent_run_id: string | null;
  readonly status: InterruptStatus;
  readonly payload: unknown;
  readonly answered_by: string | null;
  readonly answered_at: string | null;
}

/** Body of `POST sessions/{sid}/share` and `unshare`. */
export interface ShareRequest {
  readonly user: string;
}

/** A cell as the page shows it. */
export interface ShownCell {
  readonly id: string;
  readonly type?: "code" | "markdown" | "raw";
  readonly source?: string | null;
  readonly execution_count?: number | null;
  readonly output?: string | null;
  readonly error?: string | null;
}

/** The last error that the page shows. */
export interface ShownError {
  readonly cell?: string | null;
  readonly ename: string;
  readonly evalue?: string;
  readonly traceback?: string | null;
}

/** The text that is selected in a cell's editor. */
export interface ShownSelection {
  readonly cell?: string | null;
  readonly text: string;
}

/** Stop a run (the current one when `run_id` is missing). Accepted, and without effect, when none is running. */
export interface Stop {
  readonly type: "stop";
  readonly command_id?: string | null;
  readonly run_id?: string | null;
}

/** A subagent has failed or was stopped; the run may go on. */
export interface SubagentError {
  readonly type: "SUBAGENT_ERROR";
  readonly subagentRunId: string;
  readonly message: string;
  readonly code?: string | null;
}

/** A subagent has done its work. */
export interface SubagentFinished {
  readonly type: "SUBAGENT_FINISHED";
  readonly subagentRunId: string;
  readonly result?: unknown;
}

/** A subagent begins. */
export interface SubagentStarted {
  readonly type: "SUBAGENT_STARTED";
  readonly subagentRunId: string;
  readonly name: string;
  readonly description?: string | null;
  readonly parentSubagentRunId?: string | null;
  readonly parentToolCallId?: string | null;
}

export interface TextMessageContent {
  readonly type: "TEXT_MESSAGE_CONTENT";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
  readonly delta: string;
}

export interface TextMessageEnd {
  readonly type: "TEXT_MESSAGE_END";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
}

export interface TextMessageStart {
  readonly type: "TEXT_MESSAGE_START";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
  readonly role: "user" | "assistant";
  readonly metadata?: Readonly<Record<string, unknown>> | null;
}

/** Who made the title of a session. */
export type TitleSource = "default" | "words" | "model" | "user";

/** AG-UI's token counts for one model. */
export interface TokenUsage {
  readonly provider?: string | null;
  readonly model?: string | null;
  readonly inputTokens?: number | null;
  readonly outputTokens?: number | null;
}

export interface ToolCallArgs {
  readonly type: "TOOL_CALL_ARGS";
  readonly subagentRunId?: string | null;
  readonly toolCallId: string;
  readonly delta: string;
}

export interface ToolCallEnd {
  readonly type: "TOOL_CALL_END";
  readonly subagentRunId?: string | null;
  readonly toolCallId: string;
}

/** A tool call as the conversation shows it. `result` is null while it is open. */
export interface ToolCallInfo {
  readonly id: string;
  readonly name: string;
  readonly args: string;
  readonly result: string | null;
}

export interface ToolCallResult {
  readonly type: "TOOL_CALL_RESULT";
  readonly subagentRunId?: string | null;
  readonly messageId: string;
  readonly toolCallId: string;
  readonly content: string;
  readonly role: "tool";
}

export interface ToolCallStart {
  readonly type: "TOOL_CALL_START";
  readonly subagentRunId?: string | null;
  readonly toolCallId: string;
  readonly toolCallName: string;
  readonly parentMessageId?: string | null;
}

/** A tool that runs can call. */
export interface ToolInfo {
  readonly name: string;
  readonly description: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly effect: Effect | null;
  readonly source: string;
  readonly permission: Permission | null;
  readonly available: boolean;
  readonly why: string | null;
}

/** `GET tools`. */
export interface ToolPage {
  readonly tools: readonly ToolInfo[];
  readonly next: string | null;
}

/** `GET sessions/{sid}/transcript`: messages of finished runs, oldest first, as in `MESSAGES_SNAPSHOT`. */
export interface TranscriptPage {
  readonly messages: readonly Readonly<Record<string, unknown>>[];
  readonly runs: readonly Run[];
  readonly questions: readonly SettledQuestion[];
  readonly earlier: string | null;
}

/** What an undo has done. */
export interface UndoneEdits {
  readonly run_id: string;
  readonly undone: readonly EditedCell[];
  readonly left: readonly LeftCell[];
}

/** Withdraw a prompt that is still waiting. */
export interface Unqueue {
  readonly type: "unqueue";
  readonly command_id?: string | null;
  readonly target: string;
}

/** Tokens of a run (or a sum of runs). Zero where the backend does not say. */
export interface Usage {
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly requests: number;
  readonly cost: number | null;
}

/** `GET usage`: what your runs have used up, by when they were made; deleted sessions are not included. */
export interface UsageReport {
  readonly today: Usage;
  readonly last_30_days: Usage;
  readonly total: Usage;
}

/** A session in which something waits for you. */
export interface WaitingSession {
  readonly id: string;
  readonly title: string;
  readonly notebook_path: string | null;
  readonly unread: number;
  readonly questions: number;
}

/** What has happened, to whom. */
export interface WebhookData {
  readonly user: string;
  readonly session: WebhookSession | null;
  readonly recall: WebhookRecall | null;
  readonly firing: WebhookFiring | null;
  readonly run: WebhookRun | null;
}

/** Body of the request that a webhook gets. */
export interface WebhookEvent {
  readonly type: "firing.ended" | "run.ended" | "test";
  readonly id: string;
  readonly timestamp: string;
  readonly data: WebhookData;
}

/** A firing that is over. */
export interface WebhookFiring {
  readonly id: string;
  readonly slot: string;
  readonly kind: string;
  readonly status: string;
  readonly reason: string | null;
  readonly lateness_ms: number | null;
}

/** The recall of an event. */
export interface WebhookRecall {
  readonly id: string;
  readonly title: string | null;
}

/** A run that is over. */
export interface WebhookRun {
  readonly id: string;
  readonly status: RunStatus;
  readonly origin: OriginKind;
  readonly model: string;
  readonly created_at: string;
  readonly started_at: string | null;
  readonly ended_at: string | null;
  readonly usage: Usage;
  readonly error: Failure | null;
  readonly answer: string | null;
}

/** The session of an event. */
export interface WebhookSession {
  readonly id: string;
  readonly title: string | null;
  readonly notebook_path: string | null;
  readonly url: string | null;
}

/** Fires when something happens, not at a time: it has no slots ahead, `next_at` is None. */
export interface When {
  readonly kind: "when";
  readonly event: WhenEvent;
  readonly kernel_id: string | null;
  readonly cell: string | null;
  readonly path: string | null;
  readonly expr: string | null;
  readonly longer_than: string | null;
  readonly every: string;
  readonly repeat: "once" | "each";
  readonly cooldown: string | null;
}

/** What can happen in a notebook, and wake a recall. */
export type WhenEvent = "cell_done" | "cell_finished" | "cell_failed" | "cell_slow" | "kernel_idle" | "kernel_restarted" | "kernel_died" | "file_changed" | "expression";

/** `{"kind":"when","event":…}`; `when` is a short word for it: `done`, `failed`, `finished`, `idle`. */
export interface WhenSpec {
  readonly kind: "when";
  readonly event?: WhenEvent | null;
  readonly when?: string | null;
  readonly kernel_id?: string | null;
  readonly cell?: string | null;
  readonly path?: string | null;
  readonly expr?: string | null;
  readonly longer_than?: string | null;
  readonly every?: string | null;
  readonly repeat?: "once" | "each" | null;
  readonly cooldown?: string | null;
}

/** Where the zone of a session comes from, the weakest first. */
export type ZoneSource = "default" | "kernel" | "browser" | "chosen";
