/** Copies the code beside a copy button. */

import { strings } from "./strings.js";

export async function copyCode(button: HTMLButtonElement): Promise<void> {
  const code = button.closest(".navi-code-frame")?.querySelector("code")?.textContent ?? "";
  await writeClipboard(code);
  button.textContent = strings.copied;
  setTimeout(() => (button.textContent = strings.copy), 1500);
}

/** Copies a text and what it looks like: an editor of formatted text takes the one, everything else the other. */
export async function writeFormatted(text: string, page: string): Promise<void> {
  try {
    const item = new ClipboardItem({ "text/plain": new Blob([text], { type: "text/plain" }), "text/html": new Blob([page], { type: "text/html" }) });
    await navigator.clipboard.write([item]);
  } catch {
    await writeClipboard(text); // no such clipboard
  }
}

export async function writeClipboard(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Plain HTTP has no clipboard API.
    const area = document.createElement("textarea");
    area.value = text;
    area.style.cssText = "position:fixed;opacity:0";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
