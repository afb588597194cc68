/** The texts of the search in one session. */

export const findTexts = {
  find: "Search in this session",
  findClose: "Close the search",
  findOlder: "The place before",
  findNewer: "The place after",
  findPlace: (at: string, count: string) => `${at} of ${count}`,
  findPlaceOfMore: (at: string, count: string) => `${at} of more than ${count}`,
  findNone: "No message has all of these words",
  findLooking: "Searching…",
};
