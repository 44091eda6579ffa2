// What there is to learn: a world has layers, batches, a loss, and says what is left.

import { Draws, STREAM } from "./draws.js";
import { addOuter, dot, frobenius, timesVector, vectorTimes, zeros } from "./algebra.js";
import { Layer, Param } from "./layer.js";

/** A frozen layer, and a hidden change of rank true_rank for the adapter to find. */
export class MatrixWorld {
  constructor(settings) {
    const { size, seed } = settings;
    this.settings = settings;
    const W = new Draws(seed, STREAM.weight).matrix(size, size, "normal", 1 / Math.sqrt(size));
    this.layers = [new Layer(W, new Float64Array(size), 0, settings)];
    this.turn(0);
  }
  /** The k-th hidden change: singular values that fall in a line from 2. */
  turn(k) {
    const { size, true_rank, seed } = this.settings;
    const draws = new Draws(seed, STREAM.change, k);
    const [left, right] = [0, 1].map(() => orthonormal(draws.matrix(true_rank, size, "normal")));
    this.change = zeros(size, size);
    for (let i = 0; i < true_rank; i++) addOuter(this.change, left[i], right[i], (2 * (true_rank - i)) / true_rank);
  }
  batch(n) {
    const { size, batch, noise, seed } = this.settings;
    const draws = new Draws(seed, STREAM.batch, n);
    const x = draws.matrix(batch, size, "normal");
    const [{ W }] = this.layers;
    const y = x.map((row) => {
      const target = timesVector(W, row);
      const more = timesVector(this.change, row);
      return target.map((t, j) => t + more[j] + noise * draws.normal());
    });
    return { x, y };
  }
  forward(x) {
    return this.layers[0].forward(x);
  }
  loss({ x, y }, backward = true) {
    const out = this.forward(x);
    let sum = 0;
    const count = x.length * y[0].length;
    const dy = out.map((row, n) =>
      row.map((value, j) => {
        const off = value - y[n][j];
        sum += off * off;
        return (2 * off) / count;
      }),
    );
    if (backward) this.layers[0].backward(dy);
    return sum / count;
  }
  /** The share of the change that is still missing. */
  left() {
    const delta = this.layers[0].delta();
    const missing = this.change.map((row, i) => row.map((x, j) => x - delta[i][j]));
    return frobenius(missing) / frobenius(this.change);
  }
}

/** Rows made orthonormal, one after the other. */
function orthonormal(rows) {
  rows.forEach((row, i) => {
    for (const other of rows.slice(0, i)) {
      const along = dot(row, other);
      for (let j = 0; j < row.length; j++) row[j] -= along * other[j];
    }
    const norm = Math.sqrt(dot(row, row));
    for (let j = 0; j < row.length; j++) row[j] /= norm;
  });
  return rows;
}

/** Is the point (x, y) of the square from -1 to 1 inside the pattern? */
export function inside(pattern, x, y) {
  if (pattern === "circle") return x * x + y * y < 0.42;
  if (pattern === "corners") return x * y > 0;
  if (pattern === "stripes") return Math.sin(5 * (x + y)) > 0;
  const angle = Math.atan2(y, x) + 5 * Math.sqrt(x * x + y * y);
  return Math.sin(angle) > 0;
}

const PRETRAINING = { steps: 300, batch: 64, lr: 0.01 };

