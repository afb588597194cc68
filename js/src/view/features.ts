/**
 * The place to add to a chat: each feature is made once per chat, with what it may use, and is called when something
 * happens. A new feature is one line in `features`.
 */

import type { SentCommand } from "../connection/outbox.js";
import type { ClientNotebook, Envelope } from "../protocol/generated.js";
import type { ChatState } from "../state/model.js";
import type { NaviChat } from "./chat-element.js";
import type { Composer, Written } from "./composer/composer.js";
import { writingFeature } from "./composer/feature.js";
import type { CodeActions } from "./conversation/code-actions.js";
import type { MessageActions } from "./conversation/message-actions.js";
import { NotebookFeature } from "./notebook/feature.js";
import type { HeaderButton } from "./header.js";
import { overviewFeature } from "./overview/feature.js";
import { recallsFeature } from "./recalls/feature.js";
import { sessionsFeature } from "./sessions/feature.js";
import { findFeature } from "./find/feature.js";
import type { Places } from "./places.js";
import type { RequestContext } from "./recalls/requests.js";
import type { Command, SessionController } from "./session-controller.js";
import type { Overlays } from "./overlays.js";

/** What a feature may use of its chat. */
export interface ChatContext extends RequestContext {
  readonly element: NaviChat;
  readonly composer: Composer;
  readonly overlays: Overlays;
  readonly headerButtons: HeaderButton[];
  readonly messageActions: MessageActions;
  readonly codeActions: CodeActions;
  readonly controller: SessionController;
  state(): ChatState;
  /** Whether the user looks at this view now. */
  isSeen(): boolean;
  /** Sends a command of any kind; undefined where there is no session. Prompts go by `prompt`. */
  command(command: Command): SentCommand | undefined;
  /** Sends a prompt, with what goes along with each. */
  prompt(written: Written): SentCommand | undefined;
  /** The way to messages, runs and questions, from wherever the user is. */
  readonly places: Places;
}

export interface ChatFeature {
  /** What of the page goes along with a prompt that is being sent. */
  notebook?(): ClientNotebook | null;
  /** Another session is shown: nothing of the old one stays. */
  reset?(): void;
  /** The chat is in a document; it has left it; it has been out for so long that it will not come back. */
  connected?(): void;
  disconnected?(): void;
  gone?(): void;
  /** New envelopes are in the state; `before` is the state without them. */
  received?(before: ChatState, envelopes: readonly Envelope[], isPrelude: boolean): void;
  /** What is drawn above the conversation, and between it and the composer. */
  card?(state: ChatState): unknown;
  aboveComposer?(state: ChatState): unknown;
}

export const features: readonly ((chat: ChatContext) => ChatFeature)[] = [overviewFeature, recallsFeature, writingFeature, (chat) => new NotebookFeature(chat), sessionsFeature, findFeature];
