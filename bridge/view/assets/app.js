// The page: what belongs where, and what follows from what.

import { Charts } from "./charts.js";
import { Feed, Fleet } from "./feed.js";
import { ago, count, make, mark, setMark, text, when } from "./format.js";
import { Health } from "./health.js";
import { FleetMap } from "./map.js";
import { Table } from "./table.js";
import { Why } from "./why.js";

const by = (id) => document.getElementById(id);
const fleet = new Fleet();
const table = new Table(fleet, choose);
const map = new FleetMap(fleet, choose);
const charts = new Charts(fleet);
const why = new Why(fleet, () => choose("", false), (id) => map.goto(id));
const health = new Health(fleet, charts);
const events = []; // newest first
let loading = true, fitted = false, chosen = "", settled = 0;

// choose is what a click or a key on a device does, anywhere; "" lets go.
function choose(id, explain) {
  chosen = id;
  map.show(id);
  if (!id) {
    why.hide();
    table.show("");
    return;
  }
  if (explain) {
    tab("fleet");
    why.show(id, false);
  } else if (why.open) {
    why.show(id, false);
  }
  table.show(id);
}

const stats = {};
for (const [key, label] of [["devices", "devices"], ["moving", "moving"], ["alert", "with alerts"], ["trouble", "in trouble"], ["letters", "dead letters"], ["replicas", "replicas"]]) {
  stats[key] = make("dd");
  by("stats").append(make("div", "", make("dt", "", label), stats[key]));
}

// settle brings everything that depends on the fleet or the time up to date.
function settle() {
  if (loading) return;
  settled = performance.now();
  const tally = fleet.settle();
  text(stats.devices, count(tally.all));
  text(stats.moving, count(tally.moving));
  text(stats.alert, count(tally.alert));
  stats.alert.parentNode.dataset.state = tally.alert ? "bad" : "";
  text(stats.trouble, count(tally.trouble));
  stats.trouble.parentNode.dataset.state = tally.trouble ? "odd" : "";
  by("count-fleet").textContent = count(tally.all);
  const badge = by("count-alerts");
  text(badge, tally.alert ? count(tally.alert) : "");
  badge.dataset.state = tally.alert ? "bad" : "";
  map.tally(tally);
  map.redraw(false);
  table.refresh(false);
  why.draw();
  drawAlerts();
}

function drawAlerts() {
  if (by("pane-alerts").hidden) return;
  const now = fleet.now();
  const raised = [];
  for (const d of fleet.devices.values()) if (d.alerts.length > 0) raised.push(d);
  raised.sort((a, b) => b.seen - a.seen);
  list(by("raised"), raised.slice(0, 100).map((d) => ({
    id: d.id, state: "alert", name: d.title, what: d.alerts.join(", "), time: "seen " + ago(Math.max(0, now - d.seen)) + " ago",
  })), raised.length > 100 ? "and " + count(raised.length - 100) + " more" : "", "No alert is raised.");
  list(by("events"), events.map((e) => ({
    id: e.id, state: e.raised ? "alert" : "old", name: e.name || e.id, what: e.alert + (e.raised ? "" : " cleared"), time: when(e.at, now),
  })), "", "None was raised or cleared.");
}

// list reuses its rows, so that a focus on one of them stays.
function list(ol, rows, more, none) {
  while (ol.childElementCount > rows.length) ol.lastChild.remove();
  if (ol.querySelector(".none")) ol.replaceChildren();
  rows.forEach((r, i) => {
    let li = ol.children[i];
    if (!li) {
      const button = make("button", "", mark(r.state), make("b"), make("span"), make("time"));
      button.type = "button";
      button.addEventListener("click", () => {
        choose(button.dataset.id, true);
        map.goto(button.dataset.id);
      });
      ol.append(li = make("li", "", button));
    }
    const [m, b, what, t] = li.firstChild.children;
    li.firstChild.dataset.id = r.id;
    setMark(m, r.state);
    text(b, r.name);
    text(what, r.what);
    text(t, r.time);
  });
  if (rows.length === 0) ol.append(make("li", "none", none));
  else if (more) ol.append(make("li", "none", more));
}

const tabs = ["fleet", "alerts", "health"];

function tab(name, focus) {
  for (const t of tabs) {
    const on = t === name, button = by("tab-" + t);
    button.setAttribute("aria-selected", String(on));
    button.tabIndex = on ? 0 : -1;
    by("pane-" + t).hidden = !on;
    if (on && focus) button.focus();
  }
  if (name === "alerts") drawAlerts();
  if (name === "health") health.open();
  if (name !== "fleet") why.hide();
  else table.draw();
}

tabs.forEach((t, i) => {
  by("tab-" + t).addEventListener("click", () => tab(t));
  by("tab-" + t).addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (step) tab(tabs[(i + step + tabs.length) % tabs.length], true);
  });
});
by("ready").addEventListener("click", () => tab("health", true));

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const typing = e.target.matches?.("input, select, textarea");
  if (e.key === "Escape") {
    if (typing && e.target.value) return;
    if (typing) e.target.blur();
    else choose("", false);
  } else if (e.key === "/" && !typing) {
    e.preventDefault();
    tab("fleet");
    by("filter").focus();
  } else if (e.key === "f" && !typing && chosen) {
    map.goto(chosen);
  }
});

new Feed(fleet, {
  hello(h) {
    loading = true;
    health.letters = h.letters;
    events.splice(0, events.length, ...h.alerts.reverse());
    charts.begin(h.columns, h.samples);
    text(by("build"), [h.replica, h.version].filter(Boolean).join(" · "));
    by("build").title = by("build").textContent;
    sampled();
  },
  ready() {
    loading = false;
    settle();
    if (!fitted && fleet.devices.size > 0) {
      fitted = true;
      map.fit(false);
    }
  },
  fleet(frame) {
    for (const e of frame.alerts ?? []) events.unshift(e);
    events.length = Math.min(events.length, 200);
    settle();
    if (!loading && !map.touched && frame.who) map.fit(false);
  },
  status(s) { health.status(s); },
  sample(s) {
    charts.add(s);
    sampled();
  },
  state(state, words) {
    by("feed").dataset.state = state;
    text(by("feed").lastChild, words);
  },
});

function sampled() {
  text(stats.letters, count(charts.last("deadLetters")));
  text(stats.replicas, count(charts.last("replicas")));
  health.sampled();
}

// The ages grow also while the stream is silent.
setInterval(() => {
  if (performance.now() - settled > 1500) settle();
}, 500);
