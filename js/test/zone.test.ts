import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import "../src/navi-chat.js";
import type { NaviChat } from "../src/view/chat-element.js";
import { asker, browserZone } from "../src/view/lib/zone.js";
import { Log, prelude, recall } from "./log.js";
import { FakeTransport } from "./transport.js";

let chat: NaviChat;
let transport: FakeTransport;

const find = (name: string): HTMLElement | null => chat.querySelector(`[data-navi="${name}"]`);
const patches = (): unknown[] => transport.requests.filter(({ method }) => method === "PATCH").map(({ body }) => body);
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000 });

function atHome(zone: string | undefined): void {
  const real = Intl.DateTimeFormat.prototype.resolvedOptions;
  vi.spyOn(Intl.DateTimeFormat.prototype, "resolvedOptions").mockImplementation(function (this: Intl.DateTimeFormat) {
    return { ...real.call(this), timeZone: zone as string };
  });
}

async function drawn(): Promise<void> {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await chat.updateComplete;
}

/** Shows a session whose zone is this. */
async function show(timezone: string, source: string): Promise<void> {
  transport.answers["sessions/s"] = { status: 200, body: { title: "t", model: "m", profile: "p", timezone, timezone_source: source } };
  chat.session = "s";
  document.body.replaceChildren(chat);
  await drawn();
  transport.last.open().envelopes(prelude(0, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
  await eventually(() => expect(chat.state.session?.timezone).toBe(timezone));
  await drawn();
}

async function choose(zone: string): Promise<void> {
  const field = find("zone-name") as HTMLInputElement;
  field.value = zone;
  field.dispatchEvent(new Event("change", { bubbles: true }));
  await drawn();
}

beforeEach(() => {
  sessionStorage.clear();
  atHome("Europe/Berlin");
  transport = new FakeTransport();
  chat = document.createElement("navi-chat") as NaviChat;
  chat.transport = transport;
});

afterEach(() => {
  chat.remove();
  vi.restoreAllMocks();
});

describe("the browser's zone", () => {
  it("goes along with each prompt", async () => {
    await show("Europe/Berlin", "browser");
    chat.send("remind me at 9");
    expect(transport.last.sent).toEqual([expect.objectContaining({ text: "remind me at 9", client: { tz: "Europe/Berlin", source: "browser" } })]);
  });

  it.each(["default", "kernel"])("replaces a zone that is a guess (%s) as soon as the chat is looked at", async (source) => {
    await show("UTC", source);
    await eventually(() => expect(patches()).toEqual([{ timezone: "Europe/Berlin", timezone_source: "browser" }]));
  });

  it.each(["browser", "chosen"])("replaces no zone that a user has looked at (%s)", async (source) => {
    await show("Asia/Tokyo", source);
    await drawn();
    expect(patches()).toEqual([]);
  });

  it.each([undefined, "Etc/Unknown", "+02:00"])("is left out where the browser does not know it (%s)", async (zone) => {
    vi.restoreAllMocks();
    atHome(zone);
    expect([browserZone(), asker()]).toEqual([null, {}]);
    await show("UTC", "kernel");
    chat.send("hi");
    expect(transport.last.sent[0]).not.toHaveProperty("client");
    expect(patches()).toEqual([]);
  });
});

describe("the zone in the settings", () => {
  it("is shown with where it comes from, and follows the log", async () => {
    await show("Asia/Tokyo", "browser");
    find("settings-toggle")?.click();
    await drawn();
    expect((find("zone-name") as HTMLInputElement).value).toBe("Asia/Tokyo");
    expect(find("zone-source")?.textContent).toBe("of your browser");
    const session = { title: "t", model: "m", profile: "p", timezone: "America/Lima", timezone_source: "chosen" };
    transport.last.envelopes(new Log().custom("navi.session", { changed: ["timezone"], session }).envelopes);
    await drawn();
    expect((find("zone-name") as HTMLInputElement).value).toBe("America/Lima");
    expect(find("zone-source")?.textContent).toBe("chosen by you");
  });

  it("is chosen by its name, and given up for the browser's", async () => {
    await show("Asia/Tokyo", "chosen");
    find("settings-toggle")?.click();
    await drawn();
    await choose("America/Lima");
    await choose("  ");
    expect((find("zone-name") as HTMLInputElement).value).toBe("Asia/Tokyo");
    find("zone-own")?.click();
    expect(find("zone-own")?.textContent).toContain("Europe/Berlin");
    expect(patches()).toEqual([{ timezone: "America/Lima" }, { timezone: "Europe/Berlin", timezone_source: "browser" }]);
  });

  it("is on whose clock a recall was asked for, so that is shown beside the browser's", async () => {
    await show("Asia/Tokyo", "chosen");
    const log = new Log().recall({ ...recall("a"), schedule: { kind: "once", at: "2026-11-23T00:00:00+00:00" }, next_at: "2026-11-23T00:00:00+00:00" });
    transport.last.envelopes(log.envelopes);
    await drawn();
    find("recalls-toggle")?.click();
    await drawn();
    expect(find("recall")?.textContent).toMatch(/09:00( AM)? Asia\/Tokyo/);
    const session = { title: "t", model: "m", profile: "p", timezone: "Asia/Tokyo", timezone_source: "browser" };
    transport.last.envelopes(new Log(10).custom("navi.session", { changed: ["timezone"], session }).envelopes);
    await drawn();
    expect(find("recall")?.textContent).not.toContain("Asia/Tokyo");
  });

  it("is as it was when the server does not know the name, and says so", async () => {
    await show("Europe/Berlin", "browser");
    find("settings-toggle")?.click();
    await drawn();
    expect(find("zone-own")).toBeNull();
    transport.answers["sessions/s"] = { status: 400, body: { message: "timezone: 'Mars' is not a known time zone" } };
    await choose("Mars");
    await eventually(() => expect(find("notice")?.textContent).toContain("not a known time zone"));
    expect((find("zone-name") as HTMLInputElement).value).toBe("Europe/Berlin");
  });
});
