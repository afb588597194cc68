/** The languages that the interface has. */

export type Language = "en" | "de" | "zh-CN";

/** The one that a tag like `de-AT` or `zh_Hant` means; null: none. A script or region that there are no texts for is read as its language. */
export function languageOf(tag: string): Language | null {
  const base = tag.toLowerCase().split(/[-_.]/)[0];
  return base === "en" || base === "de" ? base : base === "zh" ? "zh-CN" : null;
}
