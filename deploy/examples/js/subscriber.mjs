// Ways to read the bridge's events:
//
//   node subscriber.mjs latest          newest location of each device, then each change
//   node subscriber.mjs replay 3600     the locations of the last hour
//   node subscriber.mjs queue NAME      locations, shared among all with the same NAME
//   node subscriber.mjs alerts          alerts only
//   node subscriber.mjs durable NAME    every event from now on, none missed while this
//                                       program is down; [N] ends it after N events
//
// Needs NATS_URL, and NATS_USER and NATS_PASSWORD if the server requires them.
// plaspy.mjs is plaspy.mts compiled, which plaspy-bridge schema --types typescript prints.
import { connect } from "@nats-io/transport-node";
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { ALL_ALERTS, ALL_LOCATIONS, EVENTS_STREAM, LAST_BUCKET, decode, readMetadata } from "./plaspy.mjs";

const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass } = process.env;
const nc = await connect({ servers, user, pass, maxReconnectAttempts: -1 });
process.stdout.on("error", (err) => process.exit(err.code === "EPIPE" ? 0 : 1)); // head has seen enough
process.once("SIGINT", () => nc.close());

/** @param {import("./plaspy.mjs").Message} m */
const show = ({ type, event }) => {
  if (type === "location") console.log(event.deviceId, event.location.dateTime, event.location.latitude, event.location.longitude);
  else if (type === "alert") console.log(event.deviceId, event.dateTime, event.alert, event.state, event.texts ?? []);
  else console.log(type, JSON.stringify(event));
};

const commands = {
  async latest() {
    const bucket = await new Kvm(nc).open(LAST_BUCKET);
    for await (const entry of await bucket.watch()) {
      if (entry.operation === "PUT") show({ type: "location", event: entry.json() });
    }
  },

  async replay(seconds = "3600") {
    const consumer = await jetstream(nc).consumers.get(EVENTS_STREAM, {
      filter_subjects: ALL_LOCATIONS,
      deliver_policy: DeliverPolicy.StartTime,
      opt_start_time: new Date(Date.now() - Number(seconds) * 1000).toISOString(),
    });
    if ((await consumer.info()).num_pending === 0) return;
    for await (const m of await consumer.consume()) {
      show(decode(m.subject, m.headers, m.string()));
      if (m.info.pending === 0) return;
    }
  },

  async queue(name = "dashboards") {
    for await (const m of nc.subscribe(ALL_LOCATIONS, { queue: name })) show(decode(m.subject, m.headers, m.string()));
  },

  async alerts() {
    for await (const m of nc.subscribe(ALL_ALERTS)) show(decode(m.subject, m.headers, m.string()));
  },

  // The durable consumer remembers the acknowledged events. One event at a time keeps
  // each device's in order, also if one is delivered again.
  async durable(name = "reports", n = "0") {
    await (await jetstreamManager(nc)).consumers.add(EVENTS_STREAM, {
      durable_name: name,
      deliver_policy: DeliverPolicy.New,
      ack_policy: AckPolicy.Explicit,
      max_ack_pending: 1,
    });
    let left = Number(n);
    const consumer = await jetstream(nc).consumers.get(EVENTS_STREAM, name);
    for await (const m of await consumer.consume({ max_messages: 1 })) {
      const { id } = readMetadata(m.headers);
      console.log(`event ${id}${m.redelivered ? " again" : ""}`);
      show(decode(m.subject, m.headers, m.string()));
      // An event that comes again has the same id: store it together with the effect.
      // Acknowledge after that, and wait for the server to have it.
      if (!(await m.ackAck())) console.error(`not acknowledged, comes again: ${id}`);
      if (--left === 0) return;
    }
  },
};

const [name, ...args] = process.argv.slice(2);
if (!commands[name]) {
  console.error(`want one of ${Object.keys(commands).join(", ")}`);
  process.exitCode = 2;
} else {
  await commands[name](...args);
}
await nc.close();
