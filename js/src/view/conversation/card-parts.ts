/** One part of the bundle: what draws the cards of a conversation, and text in which everything can be seen. */

export { marked, markedLine } from "../lib/visible-text.js";
export { agentNotice, planCard } from "../agents/plan.js";
export { InterruptCards, spoken } from "./approvals.js";
export { ToolCards } from "./tools.js";
