/** One session in the list: its line, and below it what can be done with it. */

import { html, nothing, type TemplateResult } from "lit";
import { live } from "lit/directives/live.js";
import type { SearchHit, SessionInfo } from "../../protocol/generated.js";
import { icons } from "../lib/icons.js";
import { strings, textOf } from "../lib/strings.js";
import { clockTime, fullTime, shortTime } from "../lib/time.js";
import { FORMATS, type Format } from "./requests.js";
import css from "../../style/sessions.css";
import { addStyle } from "../../style/install.js";

addStyle(css);

/** What is open below a row. */
export type Below = "actions" | "rename" | "share";

export interface RowActions {
  open(session: SessionInfo): void;
  toggle(session: SessionInfo, below: Below | null): void;
  rename(session: SessionInfo, title: string): void;
  archive(session: SessionInfo): void;
  unarchive(session: SessionInfo): void;
  fork(session: SessionInfo): void;
  remove(session: SessionInfo): void;
  restore(session: SessionInfo): void;
  save(session: SessionInfo, format: Format): void;
}

export interface RowView {
  readonly isCurrent: boolean;
  /** Whether the key Tab leads to it: to one row of the list. */
  readonly isTabStop: boolean;
  /** Whether it stands below its day. */
  readonly isByDay: boolean;
  readonly below: Below | null;
  readonly share: TemplateResult | typeof nothing;
  readonly canExport: boolean;
}

export function sessionRow(session: SessionInfo, view: RowView, actions: RowActions): TemplateResult {
  const { id, title, unread, activity, access, deleted_at: deleted } = session;
  const at = new Date(session.updated_at);
  const marks = [
    view.isCurrent ? strings.sessionCurrent : "",
    textOf(strings.sessionActivity, activity) ?? "",
    unread ? strings.sessionUnread(unread) : "",
  ].filter(Boolean);
  return html`<li data-navi="session-row" data-session-id=${id} data-activity=${activity} data-unread=${unread} ?data-current=${view.isCurrent}>
    <div class="navi-session-line">
      <button
        type="button"
        class="navi-session-open"
        data-navi="session-open"
        tabindex=${view.isTabStop ? 0 : -1}
        aria-current=${view.isCurrent ? "true" : nothing}
        ?disabled=${deleted !== null}
        @click=${() => actions.open(session)}
      >
        <span class="navi-session-title" dir="auto" lang="">${title}</span>
        <span class="navi-session-marks">
          ${activity === "idle" ? nothing : html`<span class="navi-session-dot" data-activity=${activity} title=${textOf(strings.sessionActivity, activity) ?? ""}></span>`}
          ${unread ? html`<span class="navi-session-unread" title=${strings.sessionUnread(unread)}>${unread}</span>` : nothing}
        </span>
        <span class="navi-session-about">
          <time datetime=${session.updated_at} title=${fullTime(at)}>${view.isByDay ? clockTime(at) : shortTime(at)}</time>
          ${session.notebook_path ? html`<span class="navi-session-notebook" dir="auto" title=${session.notebook_path}>${icons.file} ${fileName(session.notebook_path)}</span>` : nothing}
          ${access === "reader" ? html`<span>${strings.sessionOf(session.owner)}</span>` : nothing}
          ${session.hit ? html`<span>${strings.sessionHits(session.hits)}</span>` : nothing}
        </span>
        ${session.hit ? snippet(session.hit) : nothing}
        ${marks.length ? html`<span class="navi-hidden">${marks.join(", ")}</span>` : nothing}
      </button>
      <button
        type="button"
        class="navi-icon-button"
        data-navi="session-actions"
        tabindex=${view.isTabStop ? 0 : -1}
        aria-expanded=${view.below !== null}
        aria-label=${strings.sessionActions(title)}
        title=${strings.sessionActions(title)}
        @click=${() => actions.toggle(session, view.below === null ? "actions" : null)}
      >
        ${icons.more}
      </button>
    </div>
    ${below(session, view, actions)}
  </li>`;
}

function below(session: SessionInfo, view: RowView, actions: RowActions): TemplateResult | typeof nothing {
  switch (view.below) {
    case null:
      return nothing;
    case "rename":
      return renameForm(session, actions);
    case "share":
      return html`${view.share}`;
    case "actions":
      return html`<div class="navi-session-below" role="group" aria-label=${strings.sessionActions(session.title)}>${buttons(session, view, actions)}</div>`;
    default:
      view.below satisfies never;
      return nothing;
  }
}

function buttons(session: SessionInfo, view: RowView, actions: RowActions): TemplateResult {
  const button = (name: string, text: string, act: () => void, label = text): TemplateResult =>
    html`<button type="button" class="navi-button" data-navi=${name} aria-label=${label} @click=${act}>${text}</button>`;
  if (session.deleted_at !== null) return button("session-restore", strings.sessionRestore, () => actions.restore(session));
  const own = session.access === "owner";
  return html`
    ${own ? button("session-rename", strings.sessionRename, () => actions.toggle(session, "rename")) : nothing}
    ${own && session.archived_at === null ? button("session-archive", strings.sessionArchive, () => actions.archive(session)) : nothing}
    ${own && session.archived_at !== null ? button("session-unarchive", strings.sessionUnarchive, () => actions.unarchive(session)) : nothing}
    ${own ? button("session-fork", strings.sessionFork, () => actions.fork(session)) : nothing}
    ${own ? button("session-share", strings.sessionShare, () => actions.toggle(session, "share")) : nothing}
    ${own ? button("session-delete", strings.sessionDelete, () => actions.remove(session)) : nothing}
    ${view.canExport
      ? html`<span class="navi-session-formats" role="group" aria-label=${strings.sessionExport}>
          <span aria-hidden="true">${strings.sessionExport}</span>
          ${FORMATS.map((format) => {
            const name = textOf(strings.sessionFormats, format) ?? format;
            return html`<button type="button" class="navi-link" data-navi="session-export" data-format=${format} aria-label=${strings.sessionExportAs(name)} @click=${() => actions.save(session, format)}>${name}</button>`;
          })}
        </span>`
      : nothing}
  `;
}

function renameForm(session: SessionInfo, actions: RowActions): TemplateResult {
  const submit = (event: Event): void => {
    event.preventDefault();
    const title = (event.currentTarget as HTMLFormElement).querySelector("input")?.value.trim() ?? "";
    if (title && title !== session.title) actions.rename(session, title);
    else actions.toggle(session, null);
  };
  const label = strings.sessionRenameLabel(session.title);
  return html`<form class="navi-session-below" @submit=${submit}>
    <input type="text" data-navi="session-title-input" maxlength="200" autocomplete="off" dir="auto" aria-label=${label} .value=${live(session.title)} />
    <button type="submit" class="navi-button">${strings.sessionSave}</button>
    <button type="button" class="navi-button" @click=${() => actions.toggle(session, null)}>${strings.sessionCancel}</button>
  </form>`;
}

/** Each piece is text: what was found is marked by an element of ours. */
function snippet({ snippet: parts }: SearchHit): TemplateResult {
  return html`<span class="navi-session-snippet" data-navi="session-snippet" dir="auto" lang="">${parts.map(({ text, match }) => (match ? html`<mark>${text}</mark>` : text))}</span>`;
}

function fileName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
