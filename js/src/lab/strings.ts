/** The texts of commands, menu and icon in JupyterLab and Notebook. */

export const labTexts = {
  labMenu: "Navi",
  labCategory: "Navi",
  labOpen: "Open Chat",
  labOpenCaption: "Open the chat with Navi beside the notebook",
  labLauncher: "Navi",
  labNewSession: "New Session",
  labComposer: "Go to the Chat and Back",
  labExplain: "Explain the Error of the Cell",
  labInsert: "Insert the Code of the Answer Below the Cell",
  labRecalls: "Show the Recalls of All Sessions",
  labPin: "Stay on This Session",
  labPage: "Open Navi's Page",
  labPanel: "Navi",
  labUnread: (count: number) => (count === 1 ? "1 unread" : `${count} unread`),
  labQuestions: (count: number) => (count === 1 ? "1 question waits for you" : `${count} questions wait for you`),
  /** What the icon says when something waits; `parts` are the two texts above. */
  labWaiting: (parts: readonly string[]) => `Navi: ${parts.join(", ")}`,
  labNoServer: "The server does not answer. It is asked again every few seconds.",
  labNoExtension: "This server has no Navi. Install navi-jupyter where Jupyter runs, enable it with “jupyter server extension enable navi_jupyter”, and restart the server.",
  labOtherVersion: "The server has another version of Navi than this page. Reload the page.",
  labLoggedOut: "You are not logged in to this server any more.",
  labLogIn: "Log in",
  labOff: "Your server is off.",
  labStart: "Start it",
};
