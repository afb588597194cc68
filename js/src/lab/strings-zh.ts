/** The texts of JupyterLab's and Notebook's commands, menu, icon and cells in Simplified Chinese. */

import type { labRecallTexts as englishRecalls } from "./recall-strings.js";
import type { labTexts as english } from "./strings.js";

export const labTexts: typeof english = {
  labMenu: "Navi",
  labCategory: "Navi",
  labOpen: "打开聊天",
  labOpenCaption: "在笔记本旁打开与 Navi 的聊天",
  labLauncher: "Navi",
  labNewSession: "新建会话",
  labComposer: "转到聊天或返回",
  labExplain: "解释单元格的错误",
  labInsert: "在单元格下方插入回答中的代码",
  labRecalls: "显示所有会话的预约",
  labPin: "停留在此会话",
  labPage: "打开 Navi 的页面",
  labPanel: "Navi",
  labUnread: (count) => `${count} 条未读`,
  labQuestions: (count) => `${count} 个问题等待你回答`,
  labWaiting: (parts) => `Navi：${parts.join("，")}`,
  labNoServer: "服务器没有响应。每隔几秒会重新询问。",
  labNoExtension: "此服务器上没有 Navi。请在运行 Jupyter 的环境中安装 navi-jupyter，用“jupyter server extension enable navi_jupyter”启用它，然后重启服务器。",
  labOtherVersion: "服务器上的 Navi 与此页面的版本不同。请重新加载页面。",
  labLoggedOut: "您在此服务器上的登录已失效。",
  labLogIn: "登录",
  labOff: "你的服务器未运行。",
  labStart: "启动",
};

export const labRecallTexts: typeof englishRecalls = {
  cellWhenDone: "此单元格完成时再来",
  cellWhenDoneCaption: "此单元格完成时，Navi 会在笔记本的会话中留言",
  cellWhenDoneShort: "此单元格完成时再来",
  cellTitle: (cell, line) => line || cell,
  cellMessage: (cell, line) => (line ? `${cell} 已完成：${line}` : `${cell} 已完成。`),
  cellWaits: (cell) => `${cell} 完成时 Navi 会再来。`,
  runOnSchedule: "按计划运行此笔记本…",
  runOnScheduleCaption: "预约会在所选时间运行此笔记本，并保留每次结果的带日期副本",
  cellUndo: "撤销",
  cellNumber: (count) => `In [${count}]`,
  cellThis: "此单元格",
  recallShow: "查看",
  recallNoServer: "服务器没有响应。",
  cellProblem: (why) => `未能创建预约：${why}`,
};
