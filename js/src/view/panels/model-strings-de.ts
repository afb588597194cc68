/** The texts about choosing a model in German. */

import type { modelTexts as english } from "./model-strings.js";

export const modelTexts: typeof english = {
  setupTitle: "Sprachmodell wählen",
  setupText: "Erinnerungen und Fragen zu dieser Sitzung gehen ohne. Mit einem Sprachmodell kann Navi lesen, erklären und Arbeit erledigen.",
  setupSection: "Modell hinzufügen",
  setupDismiss: "Nicht jetzt",
  setupUsable: "Sofort benutzbar:",
  setupLocal: (label) => `${label}, auf diesem Rechner gefunden:`,
  setupProvider: "Anbieter",
  setupKey: (label) => `Schlüssel von ${label}`,
  setupAddress: (label) => `Adresse von ${label}`,
  setupSave: "Speichern und testen",
  setupWhere: "Liegt auf dem Server, in einer Datei, die nur ihr Besitzer lesen kann. Nie in einem Notebook, Protokoll oder Export.",
  setupForbidden: "Die Verwaltung dieses Servers erlaubt nicht, hier Schlüssel zu speichern.",
  setupNothing: "Es ist kein Anbieter installiert, der einen Schlüssel annimmt. Ausführen: pip install \"navi-jupyter[openai,anthropic,google]\"",
  setupSaving: "Wird gespeichert …",
  setupTesting: (model) => `${model} wird gefragt …`,
  setupSaved: (label) => `Gespeichert. Oben ein Modell von ${label} wählen.`,
  setupRefused: (why) => `Der Schlüssel wird nicht behalten: ${why}`,
  setupAnswered: (model, how) => `Ab jetzt wird ${model} benutzt. ${how}`,
  setupStored: "Auf diesem Server gespeichert",
  setupRemove: "Entfernen",
  setupForget: (label) => `Entfernen, was für ${label} gespeichert ist`,
};
