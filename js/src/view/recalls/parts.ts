/** One part of the bundle: the panel of a session's recalls, and how one is made from an answer. */

export { toggleRemindMenu } from "../overview/remind.js";
export { notifySetting } from "../panels/notify-setting.js";
export { RecallsPanel } from "./panel.js";
export { changesView, readChanges } from "./results.js";