/** A net of four layers, trained on one pattern and frozen; its two middle layers are adapted to another. */
export class PlaneWorld {
  constructor(settings) {
    this.settings = settings;
    const frozen = pretrained(settings);
    this.first = frozen[0];
    this.last = frozen[3];
    this.layers = [1, 2].map((k) => new Layer(frozen[k].W, frozen[k].bias, k - 1, settings));
    this.grid = [];
    for (let i = 0; i < 24; i++) for (let j = 0; j < 24; j++) this.grid.push([(i - 11.5) / 12, (j - 11.5) / 12]);
    this.gridHidden = this.hidden(this.grid);
    this.turn(0);
  }
  /** The pattern to learn; after a switch the one it began with, and so to and fro. */
  turn(k) {
    this.pattern = k % 2 === 0 ? this.settings.pattern : this.settings.base;
    this.wanted = this.grid.map((point) => inside(this.pattern, ...point));
  }
  batch(n) {
    const { batch, noise, seed } = this.settings;
    return drawPoints(new Draws(seed, STREAM.batch, n), batch, this.pattern, noise);
  }
  hidden(x) {
    return x.map((row) => tanh(affine(this.first, row)));
  }
  /** Logits of points of which the first, frozen layer has been computed. */
  forward(hidden) {
    const middle = this.layers[0].forward(hidden).map(tanh);
    const top = this.layers[1].forward(middle).map(tanh);
    this.middle = middle;
    this.top = top;
    return top.map((row) => affine(this.last, row)[0]);
  }
  loss({ x, y }, backward = true) {
    const logits = this.forward(this.hidden(x));
    let sum = 0;
    const dz = logits.map((z, n) => {
      sum += Math.max(z, 0) - z * y[n] + Math.log1p(Math.exp(-Math.abs(z)));
      return (1 / (1 + Math.exp(-z)) - y[n]) / x.length;
    });
    if (backward) {
      const dTop = dz.map((d, n) => this.last.W[0].map((w, j) => d * w * (1 - this.top[n][j] ** 2)));
      const dMiddle = this.layers[1].backward(dTop);
      this.layers[0].backward(dMiddle.map((row, n) => row.map((d, j) => d * (1 - this.middle[n][j] ** 2))));
    }
    return sum / x.length;
  }
  /** The share of a grid of 24 by 24 points that it puts on the wrong side. */
  left() {
    this.surface = this.forward(this.gridHidden);
    return this.surface.filter((z, n) => z > 0 !== this.wanted[n]).length / this.grid.length;
  }
}

function tanh(row) {
  for (let j = 0; j < row.length; j++) row[j] = Math.tanh(row[j]);
  return row;
}
function affine({ W, bias }, row) {
  const y = timesVector(W, row);
  for (let j = 0; j < y.length; j++) y[j] += bias[j];
  return y;
}

function drawPoints(draws, count, pattern, noise) {
  const x = [];
  const y = [];
  for (let n = 0; n < count; n++) {
    const [u, v] = draws.vector(2, "uniform");
    x.push([u + noise * draws.normal(), v + noise * draws.normal()]);
    y.push(inside(pattern, u, v) ? 1 : 0);
  }
  return { x, y };
}

const KEPT = new Map(); // nets that were trained before: a slider that moves asks for the same one again and again

/** The net's four layers {W, bias}, trained on the first pattern. */
function pretrained({ base, seed, size }) {
  const key = `${base} ${seed} ${size}`;
  if (!KEPT.has(key)) {
    const shapes = [
      [size, 2],
      [size, size],
      [size, size],
      [1, size],
    ];
    const net = shapes.map(([out, inside_], k) => {
      const draws = new Draws(seed, STREAM.net, k);
      const rows = Array.from(
        { length: out },
        () => new Param(draws.vector(inside_, "normal", Math.sqrt(1.5 / inside_))),
      );
      return { rows, bias: new Param(new Float64Array(out)) };
    });
    pretrain(net, base, seed);
    KEPT.set(
      key,
      net.map(({ rows, bias }) => ({ W: rows.map((row) => row.value), bias: bias.value })),
    );
    if (KEPT.size > 8) KEPT.delete(KEPT.keys().next().value);
  }
  return KEPT.get(key);
}

/** Trains the whole net on a pattern, in place. */
function pretrain(net, base, seed) {
  const { steps, batch, lr } = PRETRAINING;
  for (let n = 1; n <= steps; n++) {
    const { x, y } = drawPoints(new Draws(seed, STREAM.batch, 1000000 + n), batch, base, 0);
    const seen = [x];
    const plain = net.map(({ rows, bias }) => ({ W: rows.map((row) => row.value), bias: bias.value }));
    plain.forEach((layer, k) => {
      const out = seen[k].map((row) => affine(layer, row));
      seen.push(k < 3 ? out.map(tanh) : out);
    });
    let dy = seen[4].map(([z], n) => [(1 / (1 + Math.exp(-z)) - y[n]) / batch]);
    for (let k = 3; k >= 0; k--) {
      const { rows, bias } = net[k];
      for (const row of rows) row.grad.fill(0);
      bias.grad.fill(0);
      dy.forEach((row, n) =>
        row.forEach((d, j) => {
          bias.grad[j] += d;
          for (let i = 0; i < rows[j].grad.length; i++) rows[j].grad[i] += d * seen[k][n][i];
        }),
      );
      if (k > 0) {
        dy = dy.map((row, n) => Array.from(vectorTimes(row, plain[k].W), (d, i) => d * (1 - seen[k][n][i] ** 2)));
      }
    }
    for (const { rows, bias } of net) for (const param of [...rows, bias]) param.step(lr);
  }
}
