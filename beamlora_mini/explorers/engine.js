// The arena's engine: eight methods of low-rank adaptation, trained on a world small enough for a browser.
//
// `simulate` in twin.py is the same run by the Python package, in float64; the tests compare the two. So every
// formula here has its explanation there: in methods/, ranks/ and run.py. Nothing here draws.

import { Draws, STREAM } from "./draws.js";
import { dot, effectiveRank, round, singularValues } from "./algebra.js";
import { complete } from "./settings.js";
import { orthogonality } from "./layer.js";
import { MatrixWorld, PlaneWorld } from "./worlds.js";
import {
  AdaLoRASchedule,
  BeamSchedule,
  IncreLoRASchedule,
  ReLoRASchedule,
  addNoise,
  copyRanks,
  freshRank,
  mixed,
  photograph,
} from "./schedules.js";

/** A run of one method. `step()` makes the next optimizer step; state: n, losses, left, events, history. */
export class Arena {
  constructor(given = {}, edits = []) {
    this.settings = complete(given);
    this.edits = edits;
    this.photos = new Map(); // {copy by hand: what was photographed for it}
    const { method, world, steps } = this.settings;
    this.world = world === "matrix" ? new MatrixWorld(this.settings) : new PlaneWorld(this.settings);
    this.layers = this.world.layers;
    const kinds = {
      ReLoRA: ReLoRASchedule,
      AdaLoRA: AdaLoRASchedule,
      IncreLoRA: IncreLoRASchedule,
      BeamLoRA: BeamSchedule,
    };
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

  /**
   * What the reader does by hand after this step: {step, kind: "prune", "fresh", "copy" or "set", module, slot,
   * source, lag, settings}. A copy is of the source as it was lag steps ago; vectors "now" takes a and b as they
   * are, moments "now" or "zero" what Adam remembers of them; noise: as a share of each vector's root mean square.
   */
  edit() {
    for (const edit of this.edits) {
      if (edit.lag && Math.max(0, edit.step - edit.lag) === this.n) this.photos.set(edit, photograph(this.layers));
    }
    const now = this.edits.filter(({ step }) => step === this.n);
    for (const { settings } of now) Object.assign(this.settings, settings);
    return now
      .filter(({ kind }) => kind !== "set")
      .map((edit) => {
        const { kind, module, slot, source = null } = edit;
        const layer = this.layers[module];
        const target = layer.ranks[slot];
        if (kind === "copy") {
          const now = photograph(this.layers)[module];
          const then = this.photos.get(edit)?.[module] ?? now;
          copyRanks(layer, [slot], [source], mixed(edit, now, then));
          if (edit.noise) addNoise(target, edit.noise, new Draws(layer.seed, STREAM.fresh, module, this.n, slot));
        } else if (kind === "fresh") {
          freshRank(layer, target, new Draws(layer.seed, STREAM.fresh, module, this.n, slot));
        } else {
          for (const param of [target.a, target.b]) param.value.fill(0);
          for (const param of [target.a, target.b, target.w]) param?.forget();
        }
        return { step: this.n, kind: kind === "prune" ? "prune" : "expand", module, slot, source };
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
