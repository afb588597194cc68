/** Texts about agent programs: their plans, options, calls and questions. Part of `strings`. */

export const agentTexts = {
  planTitle: "Plan",
  planDone: (done: number, all: number) => `${done} of ${all} done`,
  planStates: { pending: "to do", in_progress: "in progress", completed: "done" },
  planImportant: "important",
  callPlaces: "Places",
  callChange: (path: string) => `Change of ${path}`,
  agents: "Agents",
  agentsText: "Agent programs on this server's machine. They use their own login, and work in this session.",
  agentSection: (name: string) => `Agent ${name}`,
  agentMode: "Its mode",
  agentModel: "Its model",
  agentAsItStarts: "As the program starts",
  agentNoOptions: "It offers its modes and models when it has been started: with the first message.",
  agentNotUsable: "Not usable yet",
  agentInUse: "in use",
  useAgent: (name: string) => `Use ${name}`,
  copyCommand: (command: string) => `Copy the command: ${command}`,
  answeredByAgent: (name: string) => `${name} answers`,
  agentCommandKind: "Command of the agent",
  agentAsks: (name: string) => `${name} asks for permission`,
  agentWords: "The answers are the agent's own words.",
  alwaysIsTheirs: "What “always” covers is a rule of the agent's own; Navi is not asked again for what it covers.",
  optionKinds: { allow_once: "allows this once", allow_always: "allows always", reject_once: "refuses this once", reject_always: "refuses always" },
  /** `name`: of the answer that was chosen. */
  choseOption: (outcome: string, name: string) => String(outcome).replace(/^\w+/, (word) => `${word} (${name})`),
  agentNotices: {
    conversation_as_text: "The conversation was given to the agent again, as text.",
    steered_by_cancel: "The agent cannot take a message while it works: it was stopped, and goes on with your message.",
    agent_ended: "The agent program has ended. It is started again with the next message.",
  },
};
