// The stream of events, and the state of the fleet made from it.

import { ask, here } from "./here.js";
import { late } from "./format.js";

const trailAge = 15 * 60e3;
const trailStep = 15e3;
const trailPoints = 48;
const stalled = 12e3; // the bridge sends an event every second

export class Fleet {
  devices = new Map(); // by slot
  byID = new Map();
  names = 0; // changes whenever names do
  skew = 0;

  // now is the bridge's clock, in Unix milliseconds.
  now() { return Date.now() + this.skew; }

  clear() {
    this.devices.clear();
    this.byID.clear();
    this.names++;
  }

  take(frame) {
    this.skew = frame.now - Date.now();
    for (const slot of frame.gone ?? []) {
      const d = this.devices.get(slot);
      this.devices.delete(slot);
      if (d && this.byID.get(d.id) === d) this.byID.delete(d.id);
      this.names++;
    }
    for (const [slot, id, name] of frame.ids ?? []) {
      let d = this.devices.get(slot);
      if (!d) {
        d = { slot, id, name, fix: 0, seen: 0, lat: 0, lon: 0, x: 0, y: 0, speed: -1, alerts: [], trail: [],
          polled: 0, next: 0, result: "", reason: "", failures: 0, state: "none", heading: NaN };
        this.devices.set(slot, d);
        this.byID.set(id, d);
      }
      d.name = name;
      d.title = name || id;
      d.search = (name + "\n" + id).toLowerCase();
      this.names++;
    }
    for (const [slot, lat, lon, fix, seen, speed, alerts] of frame.fix ?? []) {
      const d = this.devices.get(slot);
      if (!d) continue;
      const moved = lat !== d.lat || lon !== d.lon || !d.seen;
      Object.assign(d, { lat, lon, fix, seen, speed, alerts });
      if (moved) this.walk(d, seen, lat, lon);
    }
    for (const [slot, polled, next, result, reason, failures] of frame.poll ?? []) {
      const d = this.devices.get(slot);
      if (d) Object.assign(d, { polled, next, result, reason, failures });
    }
  }

  trails(list) {
    for (const [slot, ...numbers] of list) {
      const d = this.devices.get(slot);
      if (!d) continue;
      d.trail = [];
      let at = 0, lat = 0, lon = 0;
      for (let i = 0; i + 2 < numbers.length; i += 3) {
        this.walk(d, at += numbers[i], lat += numbers[i + 1], lon += numbers[i + 2]);
      }
    }
  }

  walk(d, at, lat, lon) {
    const spot = { at, x: mercatorX(lon / 1e5), y: mercatorY(lat / 1e5) };
    const last = d.trail.at(-1);
    if (last && (last.x !== spot.x || last.y !== spot.y)) {
      d.heading = Math.atan2(spot.x - last.x, last.y - spot.y);
    }
    d.x = spot.x;
    d.y = spot.y;
    // Spots are some time apart, but for the newest.
    if (d.trail.length > 1 && last.at - d.trail.at(-2).at < trailStep) d.trail.pop();
    d.trail.push(spot);
    while (d.trail.length > trailPoints) d.trail.shift();
  }

  // settle gives each device its state at this moment and forgets old trails. It
  // counts the states and returns the number of late polls, one of
  // them, and the time of the last answer.
  settle() {
    const now = this.now();
    const tally = { all: this.devices.size, alert: 0, trouble: 0, moving: 0, parked: 0, old: 0, none: 0, late: 0, answered: 0, waiting: "" };
    for (const d of this.devices.values()) {
      while (d.trail.length > 1 && d.trail[0].at < now - trailAge) d.trail.shift();
      d.state = stateOf(d, now);
      tally[d.state]++;
      if (d.next && now - d.next > late) {
        tally.late++;
        tally.waiting = d.id;
      }
      if (d.polled > tally.answered && answered(d)) tally.answered = d.polled;
    }
    return tally;
  }
}

// answered returns whether a device's last poll was answered. A poll that is put off sent no request.
const answered = (d) => d.failures === 0 && d.result !== "error" && d.result !== "deferred";

function stateOf(d, now) {
  if (d.alerts.length > 0) return "alert";
  if (d.failures > 0 || d.result === "error" || d.result === "unusable") return "trouble";
  if (!d.seen && !d.fix) return "none";
  if (now - Math.max(d.fix, d.seen) > 3600e3) return "old";
  if (d.speed >= 30) return "moving";
  if (d.speed < 0 && d.trail.length > 1 && now - d.trail.at(-1).at < 120e3) return "moving";
  return "parked";
}

export const mercatorX = (lon) => lon / 360 + 0.5;

export function mercatorY(lat) {
  const s = Math.sin(Math.max(-85, Math.min(85, lat)) * Math.PI / 180);
  return 0.5 - Math.log((1 + s) / (1 - s)) / (4 * Math.PI);
}

// Feed opens the stream, and opens it again when it breaks. A hidden tab closes it
// after a while, to leave its place to others.
export class Feed {
  constructor(fleet, on) {
    Object.assign(this, { fleet, on, tries: 0, heard: 0, source: null, timer: 0 });
    document.addEventListener("visibilitychange", () => this.seen());
    setInterval(() => this.watch(), 1000);
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.source?.close();
    const source = this.source = new EventSource(here("/view/events"));
    this.heard = Date.now();
    const event = (name, f) => source.addEventListener(name, (e) => {
      this.heard = Date.now();
      f(JSON.parse(e.data));
    });
    event("hello", (h) => {
      this.fleet.clear();
      this.fleet.skew = h.now - Date.now();
      this.on.hello(h);
    });
    event("fleet", (frame) => {
      this.fleet.take(frame);
      this.on.fleet(frame);
    });
    event("trails", (list) => this.fleet.trails(list));
    event("status", this.on.status);
    event("sample", this.on.sample);
    event("ready", () => {
      this.tries = 0;
      this.on.state("good", "live");
      this.on.ready();
    });
    source.addEventListener("error", () => {
      if (source !== this.source) return;
      const refused = source.readyState === EventSource.CLOSED;
      this.retry("the stream broke");
      if (refused) this.inquire();
    });
  }

  // inquire finds out why the stream was refused: an EventSource does not report it. The
  // browser asks for a name and password by itself if they are missing.
  async inquire() {
    const tries = this.tries, stop = new AbortController();
    try {
      await ask("/view/events", { signal: stop.signal });
    } catch (e) {
      if (tries === this.tries && !this.source) this.on.state("lost", e.message);
    }
    stop.abort(); // this request does not read the stream
  }

  // retry opens the stream again, because EventSource gives up after a refusal.
  retry(what) {
    this.source?.close();
    this.source = null;
    const wait = Math.min(1000 * 2 ** this.tries++, 15000) * (0.75 + Math.random() / 2);
    this.on.state("lost", what + "; trying again");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), wait);
  }

  watch() {
    if (this.source && !document.hidden && Date.now() - this.heard > stalled) this.retry("nothing is heard from it");
  }

  seen() {
    clearTimeout(this.timer);
    if (!document.hidden) {
      if (!this.source) this.open();
      return;
    }
    this.timer = setTimeout(() => {
      this.source?.close();
      this.source = null;
      this.on.state("wait", "paused");
    }, 60e3);
  }
}
