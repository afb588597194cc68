/** Copies the code beside a copy button. */

import { strings } from "./strings.js";

export async function copyCode(button: HTMLButtonElement): Promise<void> {
  const code = button.closest(".navi-code-frame")?.querySelector("code")?.textContent ?? "";
  await writeClipboard(code);
  button.textContent = strings.copied;
  setTimeout(() => (button.textContent = strings.copy), 1500);
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
