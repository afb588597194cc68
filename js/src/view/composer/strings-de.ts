/** The texts of writing in German. */

import type { writingTexts as english } from "./strings.js";

export const writingTexts: typeof english = {
  placeholderReader: "Diese Sitzung kann nur gelesen werden",
  suggestionList: "Vorschläge",
  suggestionCount: (count) => (count === 1 ? "1 Vorschlag" : `${count} Vorschläge`),
  suggestionsNone: "Keine Vorschläge",
  suggestionsLoading: "Wird gesucht …",
  mentionKinds: {
    cell: "Zelle",
    error: "Fehler",
    variable: "Variable",
    file: "Datei",
    session: "Sitzung",
    recall: "Wiedervorlage",
  },
  commandKind: "Befehl",
  promptKind: "Eigener Prompt",
  argumentKind: "Auswahl",
  commands: {
    recall: { form: "/recall in 10m …", what: "Zu einer Zeit oder bei einem Ereignis wiederkommen" },
    model: { form: "/model NAME", what: "In diesem Gespräch ein anderes Modell benutzen" },
    profile: { form: "/profile NAME", what: "In diesem Gespräch ein anderes Profil benutzen" },
    new: { form: "/new", what: "Ein neues Gespräch beginnen" },
    export: { form: "/export md", what: "Das Gespräch als Datei speichern: md, ipynb oder json" },
  },
  commandNeeds: (form) => `Es fehlt etwas. Die Form ist ${form}`,
  commandUnfit: (form) => `Das geht nicht. Die Form ist ${form}`,
  modelIs: (name) => `Das Modell dieses Gesprächs ist jetzt ${name}.`,
  profileIs: (name) => `Das Profil dieses Gesprächs ist jetzt ${name}.`,
  recallNoMessage: "Was soll Navi dann tun? Es hinter die Zeit schreiben.",
  exportNotHere: "Die Datei kann hier nicht gespeichert werden. In einer Zelle: %navi export",
  editing: "Eine frühere Nachricht wird geändert",
  editingReplaces: "Das Senden nimmt die alte und ihre Antwort aus dem, was Navi liest",
  editingAnew: "Es ist nicht die letzte: sie wird als neue Nachricht gesendet",
  editingCancel: "Lassen, wie sie war",
  editMessage: "Bearbeiten und erneut senden",
  regenerate: "Erneut antworten",
  copyAnswer: "Antwort kopieren",
  copiedAnswer: "Kopiert",
  retryRun: "Erneut versuchen",
};
