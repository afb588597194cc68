/** One part of the bundle: what is offered behind `/` and `@`, and what the chat's own commands do. */

export { Commands } from "./commands.js";
export { mentionSuggestions } from "./mentions.js";
