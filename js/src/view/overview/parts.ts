/** One part of the bundle: the recalls of all sessions, and what is said when one has run. */

export { RecallsOverviewView } from "./overview.js";
export { toastRegion } from "./toasts.js";
