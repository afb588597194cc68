/**
 * Which session the panel shows: that of the notebook in front, or the one it was pinned to. A notebook that is only
 * looked at gets no session: one is made when the first prompt is sent.
 *
 * Not responsible for drawing (`panel`), or for how a notebook and its session know each other (the server).
 */

/** What is asked of the server. All reject where no answer came, or the answer was an error. */
export interface SessionSource {
  /** The session of the notebook at a path; null: it has none and none is to be made. */
  find(path: string, create: boolean): Promise<string | null>;
  /** A new session, which becomes the notebook's where there is one. */
  create(path: string | null): Promise<string>;
  /** The session that was used last; null: there is none. */
  last(): Promise<string | null>;
  /** The path of a session's notebook; null: it is of none; undefined: there is no such session. */
  notebookOf(session: string): Promise<string | null | undefined>;
}

/** Where the pin is kept over a reload. `read` is called once; until it has answered nothing is shown. */
export interface PinStorage {
  read(): Pin | null | Promise<Pin | null>;
  write(pin: Pin | null): void;
}

export interface Pin {
  readonly session: string | null;
  readonly notebook: string | null;
}

export interface ShownSession {
  /** Null: the first prompt makes it. */
  readonly session: string | null;
  /** The path of the notebook whose session it is; null: of none that is open here. */
  readonly notebook: string | null;
  readonly isPinned: boolean;
  /** Of the view without session: two of them with different keys have different drafts. */
  readonly key: string;
}

/** When a request that failed is tried again. Milliseconds. */
const AGAIN_AFTER = 3_000;

export class FollowedSession {
  readonly #source: SessionSource;
  readonly #pins: PinStorage;
  readonly #changed: () => void;
  /** The notebook in front. */
  #active: string | null = null;
  #pin: Pin | null = null;
  /** The pin of before the reload, while it is being read. */
  #kept: Promise<Pin | null> | null;
  /** A new session was asked for and has no prompt yet. */
  #isNew = false;
  #shown: ShownSession | null = null;
  #problem: unknown = null;
  /** Of the last look: what an earlier one finds out is not shown any more. */
  #look = 0;
  #again: ReturnType<typeof setTimeout> | undefined;

  constructor(source: SessionSource, pins: PinStorage, changed: () => void) {
    this.#source = source;
    this.#pins = pins;
    this.#changed = changed;
    this.#kept = Promise.resolve(pins.read());
  }

  /** Null: not known yet. */
  get shown(): ShownSession | null {
    return this.#shown;
  }

  /** Why nothing is known; null: nothing is wrong. */
  get problem(): unknown {
    return this.#problem;
  }

  /** Another notebook is in front; null: none is open. */
  show(notebook: string | null): Promise<void> {
    if (notebook !== this.#active) this.#isNew = false;
    this.#active = notebook;
    return this.refresh();
  }

  /** A notebook was renamed or moved: it stays what it is. */
  rename(from: string, to: string): Promise<void> {
    if (this.#active === from) this.#active = to;
    if (this.#pin?.notebook === from) this.#setPin({ ...this.#pin, notebook: to });
    return this.refresh();
  }

  /** Asks which session it is now: a cell or another page may have made one, or have chosen another. Never rejects. */
  async refresh(): Promise<void> {
    clearTimeout(this.#again);
    const look = (this.#look += 1);
    try {
      const shown = await this.#find();
      if (look !== this.#look) return;
      this.#problem = null;
      this.#set(shown);
    } catch (problem) {
      if (look !== this.#look) return;
      this.#problem = problem;
      this.#again = setTimeout(() => void this.refresh(), AGAIN_AFTER);
      if (this.#shown === null) this.#changed();
    }
  }

  /** Stays with what is shown, or follows the notebook in front again. */
  setPinned(isPinned: boolean): Promise<void> {
    const { session = null, notebook = null } = this.#shown ?? {};
    this.#setPin(isPinned ? { session, notebook } : null);
    if (!isPinned) this.#isNew = false;
    if (isPinned && this.#shown) this.#set({ ...this.#shown, isPinned });
    return isPinned ? Promise.resolve() : this.refresh();
  }

  /** Shows a session that was chosen, and stays with it, unless it is that of the notebook in front. Never rejects. */
  async choose(session: string): Promise<void> {
    this.#isNew = false;
    this.#setPin({ session, notebook: null });
    this.#look += 1;
    this.#set(shownOf(session, null, true, false));
    const look = this.#look;
    const own = this.#active === null ? null : await this.#source.find(this.#active, false).catch(() => null);
    if (look !== this.#look) return;
    if (session === own) this.#setPin(null);
    await this.refresh();
  }

  /** Shows an empty chat whose first prompt makes a session, for the notebook that is shown now. */
  startNew(): void {
    this.#look += 1; // a look that is on its way finds the session that is there
    this.#isNew = true;
    const notebook = this.#notebook;
    if (this.#pin) this.#setPin({ session: null, notebook });
    this.#set(shownOf(null, notebook, this.#pin !== null, true));
  }

  /** Makes the session of the view that is shown. Rejects as the server's answers do. */
  async begin(): Promise<string> {
    const notebook = this.#notebook;
    const isNew = this.#isNew;
    this.#look += 1;
    const made = isNew || notebook === null ? await this.#source.create(notebook) : await this.#source.find(notebook, true);
    if (made === null) throw new Error("no session was made");
    if (notebook !== this.#notebook || isNew !== this.#isNew) return made; // the user went on to another notebook
    this.#isNew = false;
    if (this.#pin) this.#setPin({ ...this.#pin, session: made });
    this.#set(shownOf(made, notebook, this.#pin !== null, false));
    return made;
  }

  get #notebook(): string | null {
    return this.#pin ? this.#pin.notebook : this.#active;
  }

  async #find(): Promise<ShownSession> {
    const kept = this.#kept;
    const pinned = await kept?.catch(() => null);
    if (kept && this.#kept === kept) {
      this.#kept = null;
      this.#pin = pinned ?? null;
    }
    const notebook = this.#notebook;
    if (this.#isNew) return shownOf(null, notebook, this.#pin !== null, true);
    const pin = this.#pin;
    if (pin?.session) {
      const path = await this.#source.notebookOf(pin.session);
      if (path !== undefined) return shownOf(pin.session, pin.notebook ?? path, true, false);
      if (this.#pin === pin) this.#setPin(null); // it was deleted
      return this.#find();
    }
    const session = notebook === null ? await this.#source.last() : await this.#source.find(notebook, false);
    return shownOf(session, notebook, pin !== null, false);
  }

  #setPin(pin: Pin | null): void {
    this.#kept = null; // what the user chose meanwhile counts
    this.#pin = pin;
    this.#pins.write(pin);
  }

  #set(shown: ShownSession): void {
    const was = this.#shown;
    if (was && was.session === shown.session && was.notebook === shown.notebook && was.isPinned === shown.isPinned && was.key === shown.key) return;
    this.#shown = shown;
    this.#changed();
  }
}

function shownOf(session: string | null, notebook: string | null, isPinned: boolean, isNew: boolean): ShownSession {
  return { session, notebook, isPinned, key: `${isNew ? "new" : "first"}:${notebook ?? ""}` };
}
