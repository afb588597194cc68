/** What a call would do, described as the server describes it: code, a change, and the other arguments. */

import { diffLines } from "diff";

const CODE = ["code", "source", "content"];

export function detailsOf(args) {
  const part = (label, text, more = {}) => ({ label, text, kind: "text", language: null, foreign: false, omitted: 0, ...more });
  const { search, replace, ...others } = args ?? {};
  const change = typeof search === "string" && typeof replace === "string" ? [part("Change of the cell", difference(search, replace), { kind: "diff" })] : [];
  const rest = Object.entries(others).map(([name, value]) => {
    if (CODE.includes(name) && typeof value === "string") return part(name, value, { kind: "code", language: name === "content" ? "markdown" : "python" });
    return part(name, typeof value === "string" ? value : JSON.stringify(value, null, 2));
  });
  return [...rest, ...change];
}

function difference(before, after) {
  const signed = diffLines(before, after).flatMap(({ value, added, removed }) => {
    const sign = added ? "+" : removed ? "-" : " ";
    return value.replace(/\n$/, "").split("\n").map((line) => `${sign}${line}`);
  });
  return signed.join("\n");
}
