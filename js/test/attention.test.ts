import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { attentionCount, attentionText, AttentionWatch, type Waiting } from "../src/lab/attention.js";

let answer: Waiting | null;
let asked: number;
let reported: Waiting[];
let watch: AttentionWatch;

beforeEach(() => {
  vi.useFakeTimers();
  answer = { unread: 0, questions: 0 };
  asked = 0;
  reported = [];
  watch = new AttentionWatch(
    () => {
      asked += 1;
      return answer ? Promise.resolve(answer) : Promise.reject(new Error("no server"));
    },
    (waiting) => reported.push(waiting),
  );
});
afterEach(() => {
  watch.stop();
  vi.useRealTimers();
  vi.restoreAllMocks();
});

it("what waits is read now and then, and reported when it is different", async () => {
  watch.start();
  await vi.advanceTimersByTimeAsync(1_000);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toBe(4);
  expect(reported).toEqual([{ unread: 0, questions: 0 }]);
  answer = { unread: 2, questions: 1 };
  await vi.advanceTimersByTimeAsync(20_000);
  expect(reported.at(-1)).toEqual({ unread: 2, questions: 1 });
});

it("a question in a chat of the page is reported at once", async () => {
  watch.start();
  await vi.advanceTimersByTimeAsync(1_000);
  answer = { unread: 0, questions: 1 };
  document.body.dispatchEvent(new CustomEvent("navi-asks", { bubbles: true, detail: { open: 1 } }));
  await vi.advanceTimersByTimeAsync(500);
  expect(reported.at(-1)).toEqual({ unread: 0, questions: 1 });
});

it("a hidden page asks for nothing, and does so when it is looked at again", async () => {
  const hidden = vi.spyOn(document, "hidden", "get").mockReturnValue(true);
  watch.start();
  await vi.advanceTimersByTimeAsync(120_000);
  expect(asked).toBe(0);
  hidden.mockReturnValue(false);
  document.dispatchEvent(new Event("visibilitychange"));
  await vi.advanceTimersByTimeAsync(500);
  expect(asked).toBe(1);
});

it("what was known stays while the server does not answer", async () => {
  answer = { unread: 3, questions: 0 };
  watch.start();
  await vi.advanceTimersByTimeAsync(1_000);
  answer = null;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(reported).toEqual([{ unread: 3, questions: 0 }]);
});

it("the icon says what waits", () => {
  expect(attentionText({ unread: 0, questions: 0 })).toBe("Navi");
  expect(attentionText({ unread: 1, questions: 2 })).toBe("Navi: 2 questions wait for you, 1 unread");
  expect(attentionCount({ unread: 0, questions: 0 })).toBe("");
  expect(attentionCount({ unread: 98, questions: 3 })).toBe("99+");
});
