// The map: the world below, the fleet above, each on its own canvas.

import { Camera, maxZoom, minZoom } from "./camera.js";
import { crowded, drawCrowds, gather } from "./crowd.js";
import { ago, count, make, mark, speed, states, text } from "./format.js";
import { handle } from "./hands.js";
import { ink } from "./ink.js";
import { directions, drawn, makeSprites } from "./sprites.js";
import { Ground, loadWorld } from "./world.js";

const reach = 11; // pixels from a mark that still select it
const still = matchMedia("(prefers-reduced-motion: reduce)");
const longest = 300; // parts of a path: the cost of a stroke grows with their square

export class FleetMap {
  constructor(fleet, choose) {
    Object.assign(this, { fleet, choose, chosen: "", camera: new Camera(), ground: new Ground(), touched: false, flight: 0, sprites: null, crowds: [], alone: [], covered: [], pointer: null, dense: window.devicePixelRatio || 1 });
    const by = (id) => document.getElementById(id);
    Object.assign(this, { box: by("map"), base: by("base"), marks: by("marks"), tip: by("tip"), line: by("scale-line"), length: by("scale-text") });
    this.legend(by("legend"));
    handle(this);
    by("zoom-in").addEventListener("click", () => this.zoomBy(1));
    by("zoom-out").addEventListener("click", () => this.zoomBy(-1));
    by("zoom-fit").addEventListener("click", () => this.fit(true));
    new ResizeObserver(() => this.resize()).observe(this.box);
    ink.changed(() => {
      this.sprites = null;
      this.redraw(true);
    });
    loadWorld().then((world) => {
      this.ground.world = world;
      this.redraw(true);
    }, () => this.redraw(true)); // without outlines the fleet is still visible
  }

  legend(list) {
    this.counts = {};
    for (const [state, s] of Object.entries(states)) {
      this.counts[state] = make("b");
      list.append(make("li", "", mark(state), s.label + " ", this.counts[state]));
    }
  }

  tally(t) {
    for (const state in this.counts) {
      text(this.counts[state], count(t[state]));
      this.counts[state].parentNode.hidden = t[state] === 0;
    }
    this.cover();
  }

  // cover records the elements above the map, which would hide labels.
  cover() {
    this.covered = [...this.box.querySelectorAll(".legend, .zoom, .scale, .source")].filter((e) => e.offsetWidth > 0)
      .map((e) => [e.offsetLeft - 4, e.offsetTop - 4, e.offsetLeft + e.offsetWidth + 4, e.offsetTop + e.offsetHeight + 4]);
  }

  resize() {
    const { clientWidth, clientHeight } = this.box;
    if (!clientWidth || !clientHeight) return;
    const dense = window.devicePixelRatio || 1;
    for (const c of [this.base, this.marks]) {
      c.width = Math.round(clientWidth * dense);
      c.height = Math.round(clientHeight * dense);
    }
    this.dense = dense;
    this.camera.width = clientWidth;
    this.camera.height = clientHeight;
    this.sprites = null;
    this.cover();
    if (this.touched || this.fleet.devices.size === 0) {
      this.camera.clamp();
      this.redraw(true);
    } else {
      this.fit(false);
    }
  }

  // fit shows the fleet, except for the few devices that are far from all others.
  fit(asked) {
    if (asked) this.touched = false;
    const seen = [...this.fleet.devices.values()].filter((d) => d.seen);
    if (seen.length === 0) return this.redraw(true);
    const cut = Math.floor(seen.length / 100);
    const range = (key) => {
      const list = Float64Array.from(seen, (d) => d[key]).sort();
      return [list[cut], list[list.length - 1 - cut]];
    };
    this.frame(range("x"), range("y"), 13, asked);
  }

  // frame shows a part of the world, no closer than a zoom.
  frame([west, east], [north, south], closest, gently) {
    const below = 44; // the legend
    const room = Math.min((this.camera.width - 150) / Math.max(east - west, 1e-9), (this.camera.height - 90 - below) / Math.max(south - north, 1e-9));
    const zoom = Math.min(closest, Math.log2(Math.max(room, 1) / 256));
    this.fly((west + east) / 2, (north + south) / 2 + below / 2 / (256 * 2 ** zoom), zoom, gently);
  }

  // open zooms in to a crowd until its devices are shown one by one.
  open(crowd) {
    this.touched = true;
    let [west, north, east, south] = [1, 1, 0, 0];
    for (const d of crowd.list) [west, north, east, south] = [Math.min(west, d.x), Math.min(north, d.y), Math.max(east, d.x), Math.max(south, d.y)];
    this.frame([west, east], [north, south], maxZoom, true);
  }

