import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { keepHeight } from "../src/view/lib/kept-height.js";

let resized: (() => void)[] = [];

beforeEach(() => {
  localStorage.clear();
  resized = [];
  vi.stubGlobal("ResizeObserver", class {
    constructor(callback: () => void) {
      resized.push(callback);
    }
    observe(): void {}
  });
});
afterEach(() => vi.unstubAllGlobals());

function chat(session: string | null): HTMLElement & { session: string | null } {
  const made = Object.assign(document.createElement("div"), { session });
  keepHeight(made);
  return made;
}

function drag(element: HTMLElement, height: string): void {
  element.style.height = height;
  for (const report of resized) report();
}

it("the height that a user gave a chat is that of its session's next view", () => {
  const first = chat("s_1");
  expect(first.style.height).toBe("");
  drag(first, "611.6px");
  expect(chat("s_1").style.height).toBe("612px");
  expect(chat("s_2").style.height).toBe("");
});

it("the last hundred sessions are remembered, and what is no height is not", () => {
  for (let number = 0; number < 120; number += 1) drag(chat(`s_${number}`), `${300 + number}px`);
  expect(chat("s_119").style.height).toBe("419px");
  expect(chat("s_3").style.height).toBe("");
  drag(chat("s_119"), "50%");
  expect(chat("s_119").style.height).toBe("419px");
  localStorage.setItem("navi:heights", "{");
  expect(chat("s_119").style.height).toBe("");
});
