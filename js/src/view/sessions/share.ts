/** With whom a session is shared: the users who can read it, and one more. */

import { html, nothing, type TemplateResult } from "lit";
import type { SessionInfo } from "../../protocol/generated.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import type { SessionRequests } from "./requests.js";

export class ShareForm {
  readonly #requests: SessionRequests;
  readonly #redraw: () => void;
  readonly #close: () => void;
  #session: SessionInfo | null = null;
  #readers: readonly string[] | null = null;

  constructor(requests: SessionRequests, redraw: () => void, close: () => void) {
    this.#requests = requests;
    this.#redraw = redraw;
    this.#close = close;
  }

  open(session: SessionInfo): void {
    this.#session = session;
    this.#readers = null;
    void this.#requests.readers(session.id).then((readers) => this.#set(session, readers));
  }

  render(): TemplateResult {
    const readers = this.#readers;
    return html`<form class="navi-session-below navi-session-readers" data-navi="session-readers" @submit=${this.#add}>
      <p>${readers?.length ? strings.sessionReaders : strings.sessionNoReaders}</p>
      ${readers?.length
        ? html`<ul>
            ${readers.map(
              (user) => html`<li>
                <span dir="auto">${user}</span>
                <button type="button" class="navi-icon-button" data-navi="session-unshare" aria-label=${strings.sessionUnshare(user)} title=${strings.sessionUnshare(user)} @click=${() => void this.#remove(user)}>${icons.close}</button>
              </li>`,
            )}
          </ul>`
        : nothing}
      <input type="text" data-navi="session-reader" maxlength="200" autocomplete="off" aria-label=${strings.sessionReader} placeholder=${strings.sessionReader} />
      <button type="submit" class="navi-button">${strings.sessionShareAdd}</button>
      <button type="button" class="navi-button" @click=${this.#close}>${strings.sessionClose}</button>
    </form>`;
  }

  readonly #add = (event: Event): void => {
    event.preventDefault();
    const input = (event.currentTarget as HTMLFormElement).querySelector("input");
    const user = input?.value.trim() ?? "";
    const session = this.#session;
    if (!user || !session) return;
    void this.#requests.share(session.id, user).then((readers) => {
      if (readers && input) input.value = "";
      this.#set(session, readers);
    });
  };

  async #remove(user: string): Promise<void> {
    const session = this.#session;
    if (session) this.#set(session, await this.#requests.unshare(session.id, user));
  }

  #set(session: SessionInfo, readers: readonly string[] | null): void {
    if (session !== this.#session || readers === null) return;
    this.#readers = readers;
    this.#redraw();
  }
}
