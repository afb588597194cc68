/** The height that a user gave a chat in a cell by its corner: the session's next view in this browser has it, too. */

const KEY = "navi:heights";
/** Sessions that are remembered, the last ones first. */
const MOST = 100;

type Heights = readonly (readonly [session: string, height: number])[];

function readHeights(): Heights {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter((each): each is [string, number] => Array.isArray(each) && typeof each[0] === "string" && typeof each[1] === "number") : [];
  } catch {
    return []; // no storage
  }
}

function writeHeight(session: string, height: number): void {
  const others = readHeights().filter(([id]) => id !== session);
  try {
    localStorage.setItem(KEY, JSON.stringify([[session, height], ...others].slice(0, MOST)));
  } catch {
    // no storage, or a full one: the next view has the usual height
  }
}

/** Gives a chat the height that its session's last view had, and remembers what it is changed to. */
export function keepHeight(chat: HTMLElement & { readonly session: string | null }): void {
  const known = readHeights().find(([id]) => id === chat.session)?.[1];
  if (known !== undefined) chat.style.height = `${known}px`;
  let last = chat.style.height;
  // The browser writes what the user drags into the element's own style.
  new ResizeObserver(() => {
    if (!chat.session || chat.style.height === last) return;
    last = chat.style.height;
    const height = parseFloat(last);
    if (last.endsWith("px") && height > 0) writeHeight(chat.session, Math.round(height));
  }).observe(chat);
}
