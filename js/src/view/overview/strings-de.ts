/** The texts of the view over the recalls of all sessions in German. */

import type { overviewTexts as english, toastTexts as englishToasts } from "./strings.js";

/** How many, as words that follow one another. */
function counts(ran: number, failed: number, missed: number): string[] {
  return [`${ran} gelaufen`, ...(failed ? [`${failed} fehlgeschlagen`] : []), ...(missed ? [`${missed} nicht gelaufen`] : [])];
}

export const overviewTexts: typeof english = {
  todayLine: (ran, failed, missed, next) =>
    `Heute: ${[...(ran || failed || missed ? counts(ran, failed, missed) : ["keine gelaufen"]), ...(next === null ? [] : [`nächste um ${next}`])].join(", ")}`,
  todayNeeds: (count) => (count === 1 ? "1 braucht Aufmerksamkeit" : `${count} brauchen Aufmerksamkeit`),
  todayOpen: "Die Wiedervorlagen aller Sitzungen zeigen",
  overview: "Wiedervorlagen aller Sitzungen",
  overviewClose: "Die Wiedervorlagen aller Sitzungen schließen",
  overviewNone: "Es gibt noch keine Wiedervorlagen. Navi schreiben, wann es wiederkommen soll: „every weekday at 9, summarise what happened“.",
  overviewNeeds: "Braucht Aufmerksamkeit",
  overviewActive: "Läuft gerade",
  overviewNext: "Als Nächstes",
  overviewWaiting: "Wartet auf ein Ereignis oder ist pausiert",
  overviewToday: "Heute",
  overviewYesterday: "Gestern",
  overviewCalendar: "Die kommenden zwei Wochen",
  overviewMore: (count) => `${count} weitere`,
  overviewAsks: "fragt nach",
  overviewDay: (ran, failed, missed) => counts(ran, failed, missed).join(", "),
  overviewTimes: (count) => `${count}-mal`,
  overviewNoSession: "die Sitzung wurde gelöscht",
  overviewUntitled: "Sitzung ohne Titel",
  overviewGoTo: (session) => `Die Sitzung „${session}“ öffnen`,
  overviewShow: "Zeigen",
  overviewShowOf: (title, when) => `Die Antwort von „${title}“ zeigen: ${when}`,
  overviewAnswer: (title) => `Die Frage von „${title}“ beantworten`,
  overviewAgain: "Erneut ausführen",
  overviewAgainOf: (title) => `Erneut ausführen: ${title}`,
  overviewRun: (title) => `Jetzt ausführen: ${title}`,
  overviewStarted: (title) => `„${title}“ wurde gestartet.`,
  calendarDay: (day, count) => (count === 0 ? `${day}, nichts` : count === 1 ? `${day}, 1 Wiedervorlage` : `${day}, ${count} Wiedervorlagen`),
  calendarToday: (day) => `${day}, heute`,
  calendarNone: "In diesen zwei Wochen steht nichts aus.",
  calendarIncomplete: "Wiedervorlagen nach den ersten 500 sind weggelassen.",
  calendarHint: "Pfeiltasten gehen von Tag zu Tag; Eingabe zeigt einen Tag.",
  remind: "Erinnern",
  remindMenu: "Wann Navi hierauf zurückkommen soll",
  remindSoon: "In 10 Minuten",
  remindHour: "In 1 Stunde",
  remindTomorrow: "Morgen um 9:00",
  remindCustom: "Zu einer anderen Zeit …",
  remindDaily: (clock) => `Jeden Tag um ${clock}`,
  remindCell: "Wenn diese Zelle fertig ist",
  remindMessage: (prompt) => `Erneut: ${prompt}`,
};

export const toastTexts: typeof englishToasts = {
  toasts: "Gerade gelaufene Wiedervorlagen",
  toastDone: (title) => `${title}: fertig`,
  toastFailed: (title) => `${title}: fehlgeschlagen`,
  toastMissed: (title) => `${title}: nicht gelaufen`,
  toastAsks: (title) => `${title}: Navi fragt nach`,
  toastIn: (session) => `in „${session}“`,
  toastShow: "Zeigen",
  toastDismiss: (text) => `Ausblenden: ${text}`,
};
