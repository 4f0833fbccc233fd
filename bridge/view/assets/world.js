// Coasts, borders, countries and cities, read from world.bin; its format is in
// the program that makes it. Positions become those of the Mercator projection,
// 0 to 1 from west to east and from north to south.

import { mercatorX, mercatorY } from "./feed.js";
import { ask } from "./here.js";

export async function loadWorld() {
  const answer = await ask("/view/world.bin");
  return read(new Uint8Array(await answer.arrayBuffer()));
}

function read(bytes) {
  let at = 0;
  const unsigned = () => {
    let n = 0, shift = 0, b;
    do {
      b = bytes[at++];
      n |= (b & 127) << shift;
      shift += 7;
    } while (b & 128);
    return n >>> 0;
  };
  const signed = () => {
    const n = unsigned();
    return (n >>> 1) ^ -(n & 1);
  };
  const words = new TextDecoder();
  const name = () => {
    const n = unsigned();
    return words.decode(bytes.subarray(at, at += n));
  };
  const many = (one) => Array.from({ length: unsigned() }, one);
  const point = () => ({ x: mercatorX(signed() / 100), y: mercatorY(signed() / 100) });

  const arcs = many(() => {
    const border = unsigned() === 1;
    const line = new Float32Array(2 * unsigned());
    let lon = 0, lat = 0;
    for (let i = 0; i < line.length; i += 2) {
      line[i] = mercatorX((lon += signed()) / 100);
      line[i + 1] = mercatorY((lat += signed()) / 100);
    }
    return { border, line };
  });
  const rings = [];
  const countries = many(() => {
    const c = { name: name(), ...point(), rank: unsigned() };
    for (const refs of many(() => many(signed))) rings.push(...around({ line: ring(refs, arcs) }));
    return c;
  });
  const cities = many(() => ({ name: name(), ...point(), rank: unsigned() }));
  return { arcs: arcs.flatMap(around), rings, countries, cities };
}

// ring joins arcs, each at the end of the one before. The ring around the south pole
// ends a full turn from its beginning, so it is closed below the map.
function ring(refs, arcs) {
  const line = [];
  for (const ref of refs) {
    const part = ref < 0 ? backwards(arcs[~ref].line) : arcs[ref].line;
    const turn = line.length > 0 ? Math.round(line.at(-2) - part[0]) : 0;
    for (let i = 0; i < part.length; i += 2) line.push(part[i] + turn, part[i + 1]);
  }
  if (Math.abs(line.at(-2) - line[0]) > 0.5) line.push(line.at(-2), 2, line[0], 2);
  return Float32Array.from(line);
}

// around returns a line, and the part of it beyond one edge of the map at the other edge.
function around(shape) {
  const line = shape.line, [west, , east] = boxOf(line);
  return [0, west < 0 ? 1 : 0, east > 1 ? -1 : 0].filter((turn, i) => i === 0 || turn !== 0).map((turn) => {
    const moved = turn === 0 ? line : line.map((v, i) => (i % 2 === 0 ? v + turn : v));
    return { ...shape, line: moved, box: boxOf(moved) };
  });
}

function backwards(line) {
  const turned = new Float32Array(line.length);
  for (let i = 0; i < line.length; i += 2) {
    turned[i] = line[line.length - 2 - i];
    turned[i + 1] = line[line.length - 1 - i];
  }
  return turned;
}

function boxOf(line) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < line.length; i += 2) {
    box[0] = Math.min(box[0], line[i]);
    box[1] = Math.min(box[1], line[i + 1]);
    box[2] = Math.max(box[2], line[i]);
    box[3] = Math.max(box[3], line[i + 1]);
  }
  return box;
}

// Ground draws the world on a canvas for a camera.
export class Ground {
  world = null;
  widths = new Map(); // of labels, which are drawn again and again

  draw(g, camera, ink) {
    const { width, height } = camera;
    g.fillStyle = ink.sea;
    g.fillRect(0, 0, width, height);
    this.mesh(g, camera, ink);
    if (!this.world) return;
    const seen = camera.box();
    const inside = ({ box }) => box[0] < seen[2] && box[2] > seen[0] && box[1] < seen[3] && box[3] > seen[1];
    // One by one: a path of everything costs many times as much.
    g.fillStyle = ink.land;
    for (const r of this.world.rings) {
      if (!inside(r)) continue;
      g.beginPath();
      trace(g, camera, r.line, true);
      g.fill();
    }
    if (camera.zoom >= 5) this.mesh(g, camera, ink);
    for (const border of [true, false]) {
      g.strokeStyle = border ? ink.border : ink.coast;
      g.lineWidth = border ? 1 : 0.9;
      for (const a of this.world.arcs) {
        if (a.border !== border || !inside(a)) continue;
        g.beginPath();
        trace(g, camera, a.line, false);
        g.stroke();
      }
    }
  }

