/** The zone of this browser, as requests bring it along. Whose zone counts, the server decides. */

import type { Asker, ClientNotebook, PromptClient } from "../../protocol/generated.js";

/** Its IANA name; null where the browser does not know it, or has only an offset. */
export function browserZone(): string | null {
  const zone: string | undefined = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return zone && /^[A-Z]/i.test(zone) && zone !== "Etc/Unknown" ? zone : null;
}

/** The field `client` of a request whose times are read. */
export function asker(): { readonly client?: Asker } {
  const tz = browserZone();
  return tz === null ? {} : { client: { tz, source: "browser" } };
}

/** The same field of a prompt, with what the page shows of its notebook. */
export function promptClient(notebook: ClientNotebook | null): { readonly client?: PromptClient } {
  const { client } = asker();
  return client === undefined ? {} : { client: { ...client, ...(notebook ? { notebook } : {}) } };
}

/** The names that can be chosen. */
export function zoneNames(): readonly string[] {
  return [...new Set(["UTC", ...(Intl.supportedValuesOf?.("timeZone") ?? [])])];
}
