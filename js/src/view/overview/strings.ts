/** Texts of the view over the recalls of all sessions, its toasts, and the recalls that are made from an answer. */

/** How many, as words that follow one another. */
function counts(ran: number, failed: number, missed: number): string[] {
  return [`${ran} ran`, ...(failed ? [`${failed} failed`] : []), ...(missed ? [`${missed} did not run`] : [])];
}

export const overviewTexts = {
  /** The line above a chat. `next`: when the next one comes. */
  todayLine: (ran: number, failed: number, missed: number, next: string | null) =>
    `Today: ${[...(ran || failed || missed ? counts(ran, failed, missed) : ["none ran"]), ...(next === null ? [] : [`next at ${next}`])].join(", ")}`,
  todayNeeds: (count: number) => (count === 1 ? "1 needs you" : `${count} need you`),
  todayOpen: "Show the recalls of all sessions",
  overview: "Recalls of all sessions",
  overviewClose: "Close the recalls of all sessions",
  overviewNone: "There are no recalls yet. Write to Navi when it is to come back: “every weekday at 9, summarise what happened”.",
  overviewNeeds: "Needs you",
  overviewActive: "Running now",
  overviewNext: "Next",
  overviewWaiting: "Waiting for an event, or paused",
  overviewToday: "Today",
  overviewYesterday: "Yesterday",
  overviewCalendar: "The coming two weeks",
  overviewMore: (count: number) => `${count} more`,
  overviewAsks: "asks you",
  overviewDay: (ran: number, failed: number, missed: number) => counts(ran, failed, missed).join(", "),
  overviewTimes: (count: number) => `${count} times`,
  overviewNoSession: "its session was deleted",
  overviewUntitled: "Session without a title",
  overviewGoTo: (session: string) => `Open the session “${session}”`,
  overviewShow: "Show",
  overviewShowOf: (title: string, when: string) => `Show the answer of “${title}” at ${when}`,
  overviewAnswer: (title: string) => `Answer the question of “${title}”`,
  overviewAgain: "Run again",
  overviewAgainOf: (title: string) => `Run again: ${title}`,
  overviewRun: (title: string) => `Run now: ${title}`,
  overviewStarted: (title: string) => `“${title}” was started.`,
  calendarDay: (day: string, count: number) => (count === 0 ? `${day}, nothing` : count === 1 ? `${day}, 1 recall` : `${day}, ${count} recalls`),
  calendarToday: (day: string) => `${day}, today`,
  calendarNone: "Nothing is to come in these two weeks.",
  calendarIncomplete: "Recalls that come later than the first 500 are left out.",
  calendarHint: "Arrow keys move from day to day; Enter shows a day.",
  remind: "Remind me",
  remindMenu: "When Navi is to come back to this",
  remindSoon: "In 10 minutes",
  remindHour: "In 1 hour",
  remindTomorrow: "Tomorrow at 9:00",
  remindCustom: "At another time…",
  remindDaily: (clock: string) => `Every day at ${clock}`,
  remindCell: "When this cell is done",
  /** Read by the server, in English whatever the language of the page. */
  remindMessage: (prompt: string) => `Again: ${prompt}`,
};

/** What is said where a recall has just run, in a chat and by JupyterLab. */
export const toastTexts = {
  toasts: "Recalls that have just run",
  toastDone: (title: string) => `${title}: done`,
  toastFailed: (title: string) => `${title}: failed`,
  toastMissed: (title: string) => `${title}: did not run`,
  toastAsks: (title: string) => `${title}: asks you`,
  toastIn: (session: string) => `in “${session}”`,
  toastShow: "Show",
  toastDismiss: (text: string) => `Dismiss: ${text}`,
};
