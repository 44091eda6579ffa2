// A frozen layer and its adapter. A rank is {a (in), b (out), and w, the number that weighs it}, each a Param:
// value, gradient, and what Adam remembers of it.

import { Draws, STREAM } from "./draws.js";
import { addOuter, copyOf, dot, frobenius, svd, timesVector, vectorTimes, zeros } from "./algebra.js";

export class Param {
  constructor(value) {
    this.value = value;
    this.grad = new Float64Array(value.length);
    this.m = new Float64Array(value.length);
    this.v = new Float64Array(value.length);
    this.t = 0;
    this.born = null; // the step it grew at, if it grew
    this.trained = true;
  }
  /** AdamW's step without weight decay. */
  step(lr) {
    this.t += 1;
    const [c1, c2] = [1 - 0.9 ** this.t, Math.sqrt(1 - 0.999 ** this.t)];
    for (let i = 0; i < this.value.length; i++) {
      this.m[i] += 0.1 * (this.grad[i] - this.m[i]);
      this.v[i] = 0.999 * this.v[i] + 0.001 * this.grad[i] * this.grad[i];
      this.value[i] -= ((lr / c1) * this.m[i]) / (Math.sqrt(this.v[i]) / c2 + 1e-8);
    }
  }
  forget() {
    this.m.fill(0);
    this.v.fill(0);
  }
  /** Values and moments, as they are now. */
  snapshot() {
    return { value: this.value.slice(), m: this.m.slice(), v: this.v.slice() };
  }
  take(old) {
    this.value.set(old.value);
    this.m.set(old.m);
    this.v.set(old.v);
  }
}

const number = (x) => new Param(Float64Array.of(x));

// --- a frozen layer and its adapter ---

/** y = V x + bias, V = W (less what the adapter starts with, and the rounds so far) + s B diag(w) A; DoRA stretches its rows. */
export class Layer {
  constructor(W, bias, index, settings) {
    this.W = W;
    this.bias = bias;
    this.index = index; // of the module
    this.settings = settings;
    this.frozen = copyOf(W); // what the update is added to
    const { method, alpha, r, target_r } = settings;
    this.scaling = alpha / (method === "IncreLoRA" ? target_r : r);
    this.ranks = [];
    this.start();
    this.grad = null;
  }

  get out() {
    return this.W.length;
  }
  get in() {
    return this.W[0].length;
  }
  get seed() {
    return this.settings.seed;
  }

  start() {
    const { method, r, dead } = this.settings;
    const draws = new Draws(this.seed, STREAM.start, this.index);
    if (method === "AdaLoRA" || method === "IncreLoRA") {
      const count = method === "IncreLoRA" ? r + 1 : r;
      for (let i = 0; i < count; i++) this.ranks.push(this.small(draws, 0));
      if (method === "IncreLoRA") this.reserve();
    } else if (method === "PiSSA" || method === "MiLoRA") {
      const { U, S, V } = svd(this.W);
      const first = method === "PiSSA" ? 0 : S.length - r;
      for (let k = first; k < first + r; k++) {
        const root = Math.sqrt(S[k] / this.scaling);
        this.ranks.push({ a: new Param(V[k].map((x) => root * x)), b: new Param(U[k].map((x) => root * x)) });
      }
    } else {
      for (let i = 0; i < r; i++) {
        this.ranks.push({ a: new Param(this.freshRow(draws)), b: new Param(new Float64Array(this.out)) });
      }
    }
    if (method === "BeamLoRA") for (const rank of this.ranks) rank.w = number(0);
    if (method === "AdaLoRA") this.kept = this.ranks.map(() => true);
    if (method === "DoRA") this.magnitude = this.W.map((row) => number(Math.sqrt(dot(row, row))));
    for (const rank of this.ranks.slice(r - dead, r)) {
      rank.a.value.fill(0);
      rank.b.value.fill(0);
    }
    if (method === "PiSSA" || method === "MiLoRA") {
      for (const { a, b } of this.ranks) addOuter(this.frozen, b.value, a.value, -this.scaling);
    }
  }

  freshRow(draws) {
    return draws.vector(this.in, "uniform", 1 / Math.sqrt(this.in));
  }
  small(draws, e) {
    const a = new Param(draws.vector(this.in, "normal", 0.02));
    return { a, b: new Param(draws.vector(this.out, "normal", 0.02)), w: number(e) };
  }
  /** The last rank's E is fixed: it is in reserve. */
  reserve() {
    const { w } = this.ranks.at(-1);
    w.value[0] = 1e-5;
    w.trained = false;
  }

