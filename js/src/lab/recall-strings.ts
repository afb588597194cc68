/** The texts of recalls in JupyterLab and Notebook. */

export const labRecallTexts = {
  cellWhenDone: "Come Back When This Cell Is Done",
  cellWhenDoneCaption: "Navi writes in the notebook's session when this cell is done",
  cellWhenDoneShort: "Come back when this cell is done",
  cellTitle: (cell: string, line: string) => line || cell,
  cellMessage: (cell: string, line: string) => (line ? `${cell} is done: ${line}` : `${cell} is done.`),
  cellWaits: (cell: string) => `Navi comes back when ${cell} is done.`,
  runOnSchedule: "Run This Notebook on a Schedule…",
  runOnScheduleCaption: "A recall runs the notebook at the times that you choose, and keeps a dated copy of each result",
  cellUndo: "Undo",
  cellNumber: (count: number) => `In [${count}]`,
  cellThis: "this cell",
  recallShow: "Show",
  recallNoServer: "The server does not answer.",
  cellProblem: (why: string) => `No recall was made: ${why}`,
};
