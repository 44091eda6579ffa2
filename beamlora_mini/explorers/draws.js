// Numbers by chance, the same in JavaScript and in Python (twin.py).

/** A 32-bit mix of whole numbers (the finalizer of murmur3 after each). */
export function mix(...parts) {
  let h = 0x9e3779b9;
  for (const part of parts) {
    h = Math.imul(h ^ part, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h ^= h >>> 16;
  }
  return h >>> 0;
}

/** Draws of one stream: mulberry32, and normal numbers by Box and Muller. */
export class Draws {
  constructor(...stream) {
    this.state = mix(...stream);
  }
  uniform() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  normal() {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }
  vector(n, kind, scale = 1) {
    const draw = kind === "normal" ? () => scale * this.normal() : () => scale * (2 * this.uniform() - 1);
    return Float64Array.from({ length: n }, draw);
  }
  matrix(rows, columns, kind, scale = 1) {
    return Array.from({ length: rows }, () => this.vector(columns, kind, scale));
  }
}

// The streams: what a draw is for is the number after the seed.
export const STREAM = { weight: 1, change: 2, batch: 3, start: 4, restart: 5, grow: 6, fresh: 7, net: 8 };