  // mesh is the net of meridians and parallels, the finer the closer.
  mesh(g, camera, ink) {
    const step = [30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002].find((s) => s / 360 * camera.scale < 190) ?? 0.002;
    const [west, north, east, south] = camera.box();
    g.beginPath();
    for (let lon = Math.ceil((west - 0.5) * 360 / step) * step; lon <= (east - 0.5) * 360; lon += step) {
      const x = Math.round(camera.x(mercatorX(lon))) + 0.5;
      g.moveTo(x, 0);
      g.lineTo(x, camera.height);
    }
    for (let lat = Math.ceil(latitude(south) / step) * step; lat <= latitude(north); lat += step) {
      const y = Math.round(camera.y(mercatorY(lat))) + 0.5;
      g.moveTo(0, y);
      g.lineTo(camera.width, y);
    }
    g.strokeStyle = ink.mesh;
    g.lineWidth = 1;
    g.stroke();
  }

  // labels places the names of cities that fit beside the boxes already taken, the most
  // important first, and adds their boxes. The name of a city below a crowd is beside
  // the crowd.
  labels(g, camera, ink, taken, crowds) {
    if (!this.world) return;
    g.textBaseline = "middle";
    g.lineJoin = "round";
    g.strokeStyle = ink.land;
    g.lineWidth = 3;
    const put = (words, x, y, gap) => {
      const key = g.font + words;
      let w = this.widths.get(key);
      if (w === undefined) this.widths.set(key, w = g.measureText(words).width);
      for (const [left, top] of !gap ? [[x - w / 2, y]] : [[x + gap, y], [x - w - gap, y], [x - w / 2, y + gap + 6], [x - w / 2, y - gap - 6]]) {
        const box = [left - 2, top - 7, left + w + 2, top + 7];
        if (taken.some((t) => t[0] < box[2] && t[2] > box[0] && t[1] < box[3] && t[3] > box[1])) continue;
        taken.push(box);
        g.strokeText(words, left, top);
        g.fillText(words, left, top);
        return true;
      }
      return false;
    };
    const near = (p) => {
      const x = camera.x(p.x), y = camera.y(p.y);
      return x > -60 && y > -20 && x < camera.width + 60 && y < camera.height + 20 ? [x, y] : null;
    };
    g.font = "600 11px " + ink.font;
    g.letterSpacing = "1.5px";
    g.fillStyle = ink.place;
    for (const c of this.world.countries) {
      const at = c.rank <= camera.zoom && camera.zoom < c.rank + 4 && near(c);
      if (at) put(c.name.toUpperCase(), ...at, 0);
    }
    g.letterSpacing = "0px";
    g.font = "11px " + ink.font;
    for (const c of this.world.cities) {
      const at = c.rank <= camera.zoom + 0.5 && near(c);
      if (!at) continue;
      const below = crowds.find((k) => Math.hypot(k.left - at[0], k.top - at[1]) < k.r + 4);
      if (below) put(c.name, below.left, below.top, below.r + 5);
      if (below || !put(c.name, ...at, 6)) continue;
      g.beginPath();
      g.arc(...at, 1.8, 0, 7);
      g.fill();
    }
  }
}

const latitude = (y) => Math.atan(Math.sinh((0.5 - y) * 2 * Math.PI)) * 180 / Math.PI;

// trace leaves out points that fall on the one before.
function trace(g, camera, line, closed) {
  const { scale } = camera;
  const dx = camera.x(0), dy = camera.y(0);
  let lastX = line[0] * scale + dx, lastY = line[1] * scale + dy;
  g.moveTo(lastX, lastY);
  for (let i = 2; i < line.length; i += 2) {
    const x = line[i] * scale + dx, y = line[i + 1] * scale + dy;
    if (Math.abs(x - lastX) + Math.abs(y - lastY) < 1 && i < line.length - 2) continue;
    g.lineTo(x, y);
    lastX = x;
    lastY = y;
  }
  if (closed) g.closePath();
}
