/** Text as it is, in pieces that a browser can lay out: what is far out of sight is not laid out at all. */

/** Characters of a piece, and of a text from which on it is cut into pieces. */
const PIECE = 10_000;
const LONG = 50_000;

/** Marks on one letter: fonts draw a few, and what a browser does for a run of them grows with its square. */
const MARKS = /(\p{M}{30})\p{M}+/gu;

/** `text` with no more marks on a letter than can be drawn. */
export function drawable(text: string): string {
  return text.replace(MARKS, "$1…");
}

/** Fills `element` with `text`. */
export function fillPlain(element: Element, text: string): void {
  const shown = drawable(text);
  if (shown.length <= LONG) {
    element.textContent = shown;
    return;
  }
  element.replaceChildren(...pieces(shown).map(asPiece));
}

function asPiece(text: string): HTMLElement {
  const piece = document.createElement("span");
  piece.className = "navi-piece";
  piece.textContent = text;
  return piece;
}

/** Ends of lines are the places to cut at; a line without an end is cut where it is too long. */
function pieces(text: string): string[] {
  const found: string[] = [];
  for (let start = 0; start < text.length; ) {
    const line = text.indexOf("\n", start + PIECE);
    const end = line >= 0 && line < start + 2 * PIECE ? line + 1 : start + PIECE;
    // Not between the two halves of a character.
    const isHalf = /[\ud800-\udbff]/.test(text.charAt(end - 1));
    found.push(text.slice(start, end + Number(isHalf)));
    start = end + Number(isHalf);
  }
  return found;
}
