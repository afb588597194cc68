/** The tab's own storage, where there is one (web views and private modes may have none). */

const PREFIX = "navi:";

export function readStored(key: string): string | null {
  try {
    return sessionStorage.getItem(PREFIX + key);
  } catch {
    return null;
  }
}

/** Stores `value`; null removes. A full or missing storage is no error: this is a convenience. */
export function writeStored(key: string, value: string | null): void {
  try {
    if (value === null) sessionStorage.removeItem(PREFIX + key);
    else sessionStorage.setItem(PREFIX + key, value);
  } catch {
    // nothing to be done, and nothing lost but the convenience
  }
}
