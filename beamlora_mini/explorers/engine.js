// The arena's engine: eight methods of low-rank adaptation, trained on a world small enough for a browser.
//
// `simulate` in arena.py is the same run by the Python package, in float64; the tests compare the two. So
// every formula here has its explanation there: in methods/, ranks/ and run.py. Nothing here draws.
//
// A matrix is an array of rows, each a Float64Array. A rank is {a (in), b (out), and the number that weighs
// it}, each a Param: value, gradient, and what Adam remembers of it.

// --- numbers by chance, the same in both languages ---

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
const STREAM = { weight: 1, change: 2, batch: 3, start: 4, restart: 5, grow: 6, fresh: 7, net: 8 };

// --- little algebra ---

export const zeros = (rows, columns) => Array.from({ length: rows }, () => new Float64Array(columns));
export const copyOf = (M) => M.map((row) => row.slice());
export const transpose = (M) => Array.from(M[0], (_, j) => Float64Array.from(M, (row) => row[j]));

export function dot(x, y) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
}

/** M += scale * b a^T. */
function addOuter(M, b, a, scale) {
  for (let i = 0; i < b.length; i++) {
    const factor = scale * b[i];
    if (factor !== 0) for (let j = 0; j < a.length; j++) M[i][j] += factor * a[j];
  }
}

function timesVector(M, x) {
  const out = new Float64Array(M.length);
  for (let i = 0; i < out.length; i++) out[i] = dot(M[i], x);
  return out;
}

function vectorTimes(y, M) {
  const out = new Float64Array(M[0].length);
  for (let i = 0; i < y.length; i++) for (let j = 0; j < out.length; j++) out[j] += y[i] * M[i][j];
  return out;
}

export function frobenius(M) {
  return Math.sqrt(M.reduce((sum, row) => sum + dot(row, row), 0));
}

