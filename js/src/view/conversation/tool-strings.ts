/** Calls of tools in words. The English of cells and exports is the same: `kernel/display/tool_lines.py`, and a file of examples for both. */

/** `{}` is what the call is about, in `any` words where that is not known. `plain` comes behind "to". */
export interface ToolVerb {
  readonly done: string;
  readonly running: string;
  readonly plain: string;
  readonly any: string;
}

export function verb(done: string, running: string, plain: string, any = ""): ToolVerb {
  return { done, running, plain, any };
}

export const toolTexts = {
  toolVerbs: {
    acp__delete: verb("Deleted {}", "Deleting {}…", "delete {}", "a file"),
    acp__edit: verb("Changed {}", "Changing {}…", "change {}", "a file"),
    acp__execute: verb("Ran a command", "Running a command…", "run a command"),
    acp__fetch: verb("Fetched a page", "Fetching a page…", "fetch a page"),
    acp__move: verb("Moved {}", "Moving {}…", "move {}", "a file"),
    acp__other: verb("Used {}", "Using {}…", "use {}", "a tool of its own"),
    acp__read: verb("Read {}", "Reading {}…", "read {}", "a file"),
    acp__search: verb("Searched the files", "Searching the files…", "search the files"),
    acp__switch_mode: verb("Changed its mode", "Changing its mode…", "change its mode"),
    acp__think: verb("Thought about it", "Thinking about it…", "think about it"),
    ask_user: verb("Asked you a question", "Asking you a question…", "ask you a question"),
    cancel_recall: verb("Cancelled {}", "Cancelling {}…", "cancel {}", "a recall"),
    change_recall: verb("Changed {}", "Changing {}…", "change {}", "a recall"),
    create_recall: verb("Scheduled {}", "Scheduling {}…", "schedule {}", "a recall"),
    current_time: verb("Looked at the clock", "Looking at the clock…", "look at the clock"),
    delegate: verb("Gave a task to a subagent", "Giving a task to a subagent…", "give a task to a subagent"),
    delete_cell: verb("Deleted {}", "Deleting {}…", "delete {}", "a cell"),
    edit_cell: verb("Changed {}", "Changing {}…", "change {}", "a cell"),
    forget: verb("Forgot a fact", "Forgetting a fact…", "forget a fact"),
    insert_cell: verb("Inserted a cell", "Inserting a cell…", "insert a cell"),
    inspect_variable: verb("Looked at {}", "Looking at {}…", "look at {}", "a variable"),
    interrupt_kernel: verb("Interrupted the kernel", "Interrupting the kernel…", "interrupt the kernel"),
    kernel_status: verb("Looked at the kernel", "Looking at the kernel…", "look at the kernel"),
    list_files: verb("Listed {}", "Listing {}…", "list {}", "the files"),
    list_recalls: verb("Listed the recalls", "Listing the recalls…", "list the recalls"),
    list_variables: verb("Listed the variables", "Listing the variables…", "list the variables"),
    pause_recall: verb("Paused {}", "Pausing {}…", "pause {}", "a recall"),
    read_file: verb("Read {}", "Reading {}…", "read {}", "a file"),
    read_notebook: verb("Read {}", "Reading {}…", "read {}", "the notebook"),
    read_output: verb("Read more of an output", "Reading more of an output…", "read more of an output"),
    recall_notebook: verb("Scheduled {}", "Scheduling {}…", "schedule {}", "a notebook"),
    recall_when_true: verb("Scheduled {}", "Scheduling {}…", "schedule {}", "a recall"),
    remember: verb("Remembered a fact", "Remembering a fact…", "remember a fact"),
    restart_kernel: verb("Restarted the kernel", "Restarting the kernel…", "restart the kernel"),
    resume_recall: verb("Resumed {}", "Resuming {}…", "resume {}", "a recall"),
    run_cell: verb("Ran {}", "Running {}…", "run {}", "a cell"),
    run_code: verb("Ran code", "Running code…", "run code"),
    run_notebook: verb("Ran {}", "Running {}…", "run {}", "a notebook"),
    search_files: verb("Searched files for {}", "Searching files for {}…", "search files for {}", "a text"),
    search_memory: verb("Searched the memory", "Searching the memory…", "search the memory"),
    session_history: verb("Read what happened here", "Reading what happened here…", "read what happened here"),
    write_file: verb("Wrote {}", "Writing {}…", "write {}", "a file"),
  },
  /** Of tools without words of their own. */
  toolOther: verb("Used {}", "Using {}…", "use {}"),
  toolOf: (tool: string, server: string) => `${tool} of ${server}`,
  toolAsks: (plain: string) => `Wants to ${plain}`,
  toolFailed: (plain: string) => `Could not ${plain}`,
  toolDenied: (plain: string) => `Was not allowed to ${plain}`,
  toolStopped: (plain: string) => `Began to ${plain}, and was stopped`,
  toolQuoted: (text: string) => `“${text}”`,
  toolCell: (number: number) => `cell ${number}`,
  toolCells: (first: number, last: number) => `cells ${first} to ${last}`,
  toolLastCell: "the last cell",
  toolName: "Tool",
  /** `by`: one of the three below; empty where it is not known. */
  allowedBy: (by: string, when: string) => `Allowed ${by}, ${when}`.replace(" ,", ","),
  allowedChangedBy: (by: string, when: string) => `Allowed with changes ${by}, ${when}`.replace(" ,", ","),
  allowedAlwaysBy: (by: string, when: string) => `Allowed for this session ${by}, ${when}`.replace(" ,", ","),
  deniedBy: (by: string, when: string) => `Denied ${by}, ${when}`.replace(" ,", ","),
  answeredBy: (by: string, when: string) => `Answered ${by}, ${when}`.replace(" ,", ","),
  declinedBy: (by: string, when: string) => `Declined ${by}, ${when}`.replace(" ,", ","),
  byYou: "by you",
  byCell: "in a cell",
  byName: (name: string) => `by ${name}`,
  footnote: (number: string) => `Footnote ${number}`,
  footnotes: "Footnotes",
  footnoteBack: "Back to the text",
  table: "Table",
  taskDone: "done",
  taskOpen: "to do",
};
