/** Writing as a part of a chat: suggestions and commands of the composer, and what can be done with messages. */

import type { ChatContext, ChatFeature } from "../features.js";
import { enterSession } from "../overview/going.js";
import { PROPOSE_RECALL } from "../overview/places.js";
import type { RecallDraft } from "../overview/remind.js";
import { icons } from "../lib/icons.js";
import { writeFormatted } from "../lib/copy.js";
import { strings } from "../lib/strings.js";
import { presentAgent } from "../../state/agents.js";
import type { ChatState, Message } from "../../state/model.js";
import { answerOf, endsOfAnswers, lastRun, promptOf, prompts } from "./answers.js";
import type { CommandContext, Commands } from "./commands.js";
import { OWN_COMMANDS } from "./triggers.js";

/** How long a button says that it has copied. Milliseconds. */
const SAID = 1_500;

export function writingFeature(chat: ChatContext): ChatFeature {
  const { composer, element, messageActions } = chat;
  const context = {
    ...chat,
    report: chat.problem,
    propose: (draft) => element.dispatchEvent(new CustomEvent<RecallDraft>(PROPOSE_RECALL, { detail: draft })),
    notebookPath: () => element.host?.path ?? null,
    agentCommands: () => presentAgent(chat.state())?.commands ?? [],
    title: () => chat.state().session?.title ?? "",
    enter: (session) => void enterSession(chat, { session, runId: null }),
  } satisfies CommandContext;
  let made: Promise<Commands> | null = null;
  /** Loaded at the first `/`; where that fails, the next one tries again. */
  const commands = (): Promise<Commands> =>
    (made ??= import("./parts.js").then(
      (parts) => new parts.Commands(context),
      (problem: unknown) => {
        made = null;
        throw problem;
      },
    ));
  composer.use({
    suggestions: async ({ kind, query, command }) => {
      if (kind === "mention") return (await import("./parts.js")).mentionSuggestions(chat, element.host, query);
      return kind === "command" ? (await commands()).suggestions(query) : (await commands()).choices(command, query);
    },
    isCommand: ({ name }) => (OWN_COMMANDS as readonly string[]).includes(name),
    run: async (line) => {
      const known = await commands().catch(() => null);
      if (known === null) chat.problem(strings.failed(strings.noServer));
      return known?.run(line) ?? false; // where it was not possible, the line is there again
    },
    prompts: () => prompts(chat.state()),
    isReplaceable: (runId) => isReplaceable(chat.state(), runId),
  });
  const again = (runId: string): void => {
    const prompt = promptOf(chat.state(), runId);
    if (prompt) chat.prompt({ text: prompt.text, mode: null, images: [], files: [], replaces: runId, again: true });
  };
  messageActions.add({
    name: "edit-message",
    icon: icons.edit,
    label: () => strings.editMessage,
    applies: ({ role, origin }) => role === "user" && origin.kind === "user",
    run: ({ runId, text, attachments }) => composer.edit({ runId, text, attachments }),
  });
  messageActions.add({
    name: "copy-answer",
    icon: icons.copy,
    isHarmless: true,
    label: () => strings.copyAnswer,
    applies: (message, state) => isEndOfAnswer(state, message),
    run: (message, button) => void copy(answerOf(chat.state(), message), drawnAnswer(element, message), button),
  });
  messageActions.add({
    name: "regenerate",
    icon: icons.again,
    label: () => strings.regenerate,
    applies: (message, state) => isEndOfAnswer(state, message) && message.runId !== null && canRepeat(state, message.runId),
    run: ({ runId }) => runId !== null && again(runId),
  });
  messageActions.retry = { applies: (runId, state) => canRepeat(state, runId), run: again };
  return { reset: () => void made?.then((known) => known.reset(), () => undefined) };
}

/** Whether a run is the last one, and over. */
function isReplaceable(state: ChatState, runId: string): boolean {
  return state.run === null && lastRun(state) === runId;
}

/** Whether the same prompt can be sent once more: a recall's is sent by its recall. */
function canRepeat(state: ChatState, runId: string): boolean {
  return isReplaceable(state, runId) && promptOf(state, runId)?.origin.kind === "user";
}

function isEndOfAnswer(state: ChatState, message: Message): boolean {
  if (message.role !== "assistant" || message.text === "") return false;
  if (message.runId === state.run?.id && message.runId !== null) return false;
  return endsOfAnswers(state).has(message);
}

/** The whole answer of a message's run as it is drawn, without what can be pressed in it. */
function drawnAnswer(chat: HTMLElement, { id, runId }: Message): string {
  const messages = [...chat.querySelectorAll<HTMLElement>("[data-navi=log] > [data-navi=message][data-role=assistant]")];
  const parts = messages.filter(({ dataset }) => (runId === null ? dataset["messageId"] === id : dataset["runId"] === runId));
  return parts
    .map((part) => {
      const drawn = part.querySelector(".navi-markdown")?.cloneNode(true) as HTMLElement | null;
      for (const control of drawn?.querySelectorAll("button, .navi-hidden") ?? []) control.remove();
      return (drawn?.innerHTML ?? "").replace(/<!--[^]*?-->/g, ""); // of the library that draws
    })
    .join("\n");
}

async function copy(text: string, page: string, button: HTMLElement): Promise<void> {
  await writeFormatted(text, page);
  const label = button.getAttribute("aria-label") ?? "";
  const say = (words: string): void => {
    button.title = words;
    button.setAttribute("aria-label", words);
  };
  say(strings.copiedAnswer);
  button.classList.add("navi-done");
  setTimeout(() => {
    say(label);
    button.classList.remove("navi-done");
  }, SAID);
}
