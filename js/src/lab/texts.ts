/**
 * The texts of the extension, in the language that JupyterLab or Notebook has. The extension is one file, so all languages
 * are in it; the chat's own are `view/lib/language`.
 */

import { languageOf, type Language } from "../view/lib/languages.js";
import { notebookTexts } from "../view/notebook/strings.js";
import { notebookTexts as notebookDe } from "../view/notebook/strings-de.js";
import { notebookTexts as notebookZh } from "../view/notebook/strings-zh.js";
import { toastTexts } from "../view/overview/strings.js";
import { toastTexts as toastsDe } from "../view/overview/strings-de.js";
import { toastTexts as toastsZh } from "../view/overview/strings-zh.js";
import type { Plugin } from "./jupyterlab.js";
import { labRecallTexts } from "./recall-strings.js";
import { sharedIfAny } from "./shared-packages.js";
import { labTexts } from "./strings.js";
import { labRecallTexts as recallsDe, labTexts as labDe } from "./strings-de.js";
import { labRecallTexts as recallsZh, labTexts as labZh } from "./strings-zh.js";

const english = { ...labTexts, ...labRecallTexts, ...notebookTexts, ...toastTexts };

type Texts = typeof english;

const CATALOGUES: Readonly<Record<Language, Texts>> = {
  en: english,
  de: { ...labDe, ...recallsDe, ...notebookDe, ...toastsDe },
  "zh-CN": { ...labZh, ...recallsZh, ...notebookZh, ...toastsZh },
};

export let texts: Texts = english;

/** Takes the texts of the language that a tag names. */
export function useLabLanguage(tag: string): void {
  texts = CATALOGUES[languageOf(tag) ?? "en"];
}

/** What a plug-in asks for, as the last of its optional services, so that its texts are in the page's language from the start. */
export const LANGUAGE = { name: "navi-jupyter:ILanguage" };

interface Translator {
  readonly languageCode?: string;
}

export async function createLanguagePlugin(): Promise<Plugin> {
  const token = (await sharedIfAny<{ readonly ITranslator: object }>("@jupyterlab/translation"))?.ITranslator;
  return {
    id: "navi-jupyter:language",
    description: "The language of JupyterLab, for what Navi shows.",
    autoStart: true,
    requires: [],
    optional: token ? [token] : [],
    provides: LANGUAGE,
    activate: (_, translator) => {
      const code = (translator as Translator | null | undefined)?.languageCode;
      if (code) document.documentElement.lang = code.replace("_", "-"); // versions before 4.2 do not say it to the page, where chats look
      useLabLanguage(document.documentElement.lang);
      return {};
    },
  };
}
