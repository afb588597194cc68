// What `GET recalls/overview` answers, from the recalls of the scripted sessions and the firings that a test has added.
const DAY = 86_400_000;
/** Of all sessions; each as the server describes it. */
const firings = [];
let count = 0;

/** `?session=&recall=&title=&status=&ago=&reason=&run=&seen=`: a firing that ended so many seconds ago, or runs. */
export function addFiring(query, session) {
  const status = query.get("status") ?? "succeeded";
  const isOpen = status === "running" || status === "pending";
  const at = new Date(Date.now() - Number(query.get("ago") ?? 0) * 1000).toISOString();
  count += 1;
  const id = `f_${count}`;
  firings.unshift({
    firing: {
      id,
      recall_id: query.get("recall") ?? `rec_${count}`,
      slot: at,
      kind: "auto",
      status,
      reason: query.get("reason"),
      run_id: query.get("run"),
      attempt: 0,
      coalesced: 0,
      not_before: at,
      started_at: at,
      ended_at: isOpen ? null : at,
      lateness_ms: 0,
      delivery: "none",
      delivery_error: null,
      attempts: [],
    },
    title: query.get("title") ?? "check the loss",
    session_id: session.id,
    session_title: session.title,
    unseen: !query.get("seen"),
    asks: Boolean(query.get("asks")),
    ran: status === "succeeded" ? 1 : 0,
    failed: status === "failed" ? 1 : 0,
    missed: status === "missed" ? 1 : 0,
    result: query.get("result"),
  });
}

export function forgetFirings() {
  firings.length = 0;
}

export function overview(sessions, query) {
  const now = new Date();
  const isBrief = query.get("brief") === "true";
  const dateOf = (at) => new Date(at).toLocaleDateString("sv", { timeZone: query.get("tz") ?? "UTC" });
  const day = (back) => dateOf(now.valueOf() - back * DAY);
  const own = [...sessions.values()].flatMap((session) => [...session.recalls.values()].map((recall) => ({ recall, session })));
  const open = own.filter(({ recall }) => ["pending", "running", "paused"].includes(recall.status));
  const due = open.filter(({ recall }) => recall.next_at && recall.status !== "paused").sort((a, b) => (a.recall.next_at < b.recall.next_at ? -1 : 1));
  const times = ({ recall, session }, at) => ({ recall_id: recall.id, title: recall.title, session_id: session.id, session_title: session.title, at, times: 1 });
  const past = Array.from({ length: isBrief ? 1 : 7 }, (_, back) => {
    const entries = firings.filter(({ firing }) => firing.ended_at && dateOf(firing.ended_at) === day(back)).sort((a, b) => (a.firing.ended_at < b.firing.ended_at ? 1 : -1));
    const sum = (name) => entries.reduce((total, entry) => total + entry[name], 0);
    return { date: day(back), ran: sum("ran"), failed: sum("failed"), missed: sum("missed"), firings: entries };
  });
  const coming = Array.from({ length: isBrief ? 0 : 14 }, (_, ahead) => {
    const found = due.flatMap((each) => {
      const isDaily = each.recall.schedule.kind === "cron";
      const first = new Date(each.recall.next_at);
      const at = isDaily ? new Date(first.valueOf() + Math.round((Date.parse(day(-ahead)) - Date.parse(dateOf(first))) / DAY) * DAY) : first;
      return at >= first && dateOf(at) === day(-ahead) ? [times(each, at.toISOString())] : [];
    });
    return { date: day(-ahead), count: found.length, more: 0, coming: found };
  });
  const listed = isBrief ? [] : [...due, ...open.filter((each) => !due.includes(each))];
  return {
    now: now.toISOString(),
    timezone: query.get("tz") ?? "UTC",
    open: open.length,
    paused: open.filter(({ recall }) => recall.status === "paused").length,
    next: due[0] ? times(due[0], due[0].recall.next_at) : null,
    needs: firings.filter(({ firing, unseen, asks }) => asks || (unseen && ["failed", "missed"].includes(firing.status))),
    active: firings.filter(({ firing }) => !firing.ended_at),
    past,
    recalls: listed.map(({ recall }) => recall),
    words: Object.fromEntries(listed.filter(({ recall }) => recall.schedule.kind === "cron").map(({ recall }) => [recall.id, "weekdays at 09:00 Europe/Berlin"])),
    sessions: Object.fromEntries(listed.map(({ session }) => [session.id, session.title])),
    coming,
    complete: true,
  };
}
