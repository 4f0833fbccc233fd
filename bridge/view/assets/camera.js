// The visible part of the world. Positions on the map are 0 to 1, as in world.js.

export const minZoom = 1, maxZoom = 16;

export class Camera {
  cx = 0.5; cy = 0.45; width = 1; height = 1;
  #zoom = 2;
  scale = 1024; // pixels that the world is wide
  get zoom() { return this.#zoom; }
  set zoom(zoom) {
    this.#zoom = zoom;
    this.scale = 256 * 2 ** zoom;
  }
  x(x) { return (x - this.cx) * this.scale + this.width / 2; }
  y(y) { return (y - this.cy) * this.scale + this.height / 2; }
  box() {
    const w = this.width / 2 / this.scale, h = this.height / 2 / this.scale;
    return [this.cx - w, this.cy - h, this.cx + w, this.cy + h];
  }
  clamp() {
    const least = Math.max(minZoom, Math.log2(Math.min(this.height, this.width) / 256));
    this.zoom = Math.max(least, Math.min(maxZoom, this.zoom));
    const w = Math.min(0.5, this.width / 2 / this.scale), h = Math.min(0.5, this.height / 2 / this.scale);
    this.cx = Math.max(w, Math.min(1 - w, this.cx));
    this.cy = Math.max(h, Math.min(1 - h, this.cy));
  }
}