  fly(cx, cy, zoom, gently) {
    cancelAnimationFrame(this.flight);
    const c = this.camera, from = { cx: c.cx, cy: c.cy, zoom: c.zoom };
    const set = (t) => {
      c.zoom = from.zoom + (zoom - from.zoom) * t;
      c.clamp();
      // The target of a flight nears the middle evenly on the screen, not on the map.
      const k = t === 1 || zoom === from.zoom ? t : (1 - 2 ** ((from.zoom - c.zoom))) / (1 - 2 ** (from.zoom - zoom));
      c.cx = from.cx + (cx - from.cx) * k;
      c.cy = from.cy + (cy - from.cy) * k;
      c.clamp();
      this.redraw(true);
    };
    if (!gently || still.matches) return set(1);
    const start = performance.now(), takes = 350;
    const step = (now) => {
      const t = Math.max(0, Math.min(1, (now - start) / takes));
      set(t * t * (3 - 2 * t));
      if (t < 1) this.flight = requestAnimationFrame(step);
    };
    this.flight = requestAnimationFrame(step);
  }

  // leave hides the tip of the device under the pointer.
  leave() {
    this.tip.hidden = true;
    this.pointer = null;
  }

  zoomBy(levels, x = this.camera.width / 2, y = this.camera.height / 2, gently = true) {
    const c = this.camera;
    this.touched = true;
    const zoom = Math.max(minZoom, Math.min(maxZoom, c.zoom + levels));
    const k = 1 / c.scale - 1 / (256 * 2 ** zoom);
    this.fly(c.cx + (x - c.width / 2) * k, c.cy + (y - c.height / 2) * k, zoom, gently);
  }

  pan(dx, dy) {
    const c = this.camera;
    cancelAnimationFrame(this.flight);
    this.touched = true;
    c.cx -= dx / c.scale;
    c.cy -= dy / c.scale;
    c.clamp();
    this.redraw(true);
  }

  // goto moves a device into the middle.
  goto(id) {
    const d = this.fleet.byID.get(id);
    if (!d?.seen) return;
    this.touched = true;
    let zoom = Math.max(this.camera.zoom, 10);
    while (zoom < maxZoom && crowded(this.fleet.devices.values(), d, 256 * 2 ** zoom)) zoom += 0.5;
    this.fly(d.x, d.y, Math.min(zoom, maxZoom), true);
  }

  show(id) {
    this.chosen = id;
    this.redraw(false);
  }

  crowdAt(x, y) { return this.crowds.find((c) => Math.hypot(c.left - x, c.top - y) <= c.r); }

  near(x, y) {
    let best = null, least = reach * reach;
    for (const d of this.alone) {
      const dx = this.camera.x(d.x) - x, dy = this.camera.y(d.y) - y, far = dx * dx + dy * dy;
      if (far <= least && (far < least || drawn.indexOf(d.state) > drawn.indexOf(best.state))) [best, least] = [d, far];
    }
    return best;
  }

  // hover shows the device at a spot. It is called again whenever devices may have moved.
  hover([x, y]) {
    const crowd = this.crowdAt(x, y), d = crowd ? null : this.near(x, y);
    this.marks.classList.toggle("over", Boolean(crowd || d));
    this.tip.hidden = !crowd && !d;
    if (this.tip.hidden) return;
    if (crowd) text(this.tip, [count(crowd.n) + " devices", ...Object.keys(states).filter((s) => crowd.states[s]).map((s) => states[s].label + " " + count(crowd.states[s]))].join("\n"));
    else text(this.tip, [d.title, states[d.state].label + (d.speed > 0 ? ", " + speed(d.speed) : ""), "fix " + ago(this.fleet.now() - d.fix) + " old", ...d.alerts].join("\n"));
    const w = this.tip.offsetWidth, h = this.tip.offsetHeight;
    this.tip.style.transform = `translate(${Math.max(4, Math.min(x + 14, this.camera.width - w - 4))}px, ${Math.max(4, Math.min(y + 14, this.camera.height - h - 4))}px)`;
  }

