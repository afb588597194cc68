/** Tables of Markdown and of outputs: columns of numbers stand at the right. Cells do the same (`listing.py`). */

const NUMBER =
  /^[+\-−±~≈<>≤≥]?\s?[$€£¥]?\s?[+\-−]?(?:\d[\d,.'’_\u00a0\u202f ]*|\.\d+)(?:[eE][+\-−]?\d+)?(?:\s?±\s?[\d.,]+)?\s?(?:[%‰]|[A-Za-zµ°]{1,3}(?:\/[A-Za-z]{1,3})?)?$/;
const NO_NUMBER = new Set(["", "-", "–", "—", "?", "n/a", "na", "nan", "none", "null"]);
/** Rows of a larger table are not read: it takes long, and a browser lays it out for longer. */
const MOST_ROWS = 2_000;

/** Whether the cells of a column are all numbers, or empty, and not all of them are empty. */
export function isNumeric(texts: readonly string[]): boolean {
  const numbers = texts.map((text) => text.trim().split(/\s+/).join(" ")).filter((text) => !NO_NUMBER.has(text.toLowerCase()));
  return numbers.length > 0 && numbers.every((text) => text.length <= 40 && NUMBER.test(text));
}

/** Marks the cells of columns of numbers that are not aligned otherwise. */
export function alignNumbers(table: HTMLTableElement): void {
  const rows = [...table.rows];
  // A cell over several columns has no column of its own.
  if (rows.length > MOST_ROWS || table.querySelector("[colspan], [rowspan]")) return;
  const body = rows.filter((row) => row.parentElement?.tagName !== "THEAD");
  const width = Math.max(0, ...rows.map(({ cells }) => cells.length));
  for (let column = 0; column < width; column += 1) {
    const cells = rows.map(({ cells: all }) => all[column]).filter((cell) => cell !== undefined);
    if (cells.some((cell) => cell.hasAttribute("align"))) continue;
    if (isNumeric(body.map(({ cells: all }) => all[column]?.textContent ?? ""))) for (const cell of cells) cell.classList.add("navi-number");
  }
}
