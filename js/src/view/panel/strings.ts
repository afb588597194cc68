/** The texts of the panel beside the notebook. */

export const panelTexts = {
  panelBar: "Panel",
  panelPin: "Stay on this session when another notebook comes to the front",
  panelPinned: "Stays on this session. Follow the notebook in front again",
  panelNoNotebook: "No notebook",
  panelNotebook: (path: string) => `Notebook: ${path}`,
  panelNew: "New session",
  panelPage: "Open Navi's page in a new tab",
  panelLoading: "Loading…",
  notBegun: (reason: string) => (reason ? `No session was made: ${reason}` : "No session was made: the server does not answer."),
};
