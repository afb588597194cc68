/** The parameters of a notebook as they are written in a form: JSON, Python's constants, else text. */

import type { NotebookJob } from "../../protocol/generated.js";

type Parameters = NotebookJob["parameters"];
type Value = Parameters[string];

const WORDS: Readonly<Record<string, boolean | null>> = { True: true, False: false, None: null };

/** What a value is written as: text without quotes, unless it would be read as something else. */
export function written(value: Value): string {
  return typeof value === "string" && readValue(value) === value ? value : JSON.stringify(value);
}

/** Undefined: it begins as a list or an object, and is none of JSON. */
export function readValue(text: string): Value | undefined {
  const bare = text.trim();
  try {
    return JSON.parse(bare) as Value;
  } catch {
    if (Object.hasOwn(WORDS, bare)) return WORDS[bare] as Value;
    if (/^[[{]/.test(bare)) return undefined;
    return /^'(.*)'$/s.exec(bare)?.[1] ?? text;
  }
}

/** A line each. */
export function writtenLines(parameters: Parameters): string {
  return Object.entries(parameters)
    .map(([name, value]) => `${name} = ${written(value)}`)
    .join("\n");
}

/** The other way round; the line that is no parameter instead. */
export function readLines(text: string): Readonly<Record<string, string>> | string {
  const found: Record<string, string> = {};
  for (const line of text.split("\n").filter((each) => each.trim())) {
    const [, name, value] = /^\s*([\p{L}_][\p{L}\p{N}_]*)\s*=\s*(.*?)\s*$/u.exec(line) ?? [];
    if (name === undefined || value === undefined) return line.trim();
    found[name] = value;
  }
  return found;
}

/** Values by name from what is written; the name of the first that is not understood instead. What is empty is left out. */
export function readParameters(given: Readonly<Record<string, string>>): Parameters | string {
  const found: Record<string, Value> = {};
  for (const [name, text] of Object.entries(given).filter(([, each]) => each.trim())) {
    const value = readValue(text);
    if (value === undefined) return name;
    found[name] = value;
  }
  return found;
}
