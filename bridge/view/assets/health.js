// The health of the bridge: parts, loops, facts, dead letters.

import { ago, count, figure, make, span, stamp, text, when, zone } from "./format.js";
import { ask } from "./here.js";

const by = (id) => document.getElementById(id);

export class Health {
  letters = false; // can be listed
  known = null; // the last status

  constructor(fleet, charts) {
    Object.assign(this, { fleet, charts });
    setInterval(() => {
      if (!by("pane-health").hidden) this.times();
    }, 1000);
  }

  status(s) {
    this.known = s;
    const failing = s.parts.filter((p) => !p.ok), odd = s.parts.filter((p) => p.degraded), stuck = s.hearts.filter((h) => !h.ok);
    const pill = by("ready");
    pill.dataset.state = failing.length + stuck.length > 0 || !s.ready ? "bad" : odd.length > 0 ? "odd" : "good";
    const first = failing[0] ?? odd[0];
    text(pill.lastElementChild, stuck.length > 0 ? "Not live: " + stuck[0].name : !s.ready ? "Not ready" + (first ? ": " + first.name : "")
      : first ? "Ready, degraded: " + first.name : "Ready");
    pill.title = first?.reason ?? "";
    const badge = by("count-health"), n = failing.length + odd.length + stuck.length;
    text(badge, n ? String(n) : "");
    badge.dataset.state = n === 0 ? "" : failing.length + stuck.length > 0 ? "bad" : "odd";
    document.title = (s.ready ? "" : "! ") + "plaspy-bridge";
    const worst = [...s.parts].sort((a, b) => rank(a) - rank(b));
    by("parts").replaceChildren(...worst.map((p) => {
      const time = make("time");
      stamp(time, Date.parse(p.since));
      return make("li", "", sign(!p.ok ? "bad" : p.degraded ? "odd" : "good"), make("b", "", p.name), make("span", "", p.reason || "ok"), time);
    }));
    by("hearts").replaceChildren(...s.hearts.map((h) => make("li", "", sign(h.ok ? "good" : "bad"), make("b", "", h.name),
      make("span", "", !h.ok ? "no progress for too long" : h.idle ? "nothing to do" : "makes progress"), make("small"))));
    if (s.hearts.length === 0) by("hearts").append(make("li", "faint", "No loop is watched."));
    this.times();
    this.facts();
  }

  // lost is called when the connection to the bridge is lost.
  lost() {
    by("ready").dataset.state = "unknown";
    by("ready").title = "";
    text(by("ready").lastElementChild, "Unknown");
  }

  times() {
    const now = this.fleet.now();
    for (const t of by("parts").querySelectorAll("time")) text(t, t.dateTime ? "for " + ago(Math.max(0, now - Date.parse(t.dateTime))) : "");
  }

  sampled() {
    this.facts();
    const dead = this.charts.last("deadLetters"), badge = by("count-letters");
    text(badge, dead > 0 ? count(dead) : "");
    badge.dataset.state = dead > 0 ? "odd" : "";
    if (this.dead !== dead) {
      this.dead = dead;
      if (!by("pane-health").hidden) this.read();
    }
  }

  facts() {
    const last = (key) => this.charts.last(key);
    const rows = (this.known?.facts ?? []).map((f) => [f.name, f.value]);
    rows.push(
      ["Devices", count(last("devices")) + ", of which this replica polls " + count(last("replicaDevices"))],
      ["Replicas", count(last("replicas"))],
      ["A poll takes", "half of them less than " + span(last("poll50")) + ", 95% less than " + span(last("poll95")) + ", over a minute"],
      ["Inbound waiting", count(last("pending")) + (last("retried") > 0 ? ", " + figure(last("retried")) + " retries a second" : "")],
    );
    const skew = this.fleet.skew / 1000;
    rows.push(["Times of day", zone() + (Math.abs(skew) < 2 ? "" : "; the bridge's clock is " + span(skew) + (skew > 0 ? " ahead of" : " behind") + " this browser's")]);
    by("facts").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
  }

  open() {
    this.times();
    this.read();
  }

  async read() {
    const note = by("letters-note"), dead = this.charts.last("deadLetters");
    const hint = "plaspy-bridge dlq list shows all of them, dlq replay posts them again.";
    if (!(dead > 0)) {
      by("letters").replaceChildren();
      text(note, dead === 0 ? "None." : "Unknown.");
      return;
    }
    text(note, hint);
    if (!this.letters) return;
    let list;
    try {
      list = await (await ask("/view/letters")).json();
    } catch (e) {
      text(note, e.message + " " + hint);
      return;
    }
    text(note, (list.length < dead ? "The newest " + count(list.length) + ". " : "") + hint);
    by("letters").replaceChildren(...list.map((l) => {
      const time = make("time", "", when(Date.parse(l.at), this.fleet.now()));
      stamp(time, Date.parse(l.at));
      return make("li", "", make("span", "", "#" + l.sequence), make("b", "", (l.device || "no device") + " — " + l.kind), time,
        make("p", "", l.reason + (l.attempts ? ", " + (l.attempts === 1 ? "1 attempt" : l.attempts + " attempts") : "") + (l.error ? ": " + l.error : "")));
    }));
  }
}

const rank = (part) => (part.ok ? (part.degraded ? 1 : 2) : 0);

function sign(state) {
  const i = make("i", "", { good: "✓", odd: "!", bad: "✕" }[state]);
  i.dataset.state = state;
  i.setAttribute("aria-label", { good: "ok", odd: "needs attention", bad: "not ok" }[state]);
  i.setAttribute("role", "img");
  return i;
}
