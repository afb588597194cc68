/** The texts of the panel beside the notebook in Simplified Chinese. */

import type { panelTexts as english } from "./strings.js";

export const panelTexts: typeof english = {
  panelBar: "面板",
  panelPin: "其他笔记本到前台时仍停留在此会话",
  panelPinned: "停留在此会话。点击后重新跟随前台的笔记本",
  panelNoNotebook: "无笔记本",
  panelNotebook: (path) => `笔记本：${path}`,
  panelNew: "新建会话",
  panelPage: "在新标签页中打开 Navi 的页面",
  panelLoading: "正在加载…",
  notBegun: (reason) => (reason ? `未能创建会话：${reason}` : "未能创建会话：服务器没有响应。"),
};
