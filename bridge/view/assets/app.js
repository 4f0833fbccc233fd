// The page: it connects the parts and the stream of events.

import { Charts } from "./charts.js";
import { Feed, Fleet } from "./feed.js";
import { ago, count, make, mark, setMark, stamp, text, when, zone } from "./format.js";
import { Health } from "./health.js";
import { FleetMap } from "./map.js";
import { Strip } from "./strip.js";
import { Table } from "./table.js";
import { Why } from "./why.js";

const by = (id) => document.getElementById(id);
const fleet = new Fleet();
const table = new Table(fleet, choose);
const map = new FleetMap(fleet, choose);
const charts = new Charts(fleet);
const why = new Why(fleet, () => choose("", false), (id) => map.goto(id));
const health = new Health(fleet, charts);
const strip = new Strip(fleet, () => tab("health", true));
const events = []; // newest first
let loading = true, fitted = false, chosen = "", settled = 0;

// choose selects a device after a click or a key; "" clears the selection.
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

// The numbers at the top: key, singular, plural, hint, and the filter that a click
// sets, or null if it shows the health tab.
const numbers = [
  ["devices", "device", "devices", "Devices that this replica polls", () => table.filterBy("")],
  ["moving", "moving", "moving", "Devices whose newest fix is under an hour old and has 3 km/h or more", () => table.filterBy("moving")],
  ["alert", "with alerts", "with alerts", "Devices with an alert raised now", () => table.filterBy("alert")],
  ["trouble", "in trouble", "in trouble", "Devices whose last poll failed or returned an unusable location", () => table.filterBy("trouble")],
  ["letters", "dead letter", "dead letters", "Inbound messages that could not be posted", null],
  ["replicas", "replica", "replicas", "Bridges that share the devices and the request budget", null],
];
const stats = {};
for (const [key, , many, hint, show] of numbers) {
  const out = stats[key] = { number: make("b"), label: make("span", "", many), box: make("button") };
  out.box.type = "button";
  out.box.title = hint;
  out.box.append(out.number, " ", out.label);
  out.box.addEventListener("click", () => {
    tab(show ? "fleet" : "health");
    show?.();
  });
  by("stats").append(make("li", "", out.box));
}

function stat(key, n, state = "") {
  const [, one, many] = numbers.find((x) => x[0] === key), out = stats[key];
  text(out.number, count(n));
  text(out.label, n === 1 ? one : many);
  out.box.dataset.state = n > 0 ? state : "";
}

// settle updates everything that depends on the fleet or the time.
function settle() {
  if (loading) return;
  settled = performance.now();
  const tally = fleet.settle();
  stat("devices", tally.all);
  stat("moving", tally.moving);
  stat("alert", tally.alert, "bad");
  stat("trouble", tally.trouble, "odd");
  text(by("count-fleet"), count(tally.all));
  const badge = by("count-alerts");
  text(badge, tally.alert ? count(tally.alert) : "");
  badge.dataset.state = tally.alert ? "bad" : "";
  map.tally(tally);
  map.redraw(false);
  table.refresh(false);
  why.draw();
  strip.tally = tally;
  strip.draw();
  drawAlerts();
}

function drawAlerts() {
  if (by("pane-alerts").hidden) return;
  const now = fleet.now(), since = new Map(), raised = [];
  for (const e of events) { // the newest first
    const key = e.id + "\n" + e.alert;
    if (!since.has(key)) since.set(key, e.raised ? e.at : 0);
  }
  for (const d of fleet.devices.values()) for (const alert of d.alerts) raised.push({ d, alert, at: since.get(d.id + "\n" + alert) ?? 0 });
  raised.sort((a, b) => b.at - a.at || b.d.fix - a.d.fix);
  text(by("count-raised"), raised.length ? count(raised.length) : "");
  list(by("raised"), raised.slice(0, 100).map(({ d, alert, at }) => ({
    id: d.id, state: "alert", name: d.title, what: alert, at: at || d.fix,
    time: at ? "raised " + ago(Math.max(0, now - at)) + " ago" : "fix " + ago(now - d.fix) + " old",
  })), raised.length > 100 ? "and " + count(raised.length - 100) + " more; filter the fleet's table to see them" : "", "No alert is raised.");
  list(by("events"), events.map((e) => ({
    id: e.id, state: e.raised ? "alert" : "old", name: e.name || e.id, what: e.alert + (e.raised ? "" : " cleared"), at: e.at, time: when(e.at, now),
  })), "", "No alert was raised or cleared.");
}

// list reuses its rows, so that a focused row keeps the focus.
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
    stamp(t, r.at);
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
    if (!loading && !map.touched && frame.ids) map.fit(false);
  },
  status(s) {
    health.status(s);
    strip.status = s;
    strip.draw();
  },
  sample(s) {
    charts.add(s);
    sampled();
  },
  state(state, words) {
    by("feed").dataset.state = state;
    text(by("feed").lastChild, state === "lost" ? "not connected" : words);
    strip.feed(state, words);
    if (state === "lost") health.lost();
  },
});

function sampled() {
  stat("letters", charts.last("deadLetters"), "odd");
  stat("replicas", charts.last("replicas"));
  health.sampled();
}

text(by("zone"), "times: " + zone());

// Ages grow even while the stream is silent.
setInterval(() => {
  if (performance.now() - settled > 1500) settle();
}, 500);
