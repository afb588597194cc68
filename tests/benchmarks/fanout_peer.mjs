// The peer of `bench_fanout_peers.py` on Node: the package `ws`, each event sent to each socket. It stores nothing.
//     node fanout_peer.mjs FOLDER_OF_WS EXTRA
// Prints its port and ends with its input. Requests: POST /sessions, POST /run/one ("COUNT RATE"), GET /stalls.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";
import { setImmediate, setTimeout } from "node:timers/promises";

const { WebSocketServer } = createRequire(import.meta.url)(process.argv[2]);
const EXTRA = Number(process.argv[3]);
const ENVELOPE = 330;
const BATCH = 50;
const BUFFER = 65_536;

let began = process.cpuUsage();
let longest = 0;
let last = performance.now();
setInterval(() => {
  const now = performance.now();
  longest = Math.max(longest, now - last - 1);
  last = now;
}, 1);

function envelope(seq) {
  const text = `{"seq":${seq},"event":{"type":"TEXT_MESSAGE_CONTENT","message_id":"m0","delta":"@${process.hrtime.bigint()}#`;
  return text + "x".repeat(ENVELOPE - text.length - 3) + '"}}';
}

async function run(count, rate) {
  began = process.cpuUsage();
  longest = 0;
  const start = performance.now();
  for (let made = 0; made < count; made += 1) {
    if (rate) await setTimeout(Math.max(0, start + (made / rate) * 1000 - performance.now()));
    else if (made % BATCH === 0) {
      await setImmediate();
      while ([...sockets.clients].some((socket) => socket.bufferedAmount > BUFFER)) await setImmediate();
    }
    const text = envelope(made);
    for (const socket of sockets.clients) socket.send(text);
  }
}

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  if (request.url === "/sessions") response.end("one");
  else if (request.url === "/stalls") {
    const { user, system } = process.cpuUsage(began);
    response.end(JSON.stringify({ stall: longest / 1e3, stall_cpu: longest / 1e3, cpu: (user + system) / 1e6 }));
  } else {
    const [count, rate] = Buffer.concat(parts).toString().split(" ").map(Number);
    await run(count + EXTRA, rate);
    response.end(JSON.stringify({ head: count + EXTRA }));
  }
});
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (socket) => socket.on("error", () => socket.terminate()));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit()).resume();
