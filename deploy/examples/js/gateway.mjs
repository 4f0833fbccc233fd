// Hands in one location to be posted to the Plaspy API and waits for its result:
//
//   node gateway.mjs DEVICE LATITUDE LONGITUDE
//
// Prints yes or no and the result. The exit status is 0 if the API took the location,
// 1 if it never will, and 3 if that is not decided yet. Needs NATS_URL, and NATS_USER
// and NATS_PASSWORD if the server requires them.
import { connect, createInbox, headers } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { decode, inLocationSubject } from "./plaspy.mjs";

const [device, latitude, longitude, ...more] = process.argv.slice(2);
if (!device || longitude === undefined || more.length > 0 || [latitude, longitude].some((n) => n.trim() === "" || Number.isNaN(Number(n)))) {
  console.error("want DEVICE LATITUDE LONGITUDE");
  process.exit(2);
}
// Answers and results arrive below a prefix that the user gateway of nats.conf may read.
const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass, NATS_INBOX_PREFIX: inboxPrefix = "_INBOX_gateway" } = process.env;
const nc = await connect({ servers, user, pass, inboxPrefix });
const dateTime = new Date().toISOString();
const inbox = createInbox(inboxPrefix);
const results = nc.subscribe(inbox, { max: 1, timeout: 30_000 });

const h = headers();
h.set("Reply-To", inbox);
// The id of the message: sent again with the same one, it is stored once.
const ack = await jetstream(nc).publish(
  inLocationSubject(device),
  JSON.stringify({ dateTime, latitude: Number(latitude), longitude: Number(longitude) }),
  { headers: h, msgID: `${device}@${dateTime}` },
);
console.error(`stored as ${ack.stream} ${ack.seq}`);
// From here on the message is the bridge's, and ends in exactly one result: posted,
// or refused and kept as a dead letter.
try {
  for await (const m of results) {
    const { type, event: result } = decode(m.subject, m.headers, m.string());
    if (type !== "result") continue;
    console.log(result.posted ? "yes" : `no: ${result.reason}`);
    console.log(m.string());
    process.exitCode = result.posted ? 0 : 1;
  }
} catch (err) {
  if (!(err instanceof Error) || err.name !== "TimeoutError") throw err;
  console.error("stored, and not decided yet: the bridge goes on trying");
  process.exitCode = 3;
}
await nc.close();