  // redraw draws before the next frame. It draws the ground only if asked.
  redraw(ground) {
    this.stale ||= ground;
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      if (this.stale) this.drawGround();
      this.stale = false;
      this.drawFleet();
    });
  }

  drawGround() {
    const g = this.base.getContext("2d", { alpha: false });
    g.setTransform(this.dense, 0, 0, this.dense, 0, 0);
    this.ground.draw(g, this.camera, ink);
    this.ruler();
  }

  // ruler returns a round length that is about 100 pixels long.
  ruler() {
    const c = this.camera;
    const metres = 40075017 / c.scale / Math.cosh((0.5 - c.cy) * 2 * Math.PI);
    const most = metres * 110, power = 10 ** Math.floor(Math.log10(most));
    const round = [5, 2, 1].find((n) => n * power <= most) * power;
    text(this.length, round >= 1000 ? (round / 1000).toLocaleString("en") + " km" : round + " m");
    this.line.style.width = Math.round(round / metres) + "px";
  }

  drawFleet() {
    const g = this.marks.getContext("2d"), c = this.camera;
    g.setTransform(this.dense, 0, 0, this.dense, 0, 0);
    g.clearRect(0, 0, c.width, c.height);
    const [west, north, east, south] = c.box(), edge = 20 / c.scale;
    const seen = [];
    for (const d of this.fleet.devices.values()) {
      if (d.seen && d.x > west - edge && d.x < east + edge && d.y > north - edge && d.y < south + edge) seen.push(d);
    }
    const { crowds, alone } = gather(seen, c);
    Object.assign(this, { crowds, alone });
    this.drawTrails(g, alone);
    const size = Math.max(7, Math.min(15, 5 + c.zoom * 0.9)) * (alone.length > 300 ? 0.85 : 1);
    if (!this.sprites || this.sprites.size !== Math.round(size)) this.sprites = makeSprites(Math.round(size), this.dense);
    // Names of places are below the devices, and make room for them and their names.
    const half = this.sprites.cell / 2, few = crowds.length === 0 && seen.length <= 40;
    const taken = [...this.covered, ...crowds.map((k) => [k.left - k.r, k.top - k.r, k.left + k.r, k.top + k.r])];
    if (alone.length <= 200) for (const d of alone) taken.push([c.x(d.x) - half, c.y(d.y) - half, c.x(d.x) + half, c.y(d.y) + half]);
    this.ground.labels(g, c, ink, taken, crowds);
    this.drawMarks(g, alone);
    this.drawChosen(g, size);
    drawCrowds(g, crowds);
    if (few) this.drawNames(g, alone, size, taken);
    if (this.pointer) this.hover(this.pointer);
  }

  drawMarks(g, list) {
    const { cell, sheet } = this.sprites, c = this.camera, half = cell / 2, from = Math.round(cell * this.dense);
    const layers = Object.fromEntries(drawn.map((s) => [s, []]));
    for (const d of list) layers[d.state]?.push(d);
    g.imageSmoothingEnabled = false;
    g.setTransform(1, 0, 0, 1, 0, 0);
    for (const [row, state] of drawn.entries()) {
      for (const d of layers[state]) {
        const turn = state === "moving" && !Number.isNaN(d.heading) ? Math.round(d.heading / (2 * Math.PI) * directions + directions) % directions : 0;
        // On whole pixels nothing needs to be smoothed, which is most of the cost.
        g.drawImage(sheet, turn * from, row * from, from, from, Math.round((c.x(d.x) - half) * this.dense), Math.round((c.y(d.y) - half) * this.dense), from, from);
      }
    }
    g.setTransform(this.dense, 0, 0, this.dense, 0, 0);
  }

  drawTrails(g, seen) {
    const now = this.fleet.now(), c = this.camera;
    g.lineWidth = 1.6;
    g.lineJoin = "round";
    g.strokeStyle = ink.accent;
    const ages = [[0, 120e3, 0.75], [120e3, 360e3, 0.42], [360e3, 900e3, 0.2]];
    for (const [young, old, alpha] of ages) {
      g.globalAlpha = alpha;
      g.beginPath();
      let parts = 0;
      for (const d of seen) {
        const t = d.trail;
        if (t.length < 2 || now - t.at(-1).at >= old || Math.abs(t[0].x - d.x) + Math.abs(t[0].y - d.y) < 6 / c.scale) continue;
        let open = false;
        for (let i = 1; i < t.length; i++) {
          const age = now - t[i].at;
          if (age < young || age >= old) {
            open = false;
            continue;
          }
          if (!open) g.moveTo(c.x(t[i - 1].x), c.y(t[i - 1].y));
          g.lineTo(c.x(t[i].x), c.y(t[i].y));
          open = true;
          parts++;
        }
        if (parts > longest) {
          g.stroke();
          g.beginPath();
          parts = 0;
        }
      }
      g.stroke();
    }
    g.globalAlpha = 1;
  }

  drawNames(g, seen, size, taken) {
    g.font = "600 12px " + ink.font;
    g.textBaseline = "middle";
    g.lineJoin = "round";
    g.lineWidth = 3.5;
    g.strokeStyle = ink.land;
    g.fillStyle = ink.text;
    for (const d of seen) {
      const words = d.title.length > 28 ? d.title.slice(0, 27) + "…" : d.title;
      const w = g.measureText(words).width, x = this.camera.x(d.x), y = this.camera.y(d.y), gap = size / 2 + (d.id === this.chosen ? 11 : 5);
      for (const [left, top] of [[x + gap, y], [x - gap - w, y], [x - w / 2, y - gap - 5], [x - w / 2, y + gap + 5]]) {
        const box = [left, top - 7, left + w, top + 7];
        if (left < 2 || left + w > this.camera.width - 2) continue;
        if (taken.some((t) => t[0] < box[2] && t[2] > box[0] && t[1] < box[3] && t[3] > box[1])) continue;
        taken.push(box);
        g.strokeText(words, left, top);
        g.fillText(words, left, top);
        break;
      }
    }
  }

  drawChosen(g, size) {
    const d = this.fleet.byID.get(this.chosen);
    if (!d?.seen) return;
    // In a crowd it has no mark of its own.
    const crowd = this.crowds.find((c) => c.list.includes(d));
    g.beginPath();
    if (crowd) g.arc(crowd.left, crowd.top, crowd.r + 4, 0, 7);
    else g.arc(this.camera.x(d.x), this.camera.y(d.y), size / 2 + 6, 0, 7);
    g.strokeStyle = ink.panel;
    g.lineWidth = 5;
    g.stroke();
    g.strokeStyle = ink.text;
    g.lineWidth = 2;
    g.stroke();
  }
}
