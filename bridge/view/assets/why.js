// The details of one device, and the bridge's last decisions on it.

import { ago, local, make, place, speed, stamp, states, text, until, when } from "./format.js";
import { ask, Refused } from "./here.js";

const every = 2000;

export class Why {
  constructor(fleet, close, map) {
    const by = (id) => document.getElementById(id);
    Object.assign(this, { fleet, id: "", asked: 0, open: false, before: null });
    Object.assign(this, { box: by("why"), name: by("why-name"), sub: by("why-id"), facts: by("why-facts"), plan: by("why-plan"), held: by("why-held"), control: by("why-control"), list: by("why-decisions") });
    by("why-close").addEventListener("click", close);
    by("why-map").addEventListener("click", () => map(this.id));
    this.rows = {};
    for (const key of ["State", "Speed", "Fix age", "Next poll", "Fix time", "Last poll", "Position", "Alerts"]) {
      this.rows[key] = make("dd");
      this.facts.append(make("dt", "", key), this.rows[key]);
    }
    setInterval(() => {
      if (this.open && !document.hidden && fleet.byID.has(this.id)) this.ask();
    }, every);
  }

  show(id, focus) {
    if (!this.open) this.before = document.activeElement;
    this.open = true;
    if (this.id !== id) {
      this.id = id;
      text(this.plan, "");
      this.held.hidden = true;
      this.list.replaceChildren();
      this.ask();
    }
    this.box.hidden = false;
    this.draw();
    if (focus) this.box.focus({ preventScroll: true });
  }

  hide() {
    if (!this.open) return;
    const inside = this.box.contains(document.activeElement);
    this.open = false;
    this.id = "";
    this.box.hidden = true;
    if (inside) this.before?.focus?.();
  }

  draw() {
    if (!this.open) return;
    const d = this.fleet.byID.get(this.id);
    text(this.name, d ? d.title : this.id);
    text(this.sub, d ? "id " + d.id : "not polled by this replica any more");
    if (!d) return;
    const now = this.fleet.now(), r = this.rows;
    text(r.State, states[d.state].label);
    text(r.Speed, speed(d.speed));
    text(r["Fix age"], d.fix ? ago(now - d.fix) : "–");
    text(r["Fix time"], when(d.fix, now));
    r["Fix time"].title = d.fix ? new Date(d.fix).toISOString() : "";
    text(r.Position, d.seen ? place(d.lat / 1e5, d.lon / 1e5) : "–");
    text(r["Last poll"], d.polled ? ago(now - d.polled) + " ago" : "not yet");
    text(r["Next poll"], d.next ? until(d.next - now) : "–");
    text(r.Alerts, d.alerts.join(", ") || "none");
  }

  async ask() {
    const id = this.id, mine = ++this.asked;
    try {
      const why = await (await ask("/view/why?device=" + encodeURIComponent(id))).json();
      if (mine === this.asked && this.open) this.showAnswer(why);
    } catch (e) {
      if (mine !== this.asked) return;
      text(this.plan, e.message);
      this.held.hidden = this.control.hidden = true;
      if (e instanceof Refused) this.list.replaceChildren();
    }
  }

  showAnswer(why) {
    const now = this.fleet.now();
    text(this.plan, local(why.plan || "–", now));
    this.held.hidden = !why.held;
    text(this.held, why.held ? "Held back: " + local(why.held, now) : "");
    this.control.hidden = !why.control?.length;
    this.control.replaceChildren(...(why.control ?? []).map((c) => make("li", "", make("code", "", c.entry), ": " + rule(c) + ", set "
      + (c.setBy ? "by " + c.setBy + " " : "") + when(Date.parse(c.setAt), now))));
    const key = JSON.stringify(why.decisions);
    if (this.told === key && this.list.childElementCount > 0) return;
    this.told = key;
    this.list.replaceChildren(...(why.decisions ?? []).map((d) => {
      const at = Date.parse(d.at);
      const time = make("time", "", when(at, now));
      stamp(time, at);
      const said = [];
      if (d.published) said.push(d.published === 1 ? "1 event" : d.published + " events");
      if (d.sequence) said.push("sequence " + d.sequence);
      if (d.detail) said.push(d.detail);
      const told = make("div");
      if (Array.isArray(d.fields)) told.append(make("p", "", ...d.fields.map((f) => make("code", "", String(f)))));
      const line = make("p", "faint", said.join(" · "));
      if (d.id) line.append(said.length > 0 ? " · " : "", make("small", "", d.id));
      told.append(line);
      const result = make("span", "", d.result.replaceAll("_", " ") + (d.times > 1 ? " ×" + d.times : ""));
      if (d.times > 1) result.title = d.times + " consecutive polls, the last one at that time";
      if (d.result === "error" || d.result === "unusable") result.className = "late";
      return make("li", "", time, result, told);
    }));
    if (!why.decisions?.length) this.list.append(make("li", "faint", "none yet"));
  }
}

// rule puts an entry of live control in words.
function rule(c) {
  const said = [];
  if (c.paused !== undefined) said.push(c.paused ? "paused" : "not paused");
  if (c.interval) said.push("interval " + c.interval);
  if (c.weight) said.push("weight " + c.weight);
  if (c.rateLimit) said.push("rate limit " + c.rateLimit + " a minute");
  if (c.devices) said.push("devices " + (c.devices.join(", ") || "all"));
  if (c.devicesExclude) said.push("without " + c.devicesExclude.join(", "));
  if (c.until) said.push("until " + c.until);
  return said.join(", ");
}
