/** Texts about agent programs in Simplified Chinese. */

import type { agentTexts as english } from "./strings.js";

export const agentTexts: typeof english = {
  planTitle: "计划",
  planDone: (done, all) => `已完成 ${done}/${all}`,
  planStates: { pending: "待办", in_progress: "进行中", completed: "已完成" },
  planImportant: "重要",
  callWords: "它自己的描述",
  callPlaces: "位置",
  callChange: (path) => `对 ${path} 的更改`,
  agents: "代理程序",
  agentsText: "此服务器所在机器上的代理程序。它们使用自己的登录信息，并在此会话中工作。",
  agentSection: (name) => `代理程序 ${name}`,
  agentMode: "它的模式",
  agentModel: "它的模型",
  agentAsItStarts: "按程序启动时的设置",
  agentNoOptions: "发送第一条消息后程序启动，届时会提供它的模式和模型。",
  agentNotUsable: "尚不可用",
  agentInUse: "使用中",
  useAgent: (name) => `使用 ${name}`,
  copyCommand: (command) => `复制命令：${command}`,
  answeredByAgent: (name) => `由 ${name} 回答`,
  agentCommandKind: "代理程序的命令",
  agentAsks: (name) => `${name} 请求许可`,
  agentWords: "这些选项是代理程序自己的措辞。",
  alwaysIsTheirs: "“始终”的范围由代理程序自己的规则决定；对其范围内的操作，不会再询问 Navi。",
  optionKinds: { allow_once: "仅允许这一次", allow_always: "始终允许", reject_once: "仅拒绝这一次", reject_always: "始终拒绝" },
  choseOption: (outcome, name) => `${outcome}（${name}）`,
  agentNotices: {
    conversation_as_text: "对话已作为文本重新提供给代理程序。",
    steered_by_cancel: "代理程序工作时无法接收消息：它已被停止，并将根据你的消息继续。",
    agent_option_refused: "所选的模式或模型已不再提供：代理程序将使用自己的设置继续。",
    agent_ended: "代理程序已结束。发送下一条消息时会重新启动。",
  },
};
