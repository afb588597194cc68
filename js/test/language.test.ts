import { afterEach, describe, expect, it, vi } from "vitest";
import type { Schedule } from "../src/protocol/generated.js";
import { texts, useLabLanguage } from "../src/lab/texts.js";
import { language, pageLanguage, useLanguage } from "../src/view/lib/language.js";
import { languageOf, type Language } from "../src/view/lib/languages.js";
import { costText, countText, durationText, sizeText } from "../src/view/lib/numbers.js";
import { english, strings, type Strings } from "../src/view/lib/strings.js";
import { catalogue as german } from "../src/view/lib/strings-de.js";
import { catalogue as chinese } from "../src/view/lib/strings-zh.js";
import { scheduleWords } from "../src/view/lib/schedule-words.js";
import { clockTime, countdown, fullTime, span } from "../src/view/lib/time.js";

afterEach(async () => {
  document.documentElement.lang = "";
  document.getElementById("jupyter-config-data")?.remove();
  vi.restoreAllMocks();
  useLabLanguage("en");
  await useLanguage("en");
});

function browser(...tags: string[]): void {
  vi.spyOn(navigator, "languages", "get").mockReturnValue(tags);
}

function pageOfServer(lang: string): void {
  document.documentElement.lang = lang;
  const config = document.createElement("script");
  config.id = "jupyter-config-data";
  config.type = "application/json";
  config.textContent = JSON.stringify({ baseUrl: "/" });
  document.head.append(config);
}

describe("the language of a page", () => {
  it("is the one of ours that a tag means, whatever its script and region", () => {
    const known: [string, Language | null][] = [["de-AT", "de"], ["de_DE", "de"], ["zh-CN", "zh-CN"], ["zh-TW", "zh-CN"], ["zh-Hant-HK", "zh-CN"], ["en-GB", "en"], ["fr", null], ["den", null], ["", null]];
    for (const [tag, expected] of known) expect([tag, languageOf(tag)]).toEqual([tag, expected]);
  });

  it("is what a page of a Jupyter server names, English too", () => {
    browser("de-DE");
    pageOfServer("en");
    expect(pageLanguage()).toBe("en");
    document.documentElement.lang = "zh-CN";
    expect(pageLanguage()).toBe("zh-CN");
    document.documentElement.lang = "fr-FR"; // JupyterLab in a language that there are no texts for
    expect(pageLanguage()).toBe("en");
  });

  it("is elsewhere what the page names, but for English, which pages have that name none; then the browser's", () => {
    browser("fr-FR", "de-AT", "en");
    expect(pageLanguage()).toBe("de");
    document.documentElement.lang = "en";
    expect(pageLanguage()).toBe("de");
    document.documentElement.lang = "zh-Hans";
    expect(pageLanguage()).toBe("zh-CN");
    document.documentElement.lang = "";
    browser("fr-FR");
    expect(pageLanguage()).toBe("en");
  });
});

