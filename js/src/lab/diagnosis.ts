/** Why the panel has nothing to show, in words, and what can be done about it. */

import { readPageConfig } from "../connection/page-config.js";
import { OFF } from "../connection/transport.js";
import { WebSocketTransport } from "../connection/ws.js";
import { texts } from "./texts.js";

/** An answer of the server that is an error. */
export class ServerProblem extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface Diagnosis {
  readonly text: string;
  /** Where the user can do something about it. */
  readonly link: { readonly href: string; readonly text: string } | null;
}

/** What is wrong, from a request or a load that failed; the server is asked where that does not tell. Never rejects. */
export async function diagnose(problem: unknown): Promise<Diagnosis> {
  const config = readPageConfig();
  if (!config) return { text: texts.labNoServer, link: null };
  const server = new WebSocketTransport(config);
  // A script that is not there, or is no script, does not say why; JupyterHub refuses a POST to a server that is off.
  let status = problem instanceof ServerProblem ? problem.status : 0;
  if (!status || status === 403) status = await server.request("GET", "health").then((answer) => answer.status, () => status);
  if (status === 401 || status === 403) return { text: texts.labLoggedOut, link: { href: server.loginUrl, text: texts.labLogIn } };
  if (status === OFF) return { text: texts.labOff, link: { href: server.loginUrl, text: texts.labStart } };
  if (status === 404) return { text: texts.labNoExtension, link: null };
  if (status === 0 || status >= 500) return { text: texts.labNoServer, link: null };
  if (problem instanceof ServerProblem && problem.message) return { text: problem.message, link: null };
  return { text: texts.labOtherVersion, link: null };
}

/** Where not even the panel's element could be loaded. */
export function drawDiagnosis(node: HTMLElement, { text, link }: Diagnosis): void {
  const note = document.createElement("p");
  note.className = "navi-side-note";
  note.dataset["navi"] = "panel-note";
  note.setAttribute("role", "status");
  note.textContent = text;
  if (link) {
    const anchor = Object.assign(document.createElement("a"), { href: link.href, textContent: link.text, target: "_blank", rel: "noopener" });
    note.append(" ", anchor);
  }
  if (node.textContent !== note.textContent) node.replaceChildren(note); // it is tried again and again: what is said once is not read out again
}
