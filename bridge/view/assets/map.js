// The map: the world below, the fleet above, each on its own canvas.

import { Camera, maxZoom, minZoom } from "./camera.js";
import { ago, make, mark, speed, states, text } from "./format.js";
import { ink } from "./ink.js";
import { directions, drawn, makeSprites } from "./sprites.js";
import { Ground, loadWorld } from "./world.js";

const reach = 11; // pixels from a mark that still mean it
const still = matchMedia("(prefers-reduced-motion: reduce)");
const longest = 300; // parts of a path: what a stroke costs grows with their square

export class FleetMap {
  constructor(fleet, choose) {
    Object.assign(this, { fleet, choose, chosen: "", camera: new Camera(), ground: new Ground(), touched: false, flight: 0, sprites: null, dense: window.devicePixelRatio || 1 });
    const by = (id) => document.getElementById(id);
    Object.assign(this, { box: by("map"), base: by("base"), marks: by("marks"), tip: by("tip"), line: by("scale-line"), length: by("scale-text") });
    this.legend(by("legend"));
    this.listen();
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
    }, () => this.redraw(true)); // without outlines the fleet is still to be seen
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
      text(this.counts[state], String(t[state]));
      this.counts[state].parentNode.hidden = t[state] === 0;
    }
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
    if (this.touched || this.fleet.devices.size === 0) {
      this.camera.clamp();
      this.redraw(true);
    } else {
      this.fit(false);
    }
  }

  // fit shows the fleet, but for the few that are far from all others.
  fit(asked) {
    if (asked) this.touched = false;
    const seen = [...this.fleet.devices.values()].filter((d) => d.seen);
    if (seen.length === 0) return this.redraw(true);
    const cut = Math.floor(seen.length / 100);
    const range = (key) => {
      const list = Float64Array.from(seen, (d) => d[key]).sort();
      return [list[cut], list[list.length - 1 - cut]];
    };
    const [west, east] = range("x"), [north, south] = range("y");
    const below = 44; // the legend
    const room = Math.min((this.camera.width - 150) / Math.max(east - west, 1e-9), (this.camera.height - 90 - below) / Math.max(south - north, 1e-9));
    const zoom = Math.min(13, Math.log2(Math.max(room, 1) / 256));
    this.fly((west + east) / 2, (north + south) / 2 + below / 2 / (256 * 2 ** zoom), zoom, asked);
  }

  fly(cx, cy, zoom, gently) {
    cancelAnimationFrame(this.flight);
    const c = this.camera, from = { cx: c.cx, cy: c.cy, zoom: c.zoom };
    const set = (t) => {
      c.zoom = from.zoom + (zoom - from.zoom) * t;
      c.clamp();
      // What is flown to nears the middle evenly on the screen, not on the map.
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

  // goto brings a device into the middle.
  goto(id) {
    const d = this.fleet.byID.get(id);
    if (!d?.seen) return;
    this.touched = true;
    this.fly(d.x, d.y, Math.max(this.camera.zoom, 10), true);
  }

  show(id) {
    this.chosen = id;
    this.redraw(false);
  }

  listen() {
    const at = (e) => [e.offsetX, e.offsetY];
    const down = new Map();
    let moved = 0;
    this.marks.addEventListener("wheel", (e) => {
      e.preventDefault();
      const lines = e.deltaMode === 1 ? 30 : 1;
      this.zoomBy(Math.max(-1, Math.min(1, -e.deltaY * lines / 240)), ...at(e), false);
    }, { passive: false });
    this.marks.addEventListener("pointerdown", (e) => {
      this.marks.setPointerCapture(e.pointerId);
      down.set(e.pointerId, at(e));
      moved = 0;
    });
    this.marks.addEventListener("pointermove", (e) => {
      const last = down.get(e.pointerId), here = at(e);
      if (!last) return this.hover(...here);
      moved += Math.abs(here[0] - last[0]) + Math.abs(here[1] - last[1]);
      if (down.size === 2) this.pinch(down, e.pointerId, here);
      else if (moved > 4) this.pan(here[0] - last[0], here[1] - last[1]);
      if (moved > 4) {
        down.set(e.pointerId, here);
        this.marks.classList.add("drag");
        this.tip.hidden = true;
      }
    });
    const up = (e) => {
      if (down.delete(e.pointerId) && e.type === "pointerup" && moved <= 4) {
        const d = this.near(...at(e));
        this.choose(d ? d.id : "", true);
      }
      this.marks.classList.toggle("drag", down.size > 0);
    };
    this.marks.addEventListener("pointerup", up);
    this.marks.addEventListener("pointercancel", up);
    this.marks.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.marks.addEventListener("dblclick", (e) => this.zoomBy(1, ...at(e)));
    this.marks.addEventListener("keydown", (e) => this.key(e));
  }

  pinch(down, id, here) {
    const other = [...down].find(([key]) => key !== id)[1], last = down.get(id);
    const far = (p) => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
    this.zoomBy(Math.log2(far(here) / far(last)), (here[0] + other[0]) / 2, (here[1] + other[1]) / 2, false);
    down.set(id, here);
  }

  key(e) {
    const step = 80;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key in moves) this.pan(...moves[e.key]);
    else if (e.key === "+" || e.key === "=") this.zoomBy(1);
    else if (e.key === "-") this.zoomBy(-1);
    else if (e.key === "0" || e.key === "Home") this.fit(true);
    else return;
    e.preventDefault();
  }

  near(x, y) {
    let best = null, least = reach * reach;
    for (const d of this.fleet.devices.values()) {
      if (!d.seen) continue;
      const dx = this.camera.x(d.x) - x, dy = this.camera.y(d.y) - y, far = dx * dx + dy * dy;
      if (far <= least && (far < least || drawn.indexOf(d.state) > drawn.indexOf(best.state))) [best, least] = [d, far];
    }
    return best;
  }

  hover(x, y) {
    const d = this.near(x, y);
    this.marks.classList.toggle("over", Boolean(d));
    this.tip.hidden = !d;
    if (!d) return;
    text(this.tip, [d.title, states[d.state].label + (d.speed > 0 ? ", " + speed(d.speed) : ""), "fix " + ago(this.fleet.now() - d.fix) + " old", ...d.alerts].join("\n"));
    const w = this.tip.offsetWidth, h = this.tip.offsetHeight;
    this.tip.style.transform = `translate(${Math.max(4, Math.min(x + 14, this.camera.width - w - 4))}px, ${Math.max(4, Math.min(y + 14, this.camera.height - h - 4))}px)`;
  }

  // redraw draws before the next picture of the screen, the ground only where asked.
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

  // ruler tells a round length that is about as long as 100 pixels.
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
    this.drawTrails(g, seen);
    const size = Math.max(7, Math.min(15, 5 + c.zoom * 0.9)) * (seen.length > 1500 ? 0.72 : seen.length > 300 ? 0.85 : 1);
    if (!this.sprites || this.sprites.size !== Math.round(size)) this.sprites = makeSprites(Math.round(size), this.dense);
    const { cell, sheet } = this.sprites, half = cell / 2, from = Math.round(cell * this.dense);
    const layers = Object.fromEntries(drawn.map((s) => [s, []]));
    for (const d of seen) layers[d.state]?.push(d);
    // Labels of places are above a crowd, but not above what matters; they make
    // room for the few.
    const few = seen.length <= 40;
    const taken = few ? seen.map((d) => [c.x(d.x) - half, c.y(d.y) - half, c.x(d.x) + half, c.y(d.y) + half]) : [];
    if (few) this.ground.labels(g, c, ink, taken);
    g.imageSmoothingEnabled = false;
    for (const state of drawn) {
      g.setTransform(this.dense, 0, 0, this.dense, 0, 0);
      if (state === "alert" && !few) this.ground.labels(g, c, ink, taken);
      const row = drawn.indexOf(state) * from;
      g.setTransform(1, 0, 0, 1, 0, 0);
      const hidden = this.crowd();
      for (const d of layers[state]) {
        if (hidden(c.x(d.x), c.y(d.y))) continue;
        const turn = state === "moving" && !Number.isNaN(d.heading) ? Math.round(d.heading / (2 * Math.PI) * directions + directions) % directions : 0;
        // On whole pixels nothing needs to be smoothed, which is most of the cost.
        g.drawImage(sheet, turn * from, row, from, from, Math.round((c.x(d.x) - half) * this.dense), Math.round((c.y(d.y) - half) * this.dense), from, from);
      }
    }
    g.setTransform(this.dense, 0, 0, this.dense, 0, 0);
    if (few) this.drawNames(g, seen, size, taken);
    this.drawChosen(g, size);
  }

  // crowd tells of a spot whether it was asked for before, give or take two pixels:
  // of marks on top of each other one is enough.
  crowd() {
    const grain = 2.5, wide = Math.ceil(this.camera.width / grain) + 20, taken = new Uint8Array(wide * (Math.ceil(this.camera.height / grain) + 20));
    return (x, y) => {
      const at = (Math.floor(y / grain) + 10) * wide + Math.floor(x / grain) + 10;
      return taken[at] === 1 || !(taken[at] = 1);
    };
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
    g.beginPath();
    g.arc(this.camera.x(d.x), this.camera.y(d.y), size / 2 + 6, 0, 7);
    g.strokeStyle = ink.panel;
    g.lineWidth = 5;
    g.stroke();
    g.strokeStyle = ink.text;
    g.lineWidth = 2;
    g.stroke();
  }
}
