/** The texts about choosing a model in Simplified Chinese. */

import type { modelTexts as english } from "./model-strings.js";

export const modelTexts: typeof english = {
  setupTitle: "选择语言模型",
  setupText: "提醒以及有关此会话的问题不需要语言模型。有了它，Navi 可以阅读、解释并完成你的工作。",
  setupSection: "添加模型",
  setupDismiss: "暂不",
  setupUsable: "可直接使用：",
  setupLocal: (label) => `${label}，在此机器上找到：`,
  setupProvider: "提供商",
  setupKey: (label) => `${label} 的密钥`,
  setupAddress: (label) => `${label} 的地址`,
  setupSave: "保存并测试",
  setupWhere: "保存在服务器上只有你能读取的文件中。绝不会出现在笔记本、日志或导出中。",
  setupForbidden: "此服务器的管理员不允许在这里保存密钥。",
  setupNothing: "没有安装需要密钥的提供商。请运行：pip install \"navi-jupyter[openai,anthropic,google]\"",
  setupSaving: "正在保存…",
  setupTesting: (model) => `正在询问 ${model}…`,
  setupSaved: (label) => `已保存。请在上方选择 ${label} 的模型。`,
  setupRefused: (why) => `密钥未保存：${why}`,
  setupAnswered: (model, how) => `从现在起使用 ${model}。${how}`,
  setupStored: "已保存在此服务器上",
  setupRemove: "移除",
  setupForget: (label) => `移除为 ${label} 保存的内容`,
};
