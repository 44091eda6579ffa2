// What the methods do to ranks between optimizer steps: step(n, arena) -> events. The package's methods/ explain them.

import { Draws, STREAM } from "./draws.js";
import { addOuter, falling } from "./algebra.js";
import { require } from "./settings.js";

export class ReLoRASchedule {
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

export class AdaLoRASchedule {
  constructor() {
    this.averages = new Map();
  }
  step(n, { layers, settings }) {
    const { steps, tinit, tfinal, deltaT } = settings;
    const t = n - 1;
    const freeze = steps - tfinal;
    if (t < freeze)
      for (const layer of layers) layer.rankScores = layer.ranks.map((rank) => this.score(rank, settings));
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
        if (was !== stays)
          events.push({ step: n, kind: was ? "prune" : "revive", module: layer.index, slot, source: null });
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

export class IncreLoRASchedule {
  constructor(settings, modules) {
    const { steps, r, target_r } = settings;
    this.missing = modules * (target_r - r);
    this.first = settings.init_warmup ?? Math.floor(steps / 10);
    const early = Math.max(0, Math.floor(steps / 2) - this.first);
    this.interval = settings.incre_interval ?? Math.max(1, Math.floor(early / 20));
    const topH =
      settings.top_h ?? Math.max(1, Math.ceil(this.missing / Math.max(1, Math.floor(early / this.interval))));
    this.atOnce = Math.min(topH, modules);
    const growths = Math.floor(Math.max(0, steps - 1 - this.first) / this.interval);
    require(growths * this.atOnce >=
      this.missing, "target_r", target_r, `what ${growths} growths of ${this.atOnce} modules can reach`);
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
    return layers
      .filter((_, k) => best.includes(k))
      .map((layer) => {
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

export class BeamSchedule {
  isEvent(n, { period, steps }) {
    return n % period === 0 && steps - n >= period;
  }
  step(n, { layers, settings }) {
    if (this.isEvent(n + settings.snapshot_lag, settings)) {
      this.snapshot = photograph(layers);
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
        events.push({
          step: n,
          kind: "expand",
          module: layer.index,
          slot,
          source: settings.fill === "fresh" ? null : sources[i],
        });
      });
    });
    this.snapshot = null;
    return events;
  }
}

/** The share of all weight that survives the event after step n. */
function topP(n, { end_step, p_start }) {
  const done = n - 1;
  return done > end_step ? 1 : 1 - ((1 - p_start) * (1 + Math.cos((Math.PI * done) / end_step))) / 2;
}

/** Which ranks fall: those from the first one on at which the running sum passes p of the total. */
export function outside(importances, p, { scope, max_prune_fraction }) {
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

/** Values and moments of every rank of every layer. */
export const photograph = (layers) =>
  layers.map((layer) => layer.ranks.map(({ a, b }) => ({ a: a.snapshot(), b: b.snapshot() })));

/** Puts the old version of each source in its slot; both get the mean of their scores. */
export function copyRanks(layer, slots, sources, old) {
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
export function freshRank(layer, { a, b, w }, draws) {
  a.value.set(layer.freshRow(draws));
  b.value.fill(0);
  for (const param of [a, b, w]) param?.forget();
}

/** Of each rank the vectors and the moments that a copy by hand is to take. */
export function mixed({ vectors = "then", moments = "then" }, now, then) {
  const part = (old, current) => {
    const { m, v } = moments === "now" ? current : old;
    const { value } = vectors === "now" ? current : old;
    return moments === "zero" ? { value, m: m.map(() => 0), v: v.map(() => 0) } : { value, m, v };
  };
  return now.map((rank, i) => ({ a: part(then[i].a, rank.a), b: part(then[i].b, rank.b) }));
}

export function addNoise({ a, b }, scale, draws) {
  for (const { value } of [a, b]) {
    const size = Math.sqrt(value.reduce((sum, x) => sum + x * x, 0) / value.length);
    for (let i = 0; i < value.length; i++) value[i] += scale * size * draws.normal();
  }
}
