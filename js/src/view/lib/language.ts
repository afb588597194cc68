/** The language of the interface: which one a page has, its texts, and how it writes dates and numbers. */

import { readPageConfig } from "../../connection/page-config.js";
import { languageOf, type Language } from "./languages.js";
import { english, useCatalogue, type Strings } from "./strings.js";

/** Catalogues that are loaded when a page has their language; English is part of what loads first, and what is used without them. */
const CATALOGUES: Readonly<Record<Exclude<Language, "en">, () => Promise<{ readonly catalogue: Strings }>>> = {
  de: () => import("./strings-de.js"),
  "zh-CN": () => import("./strings-zh.js"),
};

let current: Language = "en";
/** Of a browser that reads `de-AT`, German dates are Austrian. */
let formats = regional(current);
const made = new Map<string, Intl.DateTimeFormat>();
const counted = new Map<string, Intl.NumberFormat>();

/** The language of the texts. */
export function language(): Language {
  return current;
}

/**
 * The language that the page has. Pages of a Jupyter server name theirs, that of JupyterLab after its settings. Elsewhere
 * `lang="en"` is what pages have that know nothing about it: there the browser decides.
 */
export function pageLanguage(): Language {
  const { lang } = document.documentElement;
  if (lang && (readPageConfig() !== null || languageOf(lang) !== "en")) return languageOf(lang) ?? "en";
  return navigator.languages.map(languageOf).find((known) => known !== null) ?? "en";
}

/** Takes the texts and formats of a language; where its catalogue cannot be loaded, the texts stay English. */
export async function useLanguage(wanted: Language): Promise<void> {
  try {
    useCatalogue(wanted === "en" ? english : (await CATALOGUES[wanted]()).catalogue);
    current = wanted;
  } catch {
    current = "en";
  }
  formats = regional(current);
  made.clear();
  counted.clear();
}

export function dateFormat(options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = JSON.stringify(options);
  let format = made.get(key);
  if (!format) made.set(key, (format = new Intl.DateTimeFormat(formats, options)));
  return format;
}

export function numberFormat(options: Intl.NumberFormatOptions = {}): Intl.NumberFormat {
  const key = JSON.stringify(options);
  let format = counted.get(key);
  if (!format) counted.set(key, (format = new Intl.NumberFormat(formats, options)));
  return format;
}

/** `Monday and Friday`. */
export function listText(parts: readonly string[]): string {
  return new Intl.ListFormat(formats, { type: "conjunction" }).format(parts);
}

function regional(wanted: Language): string {
  return navigator.languages.find((tag) => languageOf(tag) === wanted) ?? wanted;
}
