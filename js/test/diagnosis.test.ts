import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { diagnose, drawDiagnosis, ServerProblem } from "../src/lab/diagnosis.js";
import { labTexts } from "../src/lab/strings.js";

let health: Response | Error;

beforeEach(() => {
  document.body.innerHTML = `<script id="jupyter-config-data" type="application/json">{ "baseUrl": "/user/a b/" }</script><div id="panel"></div>`;
  vi.stubGlobal("fetch", () => (health instanceof Error ? Promise.reject(health) : Promise.resolve(health)));
});
afterEach(() => vi.unstubAllGlobals());

const answer = (status: number): Response => new Response("{}", { status });

describe("what the panel says where it has nothing to show", () => {
  it.each([
    ["there is no extension", 404, labTexts.labNoExtension],
    ["the login has expired", 403, labTexts.labLoggedOut],
    ["the user's server is off", 424, labTexts.labOff],
    ["the server is in trouble", 502, labTexts.labNoServer],
    ["the script is of another version", 200, labTexts.labOtherVersion],
  ])("%s", async (_, status, text) => {
    health = answer(status);
    expect((await diagnose(new TypeError("Failed to fetch dynamically imported module"))).text).toBe(text);
  });

  it("the server is off", async () => {
    health = new TypeError("Failed to fetch");
    expect((await diagnose(new TypeError("Failed to fetch"))).text).toBe(labTexts.labNoServer);
  });

  it("an answer of the server tells by itself, in its words where those say more", async () => {
    health = new Error("it is not asked");
    expect((await diagnose(new ServerProblem(403, "Forbidden"))).text).toBe(labTexts.labLoggedOut);
    expect((await diagnose(new ServerProblem(409, "This notebook is another user's."))).text).toBe("This notebook is another user's.");
  });

  it("the server is off at a JupyterHub, which refuses a POST to it", async () => {
    health = answer(424);
    const diagnosis = await diagnose(new ServerProblem(403, "HTTP 403"));
    expect([diagnosis.text, diagnosis.link?.text]).toEqual([labTexts.labOff, labTexts.labStart]);
  });

  it("leads to the login page, and is not said again at each try", async () => {
    const node = document.getElementById("panel") as HTMLElement;
    const diagnosis = await diagnose(new ServerProblem(401, ""));
    drawDiagnosis(node, diagnosis);
    const note = node.firstElementChild;
    expect(note?.querySelector("a")?.href).toContain("/user/a%20b/navi");
    drawDiagnosis(node, diagnosis);
    expect(node.firstElementChild).toBe(note);
  });
});