describe("a catalogue", () => {
  /** Its texts by their place; functions are called with what fits most of them. */
  function flat(catalogue: unknown, place = ""): [string, string][] {
    if (typeof catalogue === "string") return [[place, catalogue]];
    if (typeof catalogue === "function") return [0, 1, 2].map((count) => [`${place}(${count})`, String((catalogue as (...all: unknown[]) => unknown)(...(place.endsWith(".labWaiting") ? [["a"]] : place.endsWith("askBy") || place.endsWith("fromKernel") ? ["kernel:0123456789"] : [count, count, count, count])))]);
    return Object.entries(catalogue as object).flatMap(([key, value]) => flat(value, `${place}.${key}`));
  }

  const places = (catalogue: unknown): string[] => flat(catalogue).map(([place]) => place).sort();

  // Names, formats and signs that are the same in every language, and words that German has, too.
  const SAME = /^\.(name|commands\.\w+\.form|sessionFormats\.\w+|recallUnderstanding|suggestionsOffline\.\d|cron|commandRecallMade|announced|seconds|minutes|recallDelivery\.none|ends\.\w+\.todo|reached\.(mcp|kernel)|setupProvider|ahead|toolCode|codeBlock\(|subagent|panelNotebook|mentionKinds\.variable|memoryEdit|toolArguments|callParts\.(Kernel|Notebook)$|jobPath|jobKernel$|jobCell\(|planTitle$|agentSection\()/;

  it.each([["German", german], ["Chinese", chinese]] as [string, Strings][])("in %s has exactly the texts that there are in English, and none in English", (_, catalogue) => {
    expect(places(catalogue)).toEqual(places(english));
    const own = new Map(flat(catalogue));
    const left = flat(english).filter(([place, text]) => own.get(place) === text && /[a-z]{2}/i.test(text) && !SAME.test(place));
    expect(left).toEqual([]);
  });

  it("of the extension has the same texts in each language", () => {
    const all = ["en", "de", "zh-CN"].map((tag) => {
      useLabLanguage(tag);
      return texts;
    });
    expect(places(all[1])).toEqual(places(all[0]));
    expect(places(all[2])).toEqual(places(all[0]));
    expect(all[1]?.labOpen).toBe("Chat öffnen");
    useLabLanguage("fr");
    expect(texts.labOpen).toBe("Open Chat");
  });
});

describe("texts, dates and numbers", () => {
  it("are of one language", async () => {
    browser("en-US", "de-AT");
    const at = new Date(2026, 11, 1, 15, 4);
    expect([fullTime(at), clockTime(at), span(93_600_000), countdown(7_500_000), sizeText(3_400_000), durationText(400), countText(1234), costText(usage(0.5))]).toEqual([
      "Tuesday, December 1, 2026 at 3:04:00 PM", "03:04 PM", "1d 2h", "2h 05m", "3.4 MB", "0.4 s", "1,234", "$0.50",
    ]);
    await useLanguage("de");
    expect(language()).toBe("de");
    expect(strings.send).toBe("Senden");
    expect([fullTime(at), clockTime(at), span(93_600_000), sizeText(3_400_000), durationText(400), countText(1234), costText(usage(0.5))].map((text) => text?.replace(/\s/g, " "))).toEqual([
      "Dienstag, 1. Dezember 2026 um 15:04:00", "15:04", "1 Tg. 2 Std.", "3,4 MB", "0,4 s", "1 234", "$ 0,50", // as in Austria
    ]);
    await useLanguage("zh-CN");
    expect([strings.send, clockTime(at), span(93_600_000)]).toEqual(["发送", "15:04", "1天 2小时"]);
  });
});

describe("a schedule", () => {
  const cron = (expr: string): Schedule => ({ kind: "cron", expr, tz: Intl.DateTimeFormat().resolvedOptions().timeZone });
  const every = (length: string, tz: string | null = null): Schedule => ({ kind: "every", every: length, start: "2026-12-04T16:00:00Z", tz });

  it("is said in the server's words in English", () => {
    expect(scheduleWords(cron("0 9 * * 1-5"), "weekdays at 09:00")).toBe("weekdays at 09:00");
    expect(scheduleWords(cron("0 9 * * 1-5"))).toBe("weekdays at 09:00");
  });

  it.each([
    ["de", ["montags bis freitags um 09:00", "jeden Tag um 17:30 und 09:30", "jeden Freitag um 16:30", "jeden Montag und Sonntag um 08:05", "alle 15 Min.", "am 1. jedes Monats um 09:00", "cron `0 9 * 3 *`", "alle 1 Std. 30 Min.", "alle 14 Tage um 16:00 UTC", "jeden Freitag um 16:00 UTC"]],
    ["zh-CN", ["每个工作日 09:00", "每天 17:30和09:30", "每星期五 16:30", "每星期一和星期日 08:05", "每 15分钟", "每月 1 日 09:00", "cron `0 9 * 3 *`", "每 1小时 30分钟", "每 14 天 16:00 UTC", "每星期五 16:00 UTC"]],
  ] as [Language, string[]][])("is said in the reader's words in %s, and as it is written where there are none", async (wanted, expected) => {
    await useLanguage(wanted);
    vi.spyOn(Intl.DateTimeFormat.prototype, "resolvedOptions").mockReturnValue({ timeZone: "Asia/Tokyo" } as Intl.ResolvedDateTimeFormatOptions);
    const all = [cron("0 9 * * 1-5"), cron("30 17,9 * * *"), cron("30 16 * * 5"), cron("5 8 * * mon,0"), cron("*/15 * * * *"), cron("0 9 1 * *"), cron("0 9 * 3 *"), every("1h30m"), every("14d", "UTC"), every("1w", "UTC")];
    expect(all.map((each) => scheduleWords(each, "in English"))).toEqual(expected);
  });
});

function usage(cost: number): Parameters<typeof costText>[0] {
  return { input_tokens: 1, output_tokens: 1, requests: 1, cost } as Parameters<typeof costText>[0];
}
