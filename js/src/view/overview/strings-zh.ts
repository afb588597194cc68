/** The texts of the view over the recalls of all sessions in Simplified Chinese. */

import type { overviewTexts as english, toastTexts as englishToasts } from "./strings.js";

/** How many, as words that follow one another. */
function counts(ran: number, failed: number, missed: number): string[] {
  return [`运行 ${ran} 次`, ...(failed ? [`失败 ${failed} 次`] : []), ...(missed ? [`未运行 ${missed} 次`] : [])];
}

export const overviewTexts: typeof english = {
  todayLine: (ran, failed, missed, next) =>
    `今天：${[...(ran || failed || missed ? counts(ran, failed, missed) : ["尚未运行"]), ...(next === null ? [] : [`下一个在 ${next}`])].join("，")}`,
  todayNeeds: (count) => `${count} 个需要你处理`,
  todayOpen: "显示所有会话的预约",
  overview: "所有会话的预约",
  overviewClose: "关闭所有会话的预约",
  overviewNone: "还没有预约。告诉 Navi 何时再来：“every weekday at 9, summarise what happened”。",
  overviewNeeds: "需要你处理",
  overviewActive: "正在运行",
  overviewNext: "接下来",
  overviewWaiting: "等待事件，或已暂停",
  overviewToday: "今天",
  overviewYesterday: "昨天",
  overviewCalendar: "未来两周",
  overviewMore: (count) => `还有 ${count} 个`,
  overviewAsks: "向你提问",
  overviewDay: (ran, failed, missed) => counts(ran, failed, missed).join("，"),
  overviewTimes: (count) => `${count} 次`,
  overviewNoSession: "所属会话已删除",
  overviewUntitled: "无标题会话",
  overviewGoTo: (session) => `打开会话“${session}”`,
  overviewShow: "查看",
  overviewShowOf: (title, when) => `查看“${title}”在 ${when} 的回答`,
  overviewAnswer: (title) => `回答“${title}”的问题`,
  overviewAgain: "再次运行",
  overviewAgainOf: (title) => `再次运行：${title}`,
  overviewRun: (title) => `立即运行：${title}`,
  overviewStarted: (title) => `“${title}”已启动。`,
  calendarDay: (day, count) => (count === 0 ? `${day}，无` : `${day}，${count} 个预约`),
  calendarToday: (day) => `${day}，今天`,
  calendarNone: "这两周没有安排。",
  calendarIncomplete: "只列出前 500 个预约，更晚的已省略。",
  calendarHint: "用方向键在日期间移动；按 Enter 显示当天。",
  remind: "提醒我",
  remindMenu: "Navi 何时再来处理此事",
  remindSoon: "10 分钟后",
  remindHour: "1 小时后",
  remindTomorrow: "明天 9:00",
  remindCustom: "其他时间…",
  remindDaily: (clock) => `每天 ${clock}`,
  remindCell: "此单元格完成时",
  remindMessage: (prompt) => `再次：${prompt}`,
};

export const toastTexts: typeof englishToasts = {
  toasts: "刚刚运行的预约",
  toastDone: (title) => `${title}：完成`,
  toastFailed: (title) => `${title}：失败`,
  toastMissed: (title) => `${title}：未运行`,
  toastAsks: (title) => `${title}：向你提问`,
  toastIn: (session) => `在“${session}”中`,
  toastShow: "查看",
  toastDismiss: (text) => `关闭：${text}`,
};
