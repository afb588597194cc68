import { afterEach, describe, expect, it } from "vitest";
import { fileUrl } from "../src/view/lib/files.js";
import { newsText, subject } from "../src/view/overview/news-text.js";
import { toastTexts } from "../src/view/overview/strings.js";
import { readLines, readParameters, readValue, written, writtenLines } from "../src/view/recalls/parameters.js";

describe("the parameters of a notebook", () => {
  it("are read as JSON, as Python's constants, else as text", () => {
    for (const [text, value] of [["7", 7], ["-1.5", -1.5], ["true", true], ["True", true], ["None", null], ["north", "north"], ['"7"', "7"], ["'7'", "7"], ["[1, 2]", [1, 2]], ['{"a": 1}', { a: 1 }], ["two words", "two words"]] as const)
      expect(readValue(text), text).toEqual(value);
  });

  it("that begin as a list or an object and are none are not understood", () => {
    expect(readValue("{'a': 1}")).toBeUndefined();
    expect(readParameters({ n: "1", wrong: "[1," })).toBe("wrong");
  });

  it("come back as they were written, and text that looks like something else in quotes", () => {
    for (const value of [7, "north", "7", "True", "", "'x'", " x", [1, "a"], { a: null }, false, null]) expect(readValue(written(value)), JSON.stringify(value)).toEqual(value);
    expect(written("north")).toBe("north");
    expect(written("7")).toBe('"7"');
  });

  it("are left out where their field is empty", () => {
    expect(readParameters({ days: "7", region: "  " })).toEqual({ days: 7 });
  });

  it("are lines where their names are not known", () => {
    expect(readLines("days = 7\n\n größe=x y\n")).toEqual({ days: "7", größe: "x y" });
    expect(readLines(writtenLines({ days: 7, region: "n = 1" }))).toEqual({ days: "7", region: "n = 1" });
    expect(readLines("days = 7\nwhat is this")).toBe("what is this");
  });
});

describe("a result of a notebook", () => {
  afterEach(() => document.querySelector("#jupyter-config-data")?.remove());
  const on = (config: object): void => {
    const script = document.createElement("script");
    script.id = "jupyter-config-data";
    script.type = "application/json";
    script.textContent = JSON.stringify(config);
    document.body.append(script);
  };
  const place = { path: "größe results/a #1.ipynb", cell: null };

  it("is opened where the page's application shows documents", () => {
    on({ baseUrl: "/user/me/", appName: "JupyterLab" });
    expect(new URL(fileUrl(place) ?? "").pathname).toBe("/user/me/lab/tree/gr%C3%B6%C3%9Fe%20results/a%20%231.ipynb");
  });

  it("is opened by Notebook from Notebook, and as the server says from its own page", () => {
    on({ baseUrl: "/", notebookPage: "notebooks" });
    expect(new URL(fileUrl({ path: "a.ipynb", cell: "c 1" }) ?? "").pathname).toBe("/notebooks/a.ipynb");
    document.querySelector("#jupyter-config-data")?.remove();
    on({ baseUrl: "/", appName: "Navi", documents: "nbconvert/html/" });
    expect(fileUrl({ path: "a.ipynb", cell: "c 1" })).toMatch(/\/nbconvert\/html\/a\.ipynb#cell-id=c%201$/);
  });

  it("is only named where the page is not a server's", () => {
    expect(fileUrl(place)).toBeNull();
  });
});

describe("a title of a recall in a notification", () => {
  it("ends without the colon of a line of code, and stays what it is otherwise", () => {
    expect(subject("for epoch in range(9):")).toBe("for epoch in range(9)");
    expect(subject("check the loss…")).toBe("check the loss…");
    expect(subject(":")).toBe(":");
    const news = { id: "1", kind: "done", title: "while True:", reason: null, session: "s", sessionTitle: "t", runId: null } as const;
    expect(newsText(news, toastTexts)).toBe("while True: done");
  });
});
