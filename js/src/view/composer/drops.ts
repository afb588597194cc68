/** What is dragged over a chat: files of the user's machine, and files of the server from JupyterLab's file browser. */

/** The events of both; JupyterLab has its own drag and drop. */
export const DRAGS = ["dragenter", "dragover", "dragleave", "drop", "lm-dragenter", "lm-dragover", "lm-dragleave", "lm-drop"] as const;

const SERVER_FILES = "application/x-jupyter-icontents";

/** The event of JupyterLab's drag and drop, as far as it is needed here. */
interface LabDrag extends Event {
  readonly mimeData: { hasData(type: string): boolean; getData(type: string): unknown };
  readonly relatedTarget: EventTarget | null;
  dropAction: string;
  readonly proposedAction: string;
}

export interface Drag {
  readonly action: "over" | "leave" | "drop";
  readonly relatedTarget: EventTarget | null;
  readonly files: Iterable<File>;
  /** Of files on the server, from its folder. */
  readonly paths: readonly string[];
}

/** Null: nothing that a chat takes. */
export function dragOf(event: Event): Drag | null {
  const name = event.type.replace(/^lm-/, "");
  const action = name === "drop" ? "drop" : name === "dragleave" ? "leave" : "over";
  if (isLab(event)) {
    if (!event.mimeData.hasData(SERVER_FILES)) return null;
    event.dropAction = event.proposedAction; // else Lumino ends the drag as not accepted
    const paths = event.mimeData.getData(SERVER_FILES);
    return { action, relatedTarget: event.relatedTarget, files: [], paths: Array.isArray(paths) ? paths.filter((path) => typeof path === "string").map(withoutDrive) : [] };
  }
  const { dataTransfer, relatedTarget } = event as DragEvent;
  return dataTransfer?.types.includes("Files") ? { action, relatedTarget, files: dataTransfer.files, paths: [] } : null;
}

function isLab(event: Event): event is LabDrag {
  return event.type.startsWith("lm-") && "mimeData" in event;
}

/** Real-time collaboration puts the name of its drive before the path. */
function withoutDrive(path: string): string {
  return path.replace(/^[^:/]+:/, "");
}
