// Coasts, borders, countries and cities, read from world.bin; its format is in
// the program that makes it. Positions become those of the Mercator projection,
// 0 to 1 from west to east and from north to south.

import { mercatorX, mercatorY } from "./feed.js";

export async function loadWorld() {
  const answer = await fetch("/view/world.bin");
  if (!answer.ok) throw new Error("world.bin: " + answer.status);
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
    let lon = 0, lat = 0, seam = true;
    for (let i = 0; i < line.length; i += 2) {
      lon += signed();
      lat += signed();
      seam &&= Math.abs(lon) >= 17999 || lat < -8900; // the map's edge is no coast
      line[i] = mercatorX(lon / 100);
      line[i + 1] = mercatorY(lat / 100);
    }
    return { border, seam, line, box: boxOf(line) };
  });
  const rings = [];
  const countries = many(() => {
    const c = { name: name(), ...point(), rank: unsigned() };
    for (const refs of many(() => many(signed))) rings.push(ring(refs, arcs));
    return c;
  });
  const cities = many(() => ({ name: name(), ...point(), rank: unsigned() }));
  return { arcs: arcs.filter((a) => !a.seam), rings, countries, cities };
}

function ring(refs, arcs) {
  const parts = refs.map((ref) => (ref < 0 ? backwards(arcs[~ref].line) : arcs[ref].line));
  const line = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    line.set(p, at);
    at += p.length;
  }
  return { line, box: boxOf(line) };
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
  const box = [1, 1, 0, 0];
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

  // labels go where there is room beside the boxes that are taken, the most
  // important first; it adds theirs.
  labels(g, camera, ink, taken) {
    if (!this.world) return;
    g.textBaseline = "middle";
    g.lineJoin = "round";
    g.strokeStyle = ink.land;
    g.lineWidth = 3;
    const put = (words, x, y, middle) => {
      const key = g.font + words;
      let w = this.widths.get(key);
      if (w === undefined) this.widths.set(key, w = g.measureText(words).width);
      for (const [left, top] of middle ? [[x - w / 2, y]] : [[x + 6, y], [x - w - 6, y], [x - w / 2, y + 12], [x - w / 2, y - 12]]) {
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
      if (at) put(c.name.toUpperCase(), ...at, true);
    }
    g.letterSpacing = "0px";
    g.font = "11px " + ink.font;
    for (const c of this.world.cities) {
      const at = c.rank <= camera.zoom + 0.5 && near(c);
      if (!at || !put(c.name, ...at, false)) continue;
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
