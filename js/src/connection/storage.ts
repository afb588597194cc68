/** Storage of the browser, where there is some (web views and private modes may have none). */

const PREFIX = "navi:";

/** `tab`: of this tab alone, gone with it. `browser`: shared by all tabs, and kept. */
export type Scope = "tab" | "browser";

const of = (scope: Scope): Storage => (scope === "tab" ? sessionStorage : localStorage);

export function readStored(key: string, scope: Scope = "tab"): string | null {
  try {
    return of(scope).getItem(PREFIX + key);
  } catch {
    return null;
  }
}

/** Stores `value`; null removes. A full or missing storage is no error: this is a convenience. */
export function writeStored(key: string, value: string | null, scope: Scope = "tab"): void {
  try {
    if (value === null) of(scope).removeItem(PREFIX + key);
    else of(scope).setItem(PREFIX + key, value);
  } catch {
    // nothing to be done, and nothing lost but the convenience
  }
}
