import { describe, expect, it } from "vitest";
import { FollowedSession, type Pin, type SessionSource } from "../src/lab/followed-session.js";

/** A server with notebooks and their sessions. */
class Server implements SessionSource {
  readonly sessions = new Map<string, string>();
  readonly made: (string | null)[] = [];
  readonly deleted = new Set<string>();
  lastUsed: string | null = null;
  isDown = false;
  /** Answers wait until `let` is called. */
  #held: (() => void)[] | null = null;
  asked = 0;

  hold(): void {
    this.#held = [];
  }

  let(): void {
    for (const go of this.#held ?? []) go();
    this.#held = null;
  }

  async #answer(): Promise<void> {
    this.asked += 1;
    if (this.#held) await new Promise<void>((resolve) => this.#held?.push(resolve));
    if (this.isDown) throw new Error("down");
  }

  async find(path: string, create: boolean): Promise<string | null> {
    const found = this.sessions.get(path) ?? null;
    await this.#answer();
    return found === null && create ? this.create(path) : found;
  }

  async create(path: string | null): Promise<string> {
    await this.#answer();
    this.made.push(path);
    const id = `s_${this.made.length}`;
    if (path !== null) this.sessions.set(path, id);
    return (this.lastUsed = id);
  }

  async last(): Promise<string | null> {
    await this.#answer();
    return this.lastUsed;
  }

  async notebookOf(session: string): Promise<string | null | undefined> {
    await this.#answer();
    if (this.deleted.has(session)) return undefined;
    return [...this.sessions].find(([, id]) => id === session)?.[0] ?? null;
  }
}

function panel(server: Server, kept: { pin: Pin | null } = { pin: null }): FollowedSession & { changes: number } {
  const followed = new FollowedSession(server, { read: () => kept.pin, write: (pin) => void (kept.pin = pin) }, () => (result.changes += 1));
  const result = Object.assign(followed, { changes: 0 });
  return result;
}

describe("the session of the panel", () => {
  it("makes none for a notebook that is only looked at, and one at the first prompt", async () => {
    const server = new Server();
    const followed = panel(server);
    await followed.show("a.ipynb");
    await followed.show("b.ipynb");
    expect(server.made).toEqual([]);
    expect(followed.shown).toMatchObject({ session: null, notebook: "b.ipynb" });
    const made = await followed.begin();
    expect(server.made).toEqual(["b.ipynb"]);
    expect(followed.shown).toMatchObject({ session: made, notebook: "b.ipynb" });
  });

  it("waits for a pin that is read later, and what the user chooses meanwhile counts", async () => {
    const server = new Server();
    server.sessions.set("a.ipynb", "s_a").set("b.ipynb", "s_b");
    let found: (pin: Pin) => void = () => undefined;
    const written: (Pin | null)[] = [];
    const pins = { read: () => new Promise<Pin>((resolve) => (found = resolve)), write: (pin: Pin | null) => void written.push(pin) };
    const followed = new FollowedSession(server, pins, () => undefined);
    const shown = followed.show("b.ipynb");
    expect(followed.shown).toBeNull();
    found({ session: "s_a", notebook: "a.ipynb" });
    await shown;
    expect(followed.shown).toMatchObject({ session: "s_a", notebook: "a.ipynb", isPinned: true });

    const other = new FollowedSession(server, pins, () => undefined);
    void other.show("b.ipynb");
    await other.choose("s_b");
    found({ session: "s_a", notebook: "a.ipynb" });
    await other.refresh();
    expect(other.shown).toMatchObject({ session: "s_b", isPinned: false });
  });

  it("is that of the notebook in front", async () => {
    const server = new Server();
    server.sessions.set("a.ipynb", "s_a").set("b.ipynb", "s_b");
    const followed = panel(server);
    await followed.show("a.ipynb");
    expect(followed.shown?.session).toBe("s_a");
    await followed.show("b.ipynb");
    expect(followed.shown?.session).toBe("s_b");
  });

  it("is the last one found although an earlier answer comes later", async () => {
    const server = new Server();
    server.sessions.set("a.ipynb", "s_a").set("b.ipynb", "s_b");
    const followed = panel(server);
    server.hold();
    const first = followed.show("a.ipynb");
    const second = followed.show("b.ipynb");
    server.let();
    await Promise.all([first, second]);
    expect(followed.shown?.session).toBe("s_b");
    expect(followed.changes).toBe(1);
  });

  it("stays when it is pinned, also over a reload, and follows again when it is not", async () => {
    const server = new Server();
    server.sessions.set("a.ipynb", "s_a").set("b.ipynb", "s_b");
    const kept: { pin: Pin | null } = { pin: null };
    const followed = panel(server, kept);
    await followed.show("a.ipynb");
    await followed.setPinned(true);
    await followed.show("b.ipynb");
    expect(followed.shown).toMatchObject({ session: "s_a", notebook: "a.ipynb", isPinned: true });
    const again = panel(server, kept);
    await again.show("b.ipynb");
    expect(again.shown).toMatchObject({ session: "s_a", isPinned: true });
    await again.setPinned(false);
    expect(again.shown).toMatchObject({ session: "s_b", isPinned: false });
    expect(kept.pin).toBeNull();
  });

  it("is no longer pinned to a session that was deleted", async () => {
    const server = new Server();
    server.sessions.set("b.ipynb", "s_b");
    server.deleted.add("s_a");
    const followed = panel(server, { pin: { session: "s_a", notebook: "a.ipynb" } });
    await followed.show("b.ipynb");
    expect(followed.shown).toMatchObject({ session: "s_b", isPinned: false });
  });

  it("pins a notebook without session, whose first prompt makes that notebook's", async () => {
    const server = new Server();
    const followed = panel(server);
    await followed.show("a.ipynb");
    await followed.setPinned(true);
    await followed.show("b.ipynb");
    await followed.begin();
    expect(server.made).toEqual(["a.ipynb"]);
    expect(followed.shown).toMatchObject({ session: "s_1", notebook: "a.ipynb", isPinned: true });
  });

  it("is the last used one where no notebook is open, or a new one without notebook", async () => {
    const server = new Server();
    const followed = panel(server);
    await followed.show(null);
    expect(followed.shown).toMatchObject({ session: null, notebook: null });
    await followed.begin();
    expect(server.made).toEqual([null]);
    const again = panel(server);
    await again.show(null);
    expect(again.shown?.session).toBe("s_1");
  });

  it("is a new one for the notebook that has one where that is asked for", async () => {
    const server = new Server();
    server.sessions.set("a.ipynb", "s_a");
    const followed = panel(server);
    await followed.show("a.ipynb");
    const key = followed.shown?.key;
    followed.startNew();
    expect(followed.shown?.session).toBeNull();
    expect(followed.shown?.key).not.toBe(key);
    await followed.refresh(); // the page got the focus again
    expect(followed.shown?.session).toBeNull();
    await followed.begin();
    expect(server.made).toEqual(["a.ipynb"]);
    expect(followed.shown?.session).toBe("s_1");
  });

  it("is pinned when it is chosen, unless it is that of the notebook in front", async () => {
    const server = new Server();
    server.sessions.set("a.ipynb", "s_a");
    const followed = panel(server);
    await followed.show("a.ipynb");
    server.sessions.set("other.ipynb", "s_other");
    const chosen = followed.choose("s_other");
    expect(followed.shown).toMatchObject({ session: "s_other", isPinned: true });
    await chosen;
    expect(followed.shown).toMatchObject({ session: "s_other", notebook: "other.ipynb", isPinned: true });
    await followed.choose("s_a");
    expect(followed.shown).toMatchObject({ session: "s_a", isPinned: false });
  });

  it("goes along with a notebook that is renamed", async () => {
    const server = new Server();
    server.sessions.set("a.ipynb", "s_a");
    const followed = panel(server);
    await followed.show("a.ipynb");
    server.sessions.delete("a.ipynb");
    server.sessions.set("c.ipynb", "s_a");
    await followed.rename("a.ipynb", "c.ipynb");
    expect(followed.shown).toMatchObject({ session: "s_a", notebook: "c.ipynb" });
  });

  it("made for a notebook that the user has left is not shown in the other one", async () => {
    const server = new Server();
    server.sessions.set("b.ipynb", "s_b");
    const followed = panel(server);
    await followed.show("a.ipynb");
    server.hold();
    const begun = followed.begin();
    const shown = followed.show("b.ipynb");
    server.let();
    await shown;
    const made = await begun;
    expect(server.sessions.get("a.ipynb")).toBe(made);
    expect(followed.shown?.session).toBe("s_b");
  });

  it("stays what it is while the server cannot be reached", async () => {
    const server = new Server();
    server.sessions.set("a.ipynb", "s_a");
    const followed = panel(server);
    await followed.show("a.ipynb");
    server.isDown = true;
    await followed.refresh();
    expect(followed.shown?.session).toBe("s_a");
    expect(followed.problem).toBeInstanceOf(Error);
    server.isDown = false;
    await followed.refresh();
    expect(followed.problem).toBeNull();
  });
});
