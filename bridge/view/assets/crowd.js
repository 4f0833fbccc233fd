// Crowds: if there is no room for the marks of some devices, one disc stands for
// them, with their number, their states as a ring, and the number of alerts.

import { ink } from "./ink.js";
import { drawn } from "./sprites.js";

const cell = 64; // pixels, the side of the square in which devices form a crowd
const least = 9; // devices in one that make a crowd
const loose = 200; // devices in sight that are shown one by one in any case
const turn = 2 * Math.PI;

// gather divides the visible devices into crowds and single ones. The cells keep
// their place on the ground while the map is moved.
export function gather(seen, camera) {
  if (seen.length <= loose) return { crowds: [], alone: seen };
  const cells = new Map(), alone = [], grain = camera.scale / cell;
  for (const d of seen) {
    const key = Math.floor(d.x * grain) * 0x4000000 + Math.floor(d.y * grain);
    const others = cells.get(key);
    if (others) others.push(d);
    else cells.set(key, [d]);
  }
  const crowds = [];
  for (const list of cells.values()) {
    if (list.length < least) alone.push(...list);
    else crowds.push(crowd(list, camera));
  }
  return { crowds: merge(crowds, camera), alone };
}

// crowded returns whether a device may be part of a crowd at a scale.
export function crowded(devices, of, scale) {
  let n = 0;
  for (const d of devices) if (d.seen && Math.abs(d.x - of.x) * scale < cell && Math.abs(d.y - of.y) * scale < cell) n++;
  return n >= least;
}

function crowd(list, camera) {
  const c = { list, n: list.length, x: 0, y: 0, states: {} };
  for (const d of list) {
    c.x += d.x / c.n;
    c.y += d.y / c.n;
    c.states[d.state] = (c.states[d.state] ?? 0) + 1;
  }
  return place(c, camera);
}

function place(c, camera) {
  c.left = camera.x(c.x);
  c.top = camera.y(c.y);
  c.r = 9 + 2.3 * Math.log(c.n);
  return c;
}

// merge joins crowds that would cover one another, the smaller to the larger.
function merge(crowds, camera) {
  const kept = [];
  for (const c of crowds.sort((a, b) => b.n - a.n)) {
    const near = kept.find((k) => Math.hypot(k.left - c.left, k.top - c.top) < k.r + c.r);
    if (!near) {
      kept.push(c);
      continue;
    }
    const n = near.n + c.n;
    near.x = (near.x * near.n + c.x * c.n) / n;
    near.y = (near.y * near.n + c.y * c.n) / n;
    near.n = n;
    near.list = near.list.concat(c.list);
    for (const s in c.states) near.states[s] = (near.states[s] ?? 0) + c.states[s];
    place(near, camera);
  }
  return kept;
}

// drawCrowds draws the largest first, so that none hides a smaller one.
export function drawCrowds(g, crowds) {
  g.textAlign = "center";
  g.textBaseline = "middle";
  for (const c of crowds) {
    g.beginPath();
    g.arc(c.left, c.top, c.r + 1.5, 0, turn);
    g.fillStyle = ink.land;
    g.fill();
    g.beginPath();
    g.arc(c.left, c.top, c.r - 3, 0, turn);
    g.fillStyle = ink.panel;
    g.fill();
    ring(g, c);
    g.fillStyle = ink.text;
    g.font = "600 " + (c.n > 999 ? 11.5 : 12) + "px " + ink.font;
    g.fillText(brief(c.n), c.left, c.top + 0.5);
    if (c.states.alert) badge(g, c);
  }
  g.textAlign = "start";
}

// ring shows the states' shares. A state that needs attention is always large enough to see.
function ring(g, c) {
  const parts = [...drawn].reverse().filter((s) => c.states[s]).map((s) => [s, c.states[s] / c.n]);
  for (const p of parts) if (p[0] === "alert" || p[0] === "trouble") p[1] = Math.max(p[1], 0.07);
  const all = parts.reduce((sum, p) => sum + p[1], 0);
  let from = -Math.PI / 2;
  g.lineWidth = 4;
  for (const [state, share] of parts) {
    const to = from + turn * share / all;
    g.beginPath();
    g.arc(c.left, c.top, c.r - 2, from, to);
    g.strokeStyle = ink[state];
    g.stroke();
    from = to;
  }
}

function badge(g, c) {
  const words = brief(c.states.alert), x = c.left + c.r * 0.72, y = c.top - c.r * 0.72;
  g.font = "700 10px " + ink.font;
  const w = Math.max(8, g.measureText(words).width) + 7;
  g.beginPath();
  g.roundRect(x - w / 2, y - 7.5, w, 15, 7.5);
  g.fillStyle = ink.bad;
  g.fill();
  g.strokeStyle = ink.land;
  g.lineWidth = 1.5;
  g.stroke();
  g.fillStyle = ink.panel;
  g.fillText(words, x, y + 0.5);
}

const brief = (n) => (n < 1000 ? String(n) : (n / 1000).toFixed(n < 9950 ? 1 : 0) + "k");
