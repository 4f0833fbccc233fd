// What is known of one device, and why the bridge treats it as it does.

import { ago, make, place, speed, states, text, until, when } from "./format.js";

const every = 2000;

export class Why {
  constructor(fleet, close, map) {
    const by = (id) => document.getElementById(id);
    Object.assign(this, { fleet, id: "", asked: 0, open: false, before: null });
    Object.assign(this, { box: by("why"), name: by("why-name"), sub: by("why-id"), facts: by("why-facts"), plan: by("why-plan"), list: by("why-decisions") });
    by("why-close").addEventListener("click", close);
    by("why-map").addEventListener("click", () => map(this.id));
    this.rows = {};
    for (const key of ["State", "Speed", "Fix age", "Next poll", "Fix time", "Last poll", "Position", "Alerts"]) {
      this.rows[key] = make("dd");
      this.facts.append(make("dt", "", key), this.rows[key]);
    }
    setInterval(() => {
      if (this.open && !document.hidden) this.ask();
    }, every);
  }

  show(id, focus) {
    if (!this.open) this.before = document.activeElement;
    this.open = true;
    if (this.id !== id) {
      this.id = id;
      text(this.plan, "");
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
    text(r.Position, d.seen ? place(d.lat / 1e5, d.lon / 1e5) : "–");
    text(r["Last poll"], d.polled ? ago(now - d.polled) + " ago" : "not yet");
    text(r["Next poll"], d.next ? until(d.next - now) : "–");
    text(r.Alerts, d.alerts.join(", ") || "none");
  }

  async ask() {
    const id = this.id, mine = ++this.asked;
    try {
      const answer = await fetch("/view/why?device=" + encodeURIComponent(id));
      if (mine !== this.asked || !this.open) return;
      if (!answer.ok) {
        text(this.plan, (await answer.text()).trim());
        this.list.replaceChildren();
        return;
      }
      this.tell(await answer.json());
    } catch {
      if (mine === this.asked) text(this.plan, "The bridge does not answer.");
    }
  }

  tell(why) {
    text(this.plan, why.plan || "–");
    const now = this.fleet.now();
    const key = JSON.stringify(why.decisions);
    if (this.told === key && this.list.childElementCount > 0) return;
    this.told = key;
    this.list.replaceChildren(...(why.decisions ?? []).map((d) => {
      const at = Date.parse(d.at);
      const time = make("time", "", when(at, now));
      time.dateTime = d.at;
      const said = [];
      if (d.fields?.length) said.push(d.fields.join(", "));
      if (d.published) said.push(d.published === 1 ? "1 event published" : d.published + " events published");
      if (d.sequence) said.push("sequence " + d.sequence);
      if (d.id) said.push(d.id);
      if (d.detail) said.push(d.detail);
      return make("li", "", time, make("span", "", d.result), make("span", "faint", said.join(" · ")));
    }));
    if (!why.decisions?.length) this.list.append(make("li", "faint", "none yet"));
  }
}
