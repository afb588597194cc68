/**
 * Commands that were sent, or could not be, and whose acceptance was not received. They are kept over reconnects and,
 * as far as the browser allows, over reloads; a command that arrives twice changes nothing, so sending again is safe.
 */

import { isObject } from "../protocol/frames.js";
import type { Command } from "../protocol/generated.js";
import { readStored, writeStored } from "./storage.js";

export type SentCommand = Command & { readonly command_id: string };

export class Outbox {
  readonly #key: string;
  #commands: readonly SentCommand[];

  constructor(session: string) {
    this.#key = `outbox:${session}`;
    this.#commands = this.#read();
  }

  get commands(): readonly SentCommand[] {
    return this.#commands;
  }

  add(command: SentCommand): void {
    this.#commands = [...this.#commands, command];
    // Another view of this session in this tab stores its own beside ours.
    this.#write([...this.#read(), command]);
  }

  /** The command with this id, taken out; undefined when it was not there. */
  take(commandId: string): SentCommand | undefined {
    const taken = this.#commands.find((command) => command.command_id === commandId);
    if (!taken) return undefined;
    this.#commands = this.#commands.filter((command) => command !== taken);
    this.#write(this.#read().filter((command) => command.command_id !== commandId));
    return taken;
  }

  #read(): readonly SentCommand[] {
    try {
      const stored: unknown = JSON.parse(readStored(this.#key) ?? "[]");
      return Array.isArray(stored) ? stored.filter(isCommand) : [];
    } catch {
      return [];
    }
  }

  #write(commands: readonly SentCommand[]): void {
    writeStored(this.#key, commands.length ? JSON.stringify(commands) : null);
  }
}

function isCommand(value: unknown): value is SentCommand {
  return isObject(value) && typeof value["type"] === "string" && typeof value["command_id"] === "string";
}
