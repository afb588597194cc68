/** The texts of the search in one session in German. */

import type { findTexts as english } from "./strings.js";

export const findTexts: typeof english = {
  find: "In dieser Sitzung suchen",
  findClose: "Suche schließen",
  findOlder: "Zur Stelle davor",
  findNewer: "Zur Stelle danach",
  findPlace: (at, count) => `${at} von ${count}`,
  findPlaceOfMore: (at, count) => `${at} von mehr als ${count}`,
  findNone: "Keine Nachricht enthält alle diese Wörter",
  findLooking: "Wird gesucht …",
};
