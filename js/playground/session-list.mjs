// The list of sessions as the real server answers it, in memory: `POST /control/seed?count=N` fills it.

const DAY = 86_400_000;
const PAGE = 50;

export class PlayList {
  constructor() {
    this.sessions = new Map();
    this.readers = new Map();
  }

  seed(count) {
    this.sessions.clear();
    this.readers.clear();
    const noon = new Date().setHours(12, 0, 0, 0);
    for (let number = 0; number < count; number += 1) {
      const at = new Date(Math.min(noon - Math.floor(number / 4) * DAY - (number % 4) * 60_000, Date.now() - number)).toISOString();
      this.add({ id: `s_${String(number).padStart(5, "0")}`, title: TITLES[number % TITLES.length].replace("#", String(number)), updated_at: at });
    }
    const [first, second, third, fourth] = this.sessions.values();
    if (first) Object.assign(first, { unread: 2, notebook_path: "work/training/loss curves of the new model.ipynb" });
    if (second) second.activity = "running";
    if (third) third.activity = "waiting";
    if (fourth) Object.assign(fourth, { access: "reader", owner: "grace" });
  }

  add(fields) {
    const at = new Date().toISOString();
    const session = {
      owner: "local", profile: "assistant", model: "offline", notebook_path: null, notebook_link: null, earlier_path: null, kernel_id: null,
      timezone: "UTC", timezone_source: "browser", created_at: at, updated_at: at, head_seq: 0, allowed_tools: [], context: {},
      title: "Session", title_source: "user", archived_at: null, deleted_at: null, unread: 0, activity: "idle", access: "owner", hit: null, hits: 0, ...fields,
    };
    this.sessions.set(session.id, session);
    return session;
  }

  /** [status, body]; undefined: not of the list. */
  answer(method, id, action, query, body) {
    if (id === undefined) return method === "POST" ? [201, this.add({ id: `s_new${this.sessions.size}`, title: "New" })] : [200, this.page(query)];
    const session = this.sessions.get(id);
    if (!session) return undefined;
    const now = new Date().toISOString();
    switch (`${method} ${action ?? ""}`.trim()) {
      case "PATCH":
        return [200, Object.assign(session, body)];
      case "DELETE":
        session.deleted_at = now;
        return [204, undefined];
      case "POST restore":
        return [200, Object.assign(session, { deleted_at: null })];
      case "POST archive":
        return [200, Object.assign(session, { archived_at: now })];
      case "POST unarchive":
        return [200, Object.assign(session, { archived_at: null })];
      case "POST fork":
        return [201, this.add({ id: `${id}f`, title: `${session.title} (fork)` })];
      case "POST share":
        if (body.user === "nobody-allowed") return [403, { message: "You are not allowed to write navi-sharing on this Jupyter server.", code: "forbidden" }];
        this.readers.set(id, [...new Set([...(this.readers.get(id) ?? []), body.user])]);
        return [200, { readers: this.readers.get(id) }];
      case "POST unshare":
        this.readers.set(id, (this.readers.get(id) ?? []).filter((user) => user !== body.user));
        return [200, { readers: this.readers.get(id) }];
      case "GET export":
        return [200, `# ${session.title}\n`];
      case "GET":
        return [200, { ...session, run: null, queue: [], approvals: [], usage: { input_tokens: 0, output_tokens: 0, requests: 0, cost: null }, readers: this.readers.get(id) ?? [] }];
      default:
        return undefined;
    }
  }

  page(query) {
    const words = (query.get("query") ?? "").toLowerCase().replaceAll('"', "").split(/\s+/).filter(Boolean);
    const show = query.get("show") ?? "active";
    const shown = {
      active: ({ archived_at, deleted_at }) => !archived_at && !deleted_at,
      archived: ({ archived_at, deleted_at }) => archived_at && !deleted_at,
      deleted: ({ deleted_at }) => deleted_at,
      shared: ({ access, deleted_at }) => access === "reader" && !deleted_at,
    }[show];
    const all = [...this.sessions.values()]
      .filter((session) => (words.length ? !session.deleted_at && words.every((word) => session.title.toLowerCase().includes(word)) : shown(session)))
      .sort((a, b) => (a.updated_at === b.updated_at ? (a.id < b.id ? -1 : 1) : a.updated_at < b.updated_at ? 1 : -1));
    const [from, limit] = [Number(query.get("cursor") ?? 0), Number(query.get("limit") ?? PAGE)];
    const page = all.slice(from, from + limit).map((session) => (words.length ? { ...session, hits: 3, hit: hit(session, words[0]) } : session));
    return { sessions: page, next: from + limit < all.length ? String(from + limit) : null, complete: true };
  }
}

function hit(session, word) {
  const at = session.title.toLowerCase().indexOf(word);
  const parts = [
    { text: `… asked about <b>this</b>: ${session.title.slice(0, at)}`, match: false },
    { text: session.title.slice(at, at + word.length), match: true },
    { text: `${session.title.slice(at + word.length)} and more of it …`, match: false },
  ];
  return { role: "user", message_id: `m_${session.id}`, run_id: "r", at: session.updated_at, snippet: parts };
}

const TITLES = ["Loss curves of run #", "明天的会议记录 #", "Why is the validation loss flat after epoch # although the learning rate is lower?", "تقرير الأسبوع #", "Clean up data #"];