  /** What weighs each rank. */
  weights() {
    if (this.settings.method !== "BeamLoRA") return this.ranks.map((rank) => (rank.w ? rank.w.value[0] : 1));
    return softWeights(this.scores(), this.settings.temperature);
  }
  scores() {
    return this.ranks.map((rank) => rank.w.value[0]);
  }
  /** s |w| |a| |b| of each rank: what it adds. The reserve is left out. */
  sizes() {
    const weights = this.weights();
    const norm = (x) => Math.sqrt(dot(x, x));
    const all = this.ranks.map(({ a, b }, i) => this.scaling * Math.abs(weights[i]) * norm(a.value) * norm(b.value));
    return this.settings.method === "IncreLoRA" ? all.slice(0, -1) : all;
  }

  /** The weight it acts with; with DoRA before the stretch. */
  whole() {
    const V = copyOf(this.frozen);
    const weights = this.weights();
    this.ranks.forEach(({ a, b }, i) => addOuter(V, b.value, a.value, this.scaling * weights[i]));
    return V;
  }
  stretch(V) {
    return this.magnitude?.map((m, j) => m.value[0] / Math.sqrt(dot(V[j], V[j])));
  }
  adapted() {
    const V = this.whole();
    const c = this.stretch(V);
    return c ? V.map((row, j) => row.map((x) => c[j] * x)) : V;
  }
  delta() {
    return this.adapted().map((row, i) => row.map((x, j) => x - this.W[i][j]));
  }

  /** x: rows (batch, in); returns (batch, out). */
  forward(x) {
    this.x = x;
    this.V = this.whole();
    this.c = this.stretch(this.V);
    return x.map((row) => {
      const y = timesVector(this.V, row);
      for (let j = 0; j < y.length; j++) y[j] = y[j] * (this.c ? this.c[j] : 1) + this.bias[j];
      return y;
    });
  }

  /** Gradients of all that is trained, from that of the outputs; returns that of the inputs. */
  backward(dy) {
    const G = zeros(this.out, this.in); // by the stretched weight
    dy.forEach((row, n) => addOuter(G, row, this.x[n], 1));
    this.grad = G;
    if (this.magnitude) {
      this.magnitude.forEach((m, j) => (m.grad[0] = (dot(G[j], this.V[j]) * this.c[j]) / m.value[0]));
    }
    const GV = this.c ? G.map((row, j) => row.map((g) => g * this.c[j])) : G;
    const weights = this.weights();
    const dw = this.ranks.map(({ a, b }, i) => {
      const Ga = timesVector(GV, a.value);
      const bG = vectorTimes(b.value, GV);
      const factor = this.scaling * weights[i];
      for (let j = 0; j < Ga.length; j++) b.grad[j] = factor * Ga[j];
      for (let j = 0; j < bG.length; j++) a.grad[j] = factor * bG[j];
      return this.scaling * dot(b.value, Ga);
    });
    if (this.settings.method === "BeamLoRA") {
      const mean = dot(dw, weights) / weights.length;
      this.ranks.forEach(({ w }, i) => (w.grad[0] = (weights[i] * (dw[i] - mean)) / this.settings.temperature));
    } else {
      this.ranks.forEach(({ w }, i) => w && (w.grad[0] = dw[i]));
    }
    const back = this.c ? this.V.map((row, j) => row.map((v) => v * this.c[j])) : this.V;
    return dy.map((row) => vectorTimes(row, back));
  }

  params() {
    const own = this.ranks.flatMap(({ a, b, w }) => (w ? [a, b, w] : [a, b]));
    return own.concat(this.magnitude ?? []).filter((param) => param.trained);
  }
}

export function softWeights(scores, temperature) {
  const top = Math.max(...scores);
  const powers = scores.map((s) => Math.exp((s - top) / temperature));
  const mean = powers.reduce((sum, x) => sum + x, 0) / powers.length;
  return powers.map((x) => x / mean);
}

/** Adds what keeps A and B near orthonormal to the gradients; returns the loss it belongs to. */
export function orthogonality(layers, weight) {
  let sum = 0;
  const share = weight / (2 * layers.length);
  for (const layer of layers) {
    for (const part of ["a", "b"]) {
      const vectors = layer.ranks.map((rank) => rank[part]);
      const gram = vectors.map((x) => Float64Array.from(vectors, (y) => dot(x.value, y.value)));
      gram.forEach((row, i) => (row[i] -= 1));
      const norm = frobenius(gram);
      sum += norm;
      if (norm === 0) continue;
      vectors.forEach((x, i) => {
        vectors.forEach((y, j) => {
          const factor = (2 * share * gram[i][j]) / norm;
          for (let k = 0; k < x.grad.length; k++) x.grad[k] += factor * y.value[k];
        });
      });
    }
  }
  return share * sum;
}
