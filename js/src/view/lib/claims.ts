/** What only one tab or view of this browser does: the first one that claims it. */

const CLAIMED = "navi:told";
/** So many are remembered. */
const REMEMBERED = 50;

/** Whether the caller is the one to do what has this id. */
export async function claim(id: string): Promise<boolean> {
  const take = (): boolean => {
    const claimed = (readShared(CLAIMED) ?? "").split(" ").filter(Boolean);
    if (claimed.includes(id)) return false;
    writeShared(CLAIMED, [...claimed, id].slice(-REMEMBERED).join(" "));
    return true;
  };
  // Locks need a secure context; without one, two tabs may both do it.
  return "locks" in navigator ? await navigator.locks.request(CLAIMED, take) : take();
}

/** From the storage that the tabs of this browser share. */
export function readShared(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function writeShared(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A private mode: what is stored lasts as long as the page.
  }
}
