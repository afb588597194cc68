/** The texts of the panel beside the notebook in German. */

import type { panelTexts as english } from "./strings.js";

export const panelTexts: typeof english = {
  panelBar: "Bereich",
  panelPin: "Bei dieser Sitzung bleiben, wenn ein anderes Notebook nach vorn kommt",
  panelPinned: "Bleibt bei dieser Sitzung. Wieder dem Notebook im Vordergrund folgen",
  panelNoNotebook: "Kein Notebook",
  panelNotebook: (path) => `Notebook: ${path}`,
  panelNew: "Neue Sitzung",
  panelPage: "Die Seite von Navi in einem neuen Tab öffnen",
  panelLoading: "Wird geladen …",
  notBegun: (reason) => (reason ? `Es wurde keine Sitzung angelegt: ${reason}` : "Es wurde keine Sitzung angelegt: der Server antwortet nicht."),
};
