// Four ways to read what the bridge publishes:
//
//   node subscriber.mjs latest          where everybody is, and each change
//   node subscriber.mjs replay 3600     the locations of the last hour
//   node subscriber.mjs queue NAME      locations, shared among all that say the same NAME
//   node subscriber.mjs alerts          alerts only
//
// Wants NATS_URL, and NATS_USER and NATS_PASSWORD where the server does.
import { connect } from "@nats-io/transport-node";
import { jetstream, DeliverPolicy } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";

const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass } = process.env;
const nc = await connect({ servers, user, pass, maxReconnectAttempts: -1 });
process.stdout.on("error", (err) => process.exit(err.code === "EPIPE" ? 0 : 1)); // head has seen enough
process.once("SIGINT", () => nc.close());

const show = (l) => console.log(l.deviceId, l.location.dateTime, l.location.latitude, l.location.longitude);

const commands = {
  async latest() {
    const bucket = await new Kvm(nc).open("plaspy_last");
    for await (const entry of await bucket.watch()) show(entry.json());
  },

  async replay(seconds = "3600") {
    const consumer = await jetstream(nc).consumers.get("PLASPY_EVENTS", {
      filter_subjects: "plaspy.location.*",
      deliver_policy: DeliverPolicy.StartTime,
      opt_start_time: new Date(Date.now() - seconds * 1000).toISOString(),
    });
    if ((await consumer.info()).num_pending === 0) return;
    for await (const m of await consumer.consume()) {
      show(m.json());
      if (m.info.pending === 0) return;
    }
  },

  async queue(name = "dashboards") {
    for await (const m of nc.subscribe("plaspy.location.*", { queue: name })) show(m.json());
  },

  async alerts() {
    for await (const m of nc.subscribe("plaspy.alert.*.*")) {
      const a = m.json();
      console.log(a.dateTime, a.deviceId, a.alert, a.state, a.texts ?? []);
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
