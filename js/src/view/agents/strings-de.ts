/** Texts about agent programs in German. */

import type { agentTexts as english } from "./strings.js";

export const agentTexts: typeof english = {
  planTitle: "Plan",
  planDone: (done, all) => `${done} von ${all} erledigt`,
  planStates: { pending: "offen", in_progress: "in Arbeit", completed: "erledigt" },
  planImportant: "wichtig",
  callWords: "In eigenen Worten",
  callPlaces: "Stellen",
  callChange: (path) => `Änderung an ${path}`,
  agents: "Agenten",
  agentsText: "Agentenprogramme auf dem Rechner dieses Servers. Sie verwenden ihre eigene Anmeldung und arbeiten in dieser Sitzung.",
  agentSection: (name) => `Agent ${name}`,
  agentMode: "Sein Modus",
  agentModel: "Sein Modell",
  agentAsItStarts: "Wie das Programm startet",
  agentNoOptions: "Seine Modi und Modelle bietet er an, sobald er gestartet ist: mit der ersten Nachricht.",
  agentNotUsable: "Noch nicht verwendbar",
  agentInUse: "in Verwendung",
  useAgent: (name) => `${name} verwenden`,
  copyCommand: (command) => `Befehl kopieren: ${command}`,
  answeredByAgent: (name) => `${name} antwortet`,
  agentCommandKind: "Befehl des Agenten",
  agentAsks: (name) => `${name} bittet um Erlaubnis`,
  agentWords: "Die Antworten sind Worte des Agenten.",
  alwaysIsTheirs: "Was „immer“ umfasst, ist eine Regel des Agenten; für das, was sie umfasst, wird Navi nicht mehr gefragt.",
  optionKinds: { allow_once: "erlaubt dies einmal", allow_always: "erlaubt immer", reject_once: "lehnt dies einmal ab", reject_always: "lehnt immer ab" },
  choseOption: (outcome, name) => `${outcome} (${name})`,
  agentNotices: {
    conversation_as_text: "Das Gespräch wurde dem Agenten noch einmal gegeben, als Text.",
    steered_by_cancel: "Der Agent nimmt keine Nachricht an, während er arbeitet: Er wurde angehalten und macht mit Ihrer Nachricht weiter.",
    agent_option_refused: "Der gewählte Modus oder das gewählte Modell wird nicht mehr angeboten: Der Agent arbeitet mit seinem eigenen weiter.",
    agent_ended: "Das Agentenprogramm ist beendet. Es wird mit der nächsten Nachricht neu gestartet.",
  },
};
