// The marks of devices, drawn beforehand.

import { states } from "./format.js";
import { ink } from "./ink.js";

export const directions = 32; // that a moving device may have
export const drawn = ["old", "parked", "moving", "trouble", "alert"]; // the last on top

// makeSprites draws every mark once: ten thousand copies are cheap, ten thousand
// paths are not.
export function makeSprites(size, dense) {
  const cell = Math.round((size + 6) * dense) / dense; // whole pixels
  const sheet = new OffscreenCanvas(Math.ceil(cell * dense * directions), Math.ceil(cell * dense * drawn.length));
  const g = sheet.getContext("2d");
  drawn.forEach((state, row) => {
    for (let turn = 0; turn < (state === "moving" ? directions : 1); turn++) {
      g.setTransform(dense, 0, 0, dense, (turn + 0.5) * cell * dense, (row + 0.5) * cell * dense);
      g.rotate(turn / directions * 2 * Math.PI);
      g.scale(size / 12, size / 12);
      g.translate(-6, -6);
      const path = new Path2D(states[state].path), hollow = state === "old" || state === "trouble";
      g.lineJoin = "round";
      g.strokeStyle = ink.land;
      g.lineWidth = hollow ? 4.5 : 2.6;
      g.stroke(path);
      g.fillStyle = g.strokeStyle = ink[state];
      g.lineWidth = 2;
      if (hollow) g.stroke(path);
      else g.fill(path);
    }
  });
  // Copies from a bitmap are cheap; a canvas would be checked for changes each time.
  return { size, cell, sheet: sheet.transferToImageBitmap() };
}
