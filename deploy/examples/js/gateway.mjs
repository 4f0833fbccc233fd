// Hands in one location to be posted to the Plaspy API and waits until it was:
//
//   node gateway.mjs DEVICE LATITUDE LONGITUDE
//
// Wants NATS_URL, and NATS_USER and NATS_PASSWORD where the server does.
import { connect, createInbox, headers } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";

// A device's id as one token of a subject.
const token = (id) =>
  [...new TextEncoder().encode(id)]
    .map((b) => {
      const c = String.fromCharCode(b);
      return /[A-Za-z0-9_-]/.test(c) ? c : "=" + b.toString(16).toUpperCase().padStart(2, "0");
    })
    .join("");

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
// The id of the message: tried again with the same one, it is taken once.
const ack = await jetstream(nc).publish(
  `plaspy.in.location.${token(device)}`,
  JSON.stringify({ dateTime, latitude: Number(latitude), longitude: Number(longitude) }),
  { headers: h, msgID: `${device}@${dateTime}` },
);
console.error(`taken as ${ack.stream} ${ack.seq}`);
for await (const m of results) console.log(m.string());
await nc.close();
