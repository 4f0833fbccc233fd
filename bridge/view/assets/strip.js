// The strip: one line above everything, for trouble that an operator must not miss.

import { ago, count, local, text } from "./format.js";
import { ask } from "./here.js";

const patience = 15e3; // without an answer to any poll while polls are due
const every = 5e3; // between questions for the reason of late polls

export class Strip {
  constructor(fleet, open) {
    const by = (id) => document.getElementById(id);
    Object.assign(this, { fleet, lost: 0, status: null, words: "", held: "", asked: 0 });
    Object.assign(this, { box: by("strip"), what: by("strip-what"), since: by("strip-since"), pill: by("ready") });
    by("strip-more").addEventListener("click", open);
  }

  // feed takes the state of the stream: "good", "wait", or "lost" with the reason.
  feed(state, words) {
    if (state === "lost") this.lost ||= this.fleet.now();
    else if (state === "good") this.lost = 0;
    this.words = words;
    document.body.classList.toggle("lost", this.lost > 0);
    this.draw();
  }

  draw() {
    const [what, since] = this.worst() ?? ["", 0];
    this.box.hidden = !what;
    text(this.what, what);
    text(this.since, what && since > 0 ? "for " + ago(Math.max(0, this.fleet.now() - since)) : "");
  }

  worst() {
    if (this.lost) return ["No connection to the bridge: " + this.words.replace(/\.$/, "") + ". What you see is as it was then.", this.lost];
    const { status: s, tally: t } = this;
    if (!s) return null;
    const stuck = s.hearts.find((h) => !h.ok), failing = s.parts.filter((p) => !p.ok);
    if (stuck) return ["The bridge is stuck: " + stuck.name + " stands still for longer than is normal.", 0];
    if (failing.length > 0) {
      // The first part that failed is most often the cause.
      const first = failing.reduce((a, b) => (Date.parse(b.since) < Date.parse(a.since) ? b : a));
      return ["The bridge is not ready: " + first.name + ", " + (first.reason || "no reason given"), Date.parse(first.since)];
    }
    if (!s.ready) return ["The bridge is not ready.", 0];
    if (t && t.late * 2 > t.all && this.fleet.now() - t.answered > patience) {
      this.inquire(t.waiting);
      return ["No poll has been answered, " + count(t.late) + (t.late === 1 ? " device is" : " devices are") + " overdue"
        + (this.held ? ": " + local(this.held, this.fleet.now()) : ". A device's last decisions show why."), t.answered];
    }
    this.held = "";
    return null;
  }

  // inquire asks for the reason of late polls, for one device on behalf of all.
  async inquire(id) {
    if (performance.now() - this.asked < every) return;
    this.asked = performance.now();
    try {
      this.held = (await (await ask("/view/why?device=" + encodeURIComponent(id))).json()).held ?? "";
    } catch {
      this.held = ""; // another line reports that the bridge does not answer
    }
  }
}