/** Singular values, falling, with their vectors, by Jacobi's rotations of rows: M = sum_k S_k U_k V_k^T. */
export function svd(M) {
  if (M.length > M[0].length) {
    const { U, S, V } = svd(transpose(M));
    return { U: V, S, V: U };
  }
  const rows = copyOf(M);
  const turn = Array.from(M, (_, i) => Float64Array.from(M, (_, j) => (i === j ? 1 : 0)));
  for (let sweep = 0, turned = true; turned && sweep < 60; sweep++) {
    turned = false;
    for (let p = 0; p < rows.length; p++) {
      for (let q = p + 1; q < rows.length; q++) {
        const off = dot(rows[p], rows[q]);
        const [pp, qq] = [dot(rows[p], rows[p]), dot(rows[q], rows[q])];
        if (Math.abs(off) <= 1e-15 * Math.sqrt(pp * qq) || off === 0) continue;
        turned = true;
        const zeta = (qq - pp) / (2 * off);
        const t = (zeta >= 0 ? 1 : -1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const c = 1 / Math.sqrt(1 + t * t);
        for (const of of [rows, turn]) {
          const [x, y] = [of[p], of[q]];
          for (let j = 0; j < x.length; j++) {
            const [xj, yj] = [x[j], y[j]];
            x[j] = c * (xj - t * yj);
            y[j] = c * (yj + t * xj);
          }
        }
      }
    }
  }
  const sizes = rows.map((row) => Math.sqrt(dot(row, row)));
  const order = sizes.map((_, k) => k).sort((p, q) => sizes[q] - sizes[p] || p - q);
  const unit = (row, size) => row.map((x) => (size > 0 ? x / size : 0));
  return {
    U: order.map((k) => turn[k].slice()),
    S: order.map((k) => sizes[k]),
    V: order.map((k) => unit(rows[k], sizes[k])),
  };
}

export const singularValues = (M) => svd(M).S;

/** Exponential of the entropy of the normalized singular values: k equal ones give k. */
export function effectiveRank(values) {
  const total = values.reduce((sum, s) => sum + s, 0);
  if (!(total > 0)) return 0;
  return Math.exp(values.reduce((sum, s) => sum - (s > 0 ? (s / total) * Math.log(s / total) : 0), 0));
}

/** Indices from the largest value on, ties by index. */
const falling = (values) => values.map((_, i) => i).sort((i, j) => values[j] - values[i] || i - j);

/** To the nearest whole number, halves to the even one, as Python rounds. */
function round(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

// --- settings ---

export const METHODS = ["LoRA", "PiSSA", "MiLoRA", "DoRA", "ReLoRA", "AdaLoRA", "IncreLoRA", "BeamLoRA"];
export const PATTERNS = ["circle", "corners", "stripes", "spiral"];
const FILLS = ["history", "now", "fresh"];

const COMMON = {
  method: "LoRA", world: "matrix", size: 16, true_rank: 5, noise: 0.05, base: "circle", pattern: "corners",
  r: 6, alpha: null, lr: 0.02, steps: 200, batch: 32, dead: 0, switches: [], seed: 0,
};
const OWN = {
  ReLoRA: { merge_every: null, restart_warmup: null },
  AdaLoRA: { target_r: null, tinit: null, tfinal: null, deltaT: 10, beta1: 0.85, beta2: 0.85, orth_reg_weight: 0.5 },
  IncreLoRA: {
    target_r: null, top_h: null, init_warmup: null, incre_interval: null, growth_warmup: null, beta1: 0.85,
    beta2: 0.85, orth_reg_weight: 0.5,
  },
  BeamLoRA: {
    temperature: 0.2, period: null, p_start: 0.8, end_step: null, snapshot_lag: null, scope: "global",
    max_prune_fraction: 0.5, fill: "history",
  },
};

const isWhole = (least, most = Infinity) => (x) => Number.isInteger(x) && x >= least && x <= most;
const isNumber = (least, most = Infinity) => (x) => Number.isFinite(x) && x >= least && x <= most;
const above0 = (x) => Number.isFinite(x) && x > 0;
const within = (x) => Number.isFinite(x) && x > 0 && x < 1;
const oneOf = (...names) => (x) => names.includes(x);

const ALLOWED = {
  method: [oneOf(...METHODS), `one of ${METHODS.join(", ")}`],
  world: [oneOf("matrix", "plane"), "matrix or plane"],
  size: [isWhole(2, 64), "an integer from 2 to 64"],
  noise: [isNumber(0), "a number of at least 0"],
  base: [oneOf(...PATTERNS), `one of ${PATTERNS.join(", ")}`],
  pattern: [oneOf(...PATTERNS), `one of ${PATTERNS.join(", ")}`],
  r: [isWhole(1, 64), "an integer from 1 to 64"],
  alpha: [above0, "a number above 0"],
  lr: [above0, "a number above 0"],
  steps: [isWhole(1, 5000), "an integer from 1 to 5000"],
  batch: [isWhole(1, 1024), "an integer from 1 to 1024"],
  seed: [isWhole(0, 4294967295), "an integer from 0 to 4294967295"],
  switches: [(x) => Array.isArray(x) && x.every(isWhole(1)), "a list of steps, from 1"],
  deltaT: [isWhole(1), "an integer of at least 1"],
  beta1: [within, "a number between 0 and 1"],
  beta2: [within, "a number between 0 and 1"],
  orth_reg_weight: [isNumber(0), "a number of at least 0"],
  merge_every: [isWhole(1), "an integer of at least 1"],
  init_warmup: [isWhole(0), "an integer of at least 0"],
  growth_warmup: [isWhole(0), "an integer of at least 0"],
  top_h: [isWhole(1), "an integer of at least 1"],
  incre_interval: [isWhole(1), "an integer of at least 1"],
  tinit: [isWhole(0), "an integer of at least 0"],
  tfinal: [isWhole(1), "an integer of at least 1"],
  temperature: [above0, "a number above 0"],
  period: [isWhole(1), "an integer of at least 1"],
  p_start: [(x) => Number.isFinite(x) && x > 0 && x <= 1, "a number in (0, 1]"],
  end_step: [isWhole(1), "an integer of at least 1"],
  max_prune_fraction: [isNumber(0, 1), "a number from 0 to 1"],
  scope: [oneOf("global", "module"), "global or module"],
  fill: [oneOf(...FILLS), `one of ${FILLS.join(", ")}`],
};

function require(holds, name, value, allowed) {
  if (!holds) throw new RangeError(`${name}=${JSON.stringify(value)}: allowed is ${allowed}`);
}

/** All settings of a run: what is not given takes a default that suits the rest. RangeError, by name, for others. */
export function complete(given = {}) {
  const method = given.method ?? COMMON.method;
  require(METHODS.includes(method), "method", method, `one of ${METHODS.join(", ")}`);
  const all = { ...COMMON, ...(OWN[method] ?? {}) };
  for (const name of Object.keys(given)) {
    require(name in all, name, given[name], `a setting of ${method}: ${Object.keys(all).join(", ")}`);
    if (given[name] !== null && given[name] !== undefined) all[name] = given[name];
  }
  for (const [name, [holds, allowed]] of Object.entries(ALLOWED)) {
    if (name in all && all[name] !== null) require(holds(all[name]), name, all[name], allowed);
  }
  require(isWhole(1, all.size)(all.true_rank), "true_rank", all.true_rank, `an integer from 1 to size = ${all.size}`);
  require(isWhole(0, all.r)(all.dead), "dead", all.dead, `an integer from 0 to r = ${all.r}`);
  if (["PiSSA", "MiLoRA"].includes(method)) {
    require(all.r <= all.size, "r", all.r, `an integer up to ${all.size}, the size of the layer`);
  }
  const { r, steps } = all;
  const suit = (name, value) => (all[name] ??= value);
  suit("alpha", r);
  if (method === "ReLoRA") {
    suit("merge_every", Math.max(1, Math.floor(steps / 4)));
    suit("restart_warmup", Math.min(5, all.merge_every - 1));
    const most = all.merge_every - 1;
    require(isWhole(0, most)(all.restart_warmup), "restart_warmup", all.restart_warmup, `an integer from 0 to ${most}`);
  } else if (method === "AdaLoRA") {
    require(r >= 2, "r", r, "an integer of at least 2, to prune from");
    suit("target_r", Math.max(1, Math.floor(r / 2)));
    suit("tinit", Math.floor(steps / 10));
    suit("tfinal", Math.max(1, Math.floor(steps / 2)));
    require(isWhole(1, r - 1)(all.target_r), "target_r", all.target_r, `an integer from 1 to r - 1 = ${r - 1}`);
    const sum = all.tinit + all.tfinal;
    require(sum < steps, "tinit + tfinal", sum, `less than steps = ${steps}`);
  } else if (method === "IncreLoRA") {
    require(all.dead === 0, "dead", all.dead, "0 for IncreLoRA, which starts small");
    suit("target_r", 2 * r);
    require(isWhole(r + 1)(all.target_r), "target_r", all.target_r, `an integer of at least r + 1 = ${r + 1}`);
  } else if (method === "BeamLoRA") {
    suit("period", Math.max(1, Math.floor(steps / 5)));
    suit("end_step", Math.max(1, Math.floor((2 * steps) / 3)));
    suit("snapshot_lag", all.fill === "now" ? 0 : Math.floor(all.period / 2));
    const most = all.period - 1;
    require(isWhole(0, most)(all.snapshot_lag), "snapshot_lag", all.snapshot_lag, `an integer from 0 to period - 1 = ${most}`);
  }
  return all;
}

// --- Adam, one vector at a time ---

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

function softWeights(scores, temperature) {
  const top = Math.max(...scores);
  const powers = scores.map((s) => Math.exp((s - top) / temperature));
  const mean = powers.reduce((sum, x) => sum + x, 0) / powers.length;
  return powers.map((x) => x / mean);
}

/** Adds what keeps A and B near orthonormal to the gradients; returns the loss it belongs to. */
function orthogonality(layers, weight) {
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

// --- worlds ---

/** A frozen layer, and a hidden change of rank true_rank for the adapter to find. */
class MatrixWorld {
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
    const dy = out.map((row, n) => row.map((value, j) => {
      const off = value - y[n][j];
      sum += off * off;
      return (2 * off) / count;
    }));
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
class PlaneWorld {
  constructor(settings) {
    const { size, seed } = settings;
    this.settings = settings;
    const shapes = [[size, 2], [size, size], [size, size], [1, size]];
    const net = shapes.map(([out, inside_], k) => {
      const draws = new Draws(seed, STREAM.net, k);
      const rows = Array.from({ length: out }, () => new Param(draws.vector(inside_, "normal", Math.sqrt(1.5 / inside_))));
      return { rows, bias: new Param(new Float64Array(out)) };
    });
    pretrain(net, settings);
    const frozen = net.map(({ rows, bias }) => ({ W: rows.map((row) => row.value), bias: bias.value }));
    this.first = frozen[0];
    this.last = frozen[3];
    this.layers = [1, 2].map((k) => new Layer(frozen[k].W, frozen[k].bias, k - 1, settings));
    this.turn(0);
    this.grid = [];
    for (let i = 0; i < 24; i++) for (let j = 0; j < 24; j++) this.grid.push([(i - 11.5) / 12, (j - 11.5) / 12]);
  }
  /** The pattern to learn; after a switch the one it began with, and so to and fro. */
  turn(k) {
    this.pattern = k % 2 === 0 ? this.settings.pattern : this.settings.base;
  }
  batch(n) {
    const { batch, noise, seed } = this.settings;
    return drawPoints(new Draws(seed, STREAM.batch, n), batch, this.pattern, noise);
  }
  hidden(x) {
    return x.map((row) => tanh(affine(this.first, row)));
  }
  forward(x) {
    const middle = this.layers[0].forward(this.hidden(x)).map(tanh);
    const top = this.layers[1].forward(middle).map(tanh);
    this.middle = middle;
    this.top = top;
    return top.map((row) => affine(this.last, row)[0]);
  }
  loss({ x, y }, backward = true) {
    const logits = this.forward(x);
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
    this.surface = this.forward(this.grid);
    return this.surface.filter((z, n) => z > 0 !== inside(this.pattern, ...this.grid[n])).length / this.grid.length;
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

/** Trains the whole net on the first pattern, in place. */
function pretrain(net, { base, seed }) {
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
      dy.forEach((row, n) => row.forEach((d, j) => {
        bias.grad[j] += d;
        for (let i = 0; i < rows[j].grad.length; i++) rows[j].grad[i] += d * seen[k][n][i];
      }));
      if (k > 0) {
        dy = dy.map((row, n) => Array.from(vectorTimes(row, plain[k].W), (d, i) => d * (1 - seen[k][n][i] ** 2)));
      }
    }
    for (const { rows, bias } of net) for (const param of [...rows, bias]) param.step(lr);
  }
}

// --- the methods' schedules: step(n, arena) -> events ---

class ReLoRASchedule {
  constructor(settings) {
    this.settings = settings;
  }
  step(n, { layers, settings }) {
    if (n % settings.merge_every || n >= settings.steps) return [];
    return layers.map((layer) => {
      const draws = new Draws(settings.seed, STREAM.restart, layer.index, n);
      for (const { a, b } of layer.ranks) {
        addOuter(layer.frozen, b.value, a.value, layer.scaling);
        a.value.set(layer.freshRow(draws));
        b.value.fill(0);
        a.forget();
        b.forget();
      }
      return { step: n, kind: "restart", module: layer.index, slot: null, source: null };
    });
  }
}

class AdaLoRASchedule {
  constructor() {
    this.averages = new Map();
  }
  step(n, { layers, settings }) {
    const { steps, tinit, tfinal, deltaT } = settings;
    const t = n - 1;
    const freeze = steps - tfinal;
    if (t < freeze) for (const layer of layers) layer.rankScores = layer.ranks.map((rank) => this.score(rank, settings));
    const due = t === freeze || (tinit < t && t < freeze && t % deltaT === 0);
    const events = due ? this.choose(n, layers, settings) : [];
    if (due || t > freeze) {
      for (const layer of layers) layer.ranks.forEach(({ w }, i) => layer.kept[i] || (w.value[0] = 0));
    }
    return events;
  }
  score({ a, b, w }, settings) {
    const mean = (scores) => scores.reduce((sum, s) => sum + s, 0) / scores.length;
    return mean(this.entries(w, settings)) + mean(this.entries(a, settings)) + mean(this.entries(b, settings));
  }
  entries(param, { beta1, beta2 }) {
    if (!this.averages.has(param)) {
      const fresh = () => new Float64Array(param.value.length);
      this.averages.set(param, { mean: fresh(), uncertainty: fresh() });
    }
    const { mean, uncertainty } = this.averages.get(param);
    return param.value.map((value, i) => {
      const sensitivity = Math.abs(value * param.grad[i]);
      mean[i] += (1 - beta1) * (sensitivity - mean[i]);
      uncertainty[i] += (1 - beta2) * (Math.abs(sensitivity - mean[i]) - uncertainty[i]);
      return mean[i] * uncertainty[i];
    });
  }
  choose(n, layers, settings) {
    const pool = layers.flatMap((layer) => layer.rankScores);
    const kept = new Set(falling(pool).slice(0, adaBudget(n, layers.length, settings)));
    const events = [];
    let at = 0;
    for (const layer of layers) {
      layer.kept = layer.kept.map((was, slot) => {
        const stays = kept.has(at++);
        if (was !== stays) events.push({ step: n, kind: was ? "prune" : "revive", module: layer.index, slot, source: null });
        return stays;
      });
    }
    return events;
  }
}

/** How many ranks all modules together keep after step n. */
export function adaBudget(n, modules, { r, target_r, steps, tinit, tfinal }) {
  const t = n - 1;
  const [first, target] = [modules * r, modules * target_r];
  if (t <= tinit) return first;
  const left = Math.max(0, 1 - (t - tinit) / (steps - tfinal - tinit));
  return Math.floor((first - target) * left ** 3 + target);
}

class IncreLoRASchedule {
  constructor(settings, modules) {
    const { steps, r, target_r } = settings;
    this.missing = modules * (target_r - r);
    this.first = settings.init_warmup ?? Math.floor(steps / 10);
    const early = Math.max(0, Math.floor(steps / 2) - this.first);
    this.interval = settings.incre_interval ?? Math.max(1, Math.floor(early / 20));
    const topH = settings.top_h ?? Math.max(1, Math.ceil(this.missing / Math.max(1, Math.floor(early / this.interval))));
    this.atOnce = Math.min(topH, modules);
    const growths = Math.floor(Math.max(0, steps - 1 - this.first) / this.interval);
    require(growths * this.atOnce >= this.missing, "target_r", target_r, `what ${growths} growths of ${this.atOnce} modules can reach`);
    this.warmup = settings.growth_warmup ?? this.interval;
    this.mean = new Float64Array(modules);
    this.uncertainty = new Float64Array(modules);
  }
  step(n, { layers, settings }) {
    if (this.missing === 0) return [];
    const { beta1, beta2, seed, steps } = settings;
    const scores = layers.map((layer, k) => {
      let sum = 0; // nothing is watched before the first step
      if (n > 1) layer.delta().forEach((row, i) => row.forEach((d, j) => (sum += Math.abs(d * layer.grad[i][j]))));
      const sensitivity = sum / Math.sqrt(layer.out * layer.in);
      this.mean[k] += (1 - beta1) * (sensitivity - this.mean[k]);
      this.uncertainty[k] += (1 - beta2) * (Math.abs(sensitivity - this.mean[k]) - this.uncertainty[k]);
      return this.mean[k] * this.uncertainty[k];
    });
    const since = n - this.first;
    if (since <= 0 || since % this.interval || n >= steps) return [];
    const best = falling(scores).slice(0, Math.min(this.atOnce, this.missing));
    this.missing -= best.length;
    return layers.filter((_, k) => best.includes(k)).map((layer) => {
      const event = { step: n, kind: "grow", module: layer.index, slot: layer.ranks.length - 1, source: null };
      const { w } = layer.ranks.at(-1);
      w.trained = true;
      w.born = n;
      const fresh = layer.small(new Draws(seed, STREAM.grow, layer.index, n), 0);
      fresh.a.born = n;
      fresh.b.born = n;
      layer.ranks.push(fresh);
      layer.reserve();
      return event;
    });
  }
}

class BeamSchedule {
  isEvent(n, { period, steps }) {
    return n % period === 0 && steps - n >= period;
  }
  step(n, { layers, settings }) {
    if (this.isEvent(n + settings.snapshot_lag, settings)) {
      this.snapshot = layers.map((layer) => layer.ranks.map(({ a, b }) => ({ a: a.snapshot(), b: b.snapshot() })));
    }
    return this.isEvent(n, settings) ? this.hold(n, layers, settings) : [];
  }
  hold(n, layers, settings) {
    const p = topP(n, settings);
    const importances = layers.map((layer) => layer.weights());
    const pruned = outside(importances, p, settings);
    const events = [];
    layers.forEach((layer, k) => {
      const slots = importances[k].map((_, i) => i).filter((i) => pruned[k][i]);
      const sources = falling(importances[k]).slice(0, slots.length);
      if (settings.fill === "fresh") {
        const draws = new Draws(settings.seed, STREAM.fresh, layer.index, n);
        for (const slot of slots) freshRank(layer, layer.ranks[slot], draws);
      } else {
        copyRanks(layer, slots, sources, this.snapshot[k]);
      }
      for (const { w } of layer.ranks) w.forget();
      slots.forEach((slot, i) => {
        events.push({ step: n, kind: "expand", module: layer.index, slot, source: sources[i] });
      });
    });
    this.snapshot = null;
    return events;
  }
}

/** The share of all weight that survives the event after step n. */
export function topP(n, { end_step, p_start }) {
  const done = n - 1;
  return done > end_step ? 1 : 1 - ((1 - p_start) * (1 + Math.cos((Math.PI * done) / end_step))) / 2;
}

/** Which ranks fall: those from the first one on at which the running sum passes p of the total. */
function outside(importances, p, { scope, max_prune_fraction }) {
  const none = importances.map((values) => values.map(() => false));
  if (p >= 1) return none;
  const choose = (pool) => {
    const order = falling(pool);
    const sums = [];
    order.reduce((sum, i) => (sums.push(sum + pool[i]), sum + pool[i]), 0);
    const fallen = new Set(order.filter((_, k) => sums[k] > p * sums.at(-1)));
    return pool.map((_, i) => fallen.has(i));
  };
  let masks = importances.map(choose);
  if (scope === "global") {
    const all = choose(importances.flat());
    masks = importances.map((values) => all.splice(0, values.length));
  }
  return masks.map((mask, k) => {
    const most = Math.floor(max_prune_fraction * mask.length);
    if (mask.filter(Boolean).length <= most) return mask;
    const safe = new Set(falling(importances[k]).slice(0, mask.length - most));
    return mask.map((fallen, i) => fallen && !safe.has(i));
  });
}

/** Puts the old version of each source in its slot; both get the mean of their scores. */
function copyRanks(layer, slots, sources, old) {
  const scores = layer.ranks[0].w && layer.settings.method === "BeamLoRA" ? layer.scores() : null;
  slots.forEach((slot, i) => {
    layer.ranks[slot].a.take(old[sources[i]].a);
    layer.ranks[slot].b.take(old[sources[i]].b);
  });
  if (!scores) return;
  const means = slots.map((slot, i) => (scores[slot] + scores[sources[i]]) / 2);
  slots.forEach((slot, i) => (layer.ranks[slot].w.value[0] = means[i]));
  slots.forEach((_, i) => (layer.ranks[sources[i]].w.value[0] = means[i]));
}

/** Starts a rank anew: a by chance, b zero, and Adam knows nothing of it. What weighs it stays. */
function freshRank(layer, { a, b, w }, draws) {
  a.value.set(layer.freshRow(draws));
  b.value.fill(0);
  for (const param of [a, b, w]) param?.forget();
}

// --- a run ---

/** A run of one method. `step()` makes the next optimizer step; state: n, losses, left, events, history. */
export class Arena {
  constructor(given = {}, edits = []) {
    this.settings = complete(given);
    this.edits = edits;
    const { method, world, steps } = this.settings;
    this.world = world === "matrix" ? new MatrixWorld(this.settings) : new PlaneWorld(this.settings);
    this.layers = this.world.layers;
    const kinds = { ReLoRA: ReLoRASchedule, AdaLoRA: AdaLoRASchedule, IncreLoRA: IncreLoRASchedule, BeamLoRA: BeamSchedule };
    this.schedule = kinds[method] ? new kinds[method](this.settings, this.layers.length) : null;
    this.warmup = round(0.05 * steps);
    this.n = 0;
    this.turns = 0;
    this.losses = [];
    this.events = this.edit();
    this.left = [this.world.left()];
    this.sizes = [this.seen()];
    this.before = {}; // {step of an event: what ranks weighed until then}
  }

  /** What each rank of each module weighs: with BeamLoRA by its score, else by the size of what it adds. */
  seen() {
    const beam = this.settings.method === "BeamLoRA";
    return this.layers.map((layer) => (beam ? layer.weights() : layer.sizes()));
  }

  get done() {
    return this.n >= this.settings.steps;
  }

  /** What the learning rate is multiplied by once n steps are done. */
  factor(n) {
    const { method, steps, merge_every, restart_warmup } = this.settings;
    if (method === "ReLoRA" && n >= merge_every && n % merge_every < restart_warmup) {
      const since = n % merge_every;
      return (since / restart_warmup) * this.plainFactor(n - since + restart_warmup, steps);
    }
    return this.plainFactor(n, steps);
  }
  plainFactor(n, steps) {
    if (n < this.warmup) return n / this.warmup;
    const progress = (n - this.warmup) / Math.max(1, steps - this.warmup);
    return 0.5 * (1 + Math.cos(Math.PI * Math.min(1, progress)));
  }

  step() {
    const { method, lr, switches, orth_reg_weight } = this.settings;
    const loss = this.world.loss(this.world.batch(this.n));
    if (method === "AdaLoRA" || method === "IncreLoRA") orthogonality(this.layers, orth_reg_weight);
    const params = this.layers.flatMap((layer) => layer.params());
    const norm = Math.sqrt(params.reduce((sum, { grad }) => sum + dot(grad, grad), 0));
    const clip = Math.min(1, 1 / (norm + 1e-6));
    const rate = lr * this.factor(this.n);
    this.n += 1;
    for (const param of params) {
      for (let i = 0; i < param.grad.length; i++) param.grad[i] *= clip;
      const age = this.n - param.born;
      const young = param.born !== null && age < this.schedule.warmup;
      param.step(young ? (rate * age) / this.schedule.warmup : rate);
    }
    const before = this.seen();
    const events = this.schedule?.step(this.n, this) ?? [];
    events.push(...this.edit());
    if (events.length) this.before[this.n] = before;
    if (switches.includes(this.n)) this.world.turn(++this.turns);
    this.losses.push(loss);
    this.left.push(this.world.left());
    this.events.push(...events);
    this.sizes.push(this.seen());
    return events;
  }

  /** What the reader does by hand after this step: {step, kind: "prune", "copy" or "set", module, slot, source, settings}. */
  edit() {
    const now = this.edits.filter(({ step }) => step === this.n);
    for (const { settings } of now) Object.assign(this.settings, settings);
    return now.filter(({ kind }) => kind !== "set").map(({ kind, module, slot, source = null }) => {
      const layer = this.layers[module];
      const target = layer.ranks[slot];
      if (kind === "copy") {
        copyRanks(layer, [slot], [source], layer.ranks.map(({ a, b }) => ({ a: a.snapshot(), b: b.snapshot() })));
      } else {
        for (const param of [target.a, target.b]) param.value.fill(0);
        for (const param of [target.a, target.b, target.w]) param?.forget();
      }
      return { step: this.n, kind: kind === "copy" ? "expand" : "prune", module, slot, source };
    });
  }

  /** As many steps as it takes to have made n. */
  runTo(n) {
    while (this.n < Math.min(n, this.settings.steps)) this.step();
    return this;
  }

  delta(module = 0) {
    return this.layers[module].delta();
  }
}

/** A whole run: the losses of its batches, what was left at the start and after every step, events, and the end. */
export function simulate(given = {}, edits = []) {
  const arena = new Arena(given, edits);
  arena.runTo(Infinity);
  const values = arena.layers.map((_, k) => singularValues(arena.delta(k)));
  return {
    settings: arena.settings,
    losses: arena.losses,
    left: arena.left,
    events: arena.events,
    sizes: arena.sizes.at(-1),
    singular_values: values,
    effective_rank: values.map(effectiveRank),
  };
}
