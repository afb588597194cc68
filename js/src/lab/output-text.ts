/** What outputs say, as text: shortened, without the codes of a terminal. */

import { isObject } from "../protocol/frames.js";
import type { ShownError } from "../protocol/generated.js";
import type { CellModel, Output } from "./notebook-types.js";

/** Characters of a cell's outputs, and of a traceback. */
const OUTPUT = 2_000;
const TRACEBACK = 8_000;
/** Characters of an error's name, of its message, and of both in a line. */
const NAME = 200;
const MESSAGE = 2_000;
const LINE = 500;

// eslint-disable-next-line no-control-regex
const CODES = /\u001b\[[0-9;:?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b./g;

export function plain(text: string): string {
  return text.replace(CODES, "").replace(/\r\n/g, "\n").replace(/^.*\r(?!\n)/gm, "");
}

/** nbformat has texts whole, or as a list of their lines. */
function joined(value: unknown): string {
  return Array.isArray(value) ? value.join("") : typeof value === "string" ? value : "";
}

/** At most `most` characters: of what is longer, a third is the beginning and the rest is the end. */
export function shortened(text: string, most: number): string {
  if (text.length <= most) return text;
  const head = Math.floor(most / 3);
  return `${text.slice(0, head)}\n[…]\n${text.slice(text.length - (most - head))}`;
}

function outputText(output: Output): string {
  switch (output["output_type"]) {
    case "stream":
      return joined(output["text"]);
    case "error":
      return `${joined(output["ename"])}: ${joined(output["evalue"])}\n`;
    default: {
      const data = isObject(output["data"]) ? output["data"] : {};
      const text = joined(data["text/markdown"] ?? data["text/plain"]);
      const image = Object.keys(data).find((kind) => kind.startsWith("image/"));
      return `${image && !text ? `[${image}]` : text}\n`;
    }
  }
}

function outputsOf({ outputs }: CellModel): readonly Output[] {
  return outputs ? Array.from({ length: outputs.length }, (_, index) => outputs.get(index).toJSON()) : [];
}

/** Null: the cell has no outputs, or none that has text. */
export function outputsText(cell: CellModel): string | null {
  const text = plain(outputsOf(cell).map(outputText).join("")).trim();
  return text ? shortened(text, OUTPUT) : null;
}

/** Whether a cell shows an error. Does not copy what it shows. */
export function hasError({ outputs }: CellModel): boolean {
  if (!outputs) return false;
  for (let index = 0; index < outputs.length; index += 1) if (outputs.get(index).type === "error") return true;
  return false;
}

/** The last error that a cell shows; null: it shows none. */
export function errorOf(cell: CellModel): ShownError | null {
  const error = hasError(cell) ? outputsOf(cell).findLast((output) => output["output_type"] === "error") : undefined;
  if (!error) return null;
  const trace = error["traceback"];
  const lines = Array.isArray(trace) ? trace.join("\n") : joined(trace);
  return {
    cell: cell.id,
    ename: joined(error["ename"]).slice(0, NAME),
    evalue: plain(joined(error["evalue"])).slice(0, MESSAGE),
    traceback: shortened(plain(lines).trim(), TRACEBACK),
  };
}

/** "NameError: name 'x' is not defined". */
export function errorLine({ ename, evalue }: ShownError): string {
  return `${ename}: ${evalue}`.split("\n", 1)[0]?.slice(0, LINE) ?? "";
}
