/** The packages that JupyterLab and Notebook share with extensions: their container hands the scope over, once. */

interface Shared {
  get(): Promise<() => unknown>;
}
export type ShareScope = Readonly<Record<string, Readonly<Record<string, Shared>>>>;

let scope: ShareScope = {};

export function useScope(shareScope: ShareScope): void {
  scope = shareScope;
}

/** A package in its highest version. Rejects where the page does not share it. */
export async function shared<T>(name: string): Promise<T> {
  const versions = scope[name] ?? {};
  const highest = Object.keys(versions).sort((one, other) => one.localeCompare(other, "en", { numeric: true })).at(-1);
  const found = highest === undefined ? undefined : versions[highest];
  if (!found) throw new Error(`navi-jupyter: JupyterLab does not share ${name}`);
  return (await found.get())() as T;
}

/** As `shared`; null where the page does not share it (Notebook has no launcher, for example). */
export async function sharedIfAny<T>(name: string): Promise<T | null> {
  return name in scope ? shared<T>(name) : null;
}
