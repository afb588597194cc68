/** The texts of JupyterLab's and Notebook's commands, menu, icon and cells in German. */

import type { labRecallTexts as englishRecalls } from "./recall-strings.js";
import type { labTexts as english } from "./strings.js";

export const labTexts: typeof english = {
  labMenu: "Navi",
  labCategory: "Navi",
  labOpen: "Chat öffnen",
  labOpenCaption: "Den Chat mit Navi neben dem Notebook öffnen",
  labLauncher: "Navi",
  labNewSession: "Neue Sitzung",
  labComposer: "Zum Chat und zurück",
  labExplain: "Den Fehler der Zelle erklären",
  labInsert: "Den Code der Antwort unter der Zelle einfügen",
  labRecalls: "Die Wiedervorlagen aller Sitzungen anzeigen",
  labPin: "Bei dieser Sitzung bleiben",
  labPage: "Die Seite von Navi öffnen",
  labPanel: "Navi",
  labUnread: (count) => `${count} ungelesen`,
  labQuestions: (count) => (count === 1 ? "1 Frage wartet" : `${count} Fragen warten`),
  labWaiting: (parts) => `Navi: ${parts.join(", ")}`,
  labNoServer: "Der Server antwortet nicht. Er wird alle paar Sekunden erneut gefragt.",
  labNoExtension: "Dieser Server hat kein Navi. navi-jupyter dort installieren, wo Jupyter läuft, mit „jupyter server extension enable navi_jupyter“ einschalten und den Server neu starten.",
  labOtherVersion: "Der Server hat eine andere Version von Navi als diese Seite. Die Seite neu laden.",
  labLoggedOut: "Die Anmeldung bei diesem Server ist abgelaufen.",
  labLogIn: "Anmelden",
  labOff: "Der eigene Server ist aus.",
  labStart: "Starten",
};

export const labRecallTexts: typeof englishRecalls = {
  cellWhenDone: "Wiederkommen, wenn diese Zelle fertig ist",
  cellWhenDoneCaption: "Navi schreibt in der Sitzung des Notebooks, wenn diese Zelle fertig ist",
  cellWhenDoneShort: "Wiederkommen, wenn diese Zelle fertig ist",
  cellTitle: (cell, line) => line || cell,
  cellMessage: (cell, line) => (line ? `${cell} ist fertig: ${line}` : `${cell} ist fertig.`),
  cellWaits: (cell) => `Navi kommt wieder, wenn ${cell} fertig ist.`,
  runOnSchedule: "Dieses Notebook nach Zeitplan ausführen…",
  runOnScheduleCaption: "Eine Wiedervorlage führt das Notebook zu den gewählten Zeiten aus und behält von jedem Ergebnis eine datierte Kopie",
  cellUndo: "Rückgängig",
  cellNumber: (count) => `In [${count}]`,
  cellThis: "diese Zelle",
  recallShow: "Zeigen",
  recallNoServer: "Der Server antwortet nicht.",
  cellProblem: (why) => `Es wurde keine Wiedervorlage angelegt: ${why}`,
};
