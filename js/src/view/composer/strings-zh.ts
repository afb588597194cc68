/** The texts of writing in Simplified Chinese. */

import type { writingTexts as english } from "./strings.js";

export const writingTexts: typeof english = {
  placeholderReader: "此会话仅供阅读，不能在其中书写",
  suggestionList: "建议",
  suggestionCount: (count) => `${count} 条建议`,
  suggestionsNone: "没有建议",
  suggestionsLoading: "正在查找…",
  mentionKinds: {
    cell: "单元格",
    error: "错误",
    variable: "变量",
    file: "文件",
    session: "会话",
    recall: "预约",
  },
  commandKind: "命令",
  promptKind: "你的提示词",
  argumentKind: "选项",
  commands: {
    recall: { form: "/recall in 10m …", what: "在某个时间或某事发生时再来" },
    model: { form: "/model NAME", what: "在此对话中使用其他模型" },
    profile: { form: "/profile NAME", what: "在此对话中使用其他配置方案" },
    new: { form: "/new", what: "开始新的对话" },
    export: { form: "/export md", what: "将对话保存为文件：md、ipynb 或 json" },
  },
  commandNeeds: (form) => `缺少内容。写法为 ${form}`,
  commandUnfit: (form) => `这不可行。写法为 ${form}`,
  modelIs: (name) => `此对话的模型现在是 ${name}。`,
  profileIs: (name) => `此对话的配置方案现在是 ${name}。`,
  recallNoMessage: "届时 Navi 要做什么？请写在时间后面。",
  exportNotHere: "无法在此保存文件。请在单元格中使用：%navi export",
  editing: "正在修改较早的消息",
  editingReplaces: "发送后，旧消息及其回答将不再被 Navi 读取",
  editingAnew: "它不是最后一条：将作为新消息发送",
  editingCancel: "保持原样",
  editMessage: "编辑并重新发送",
  regenerate: "重新回答",
  copyAnswer: "复制回答",
  copiedAnswer: "已复制",
  retryRun: "重试",
};
