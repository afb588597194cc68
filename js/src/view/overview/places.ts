/** A place in a session, and the events that lead there. Without Lit: JupyterLab's extension has this, too. */

/** What the host of a chat gets: it shows that session, and cancels the event. */
export const OPEN_SESSION = "navi-open-session";

export interface SessionPlace {
  readonly session: string;
  /** Null: its end. */
  readonly runId: string | null;
  /** A message of the run; null: its first. */
  readonly messageId?: string | null;
  /** What was searched for in it. */
  readonly words?: readonly string[];
}

/** What a chat gets that is to show what a run said, once it shows that session. */
export const SHOW_RUN = "navi-show-run";

/** What a chat gets that is to open the form of a new recall, with a draft of it. */
export const PROPOSE_RECALL = "navi-propose-recall";

/** What a chat gets that is to show the recalls of all sessions. */
export const SHOW_OVERVIEW = "navi-show-overview";
