/** The texts of the search in one session in Simplified Chinese. */

import type { findTexts as english } from "./strings.js";

export const findTexts: typeof english = {
  find: "在此会话中搜索",
  findClose: "关闭搜索",
  findOlder: "上一处",
  findNewer: "下一处",
  findPlace: (at, count) => `第 ${at} 处，共 ${count} 处`,
  findPlaceOfMore: (at, count) => `第 ${at} 处，共 ${count} 处以上`,
  findNone: "没有包含所有这些词语的消息",
  findLooking: "正在搜索…",
};
