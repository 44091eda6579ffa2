// A recorded run as the explorer reads it: explore.py packs a RankHistory so.

import { numbersOf } from "./numbers.js";

/** {steps, losses, modules: [{name, label, block, kind}], ranks, importance, before, events, info} unpacked. */
export class Record {
  constructor({ importance, before, pools, ...facts }) {
    Object.assign(this, facts);
    this.size = this.modules.length * this.ranks;
    const all = numbersOf(importance);
    this.rows = this.steps.map((_, place) => all.subarray(place * this.size, (place + 1) * this.size)); // of each step
    this.before = Object.fromEntries(Object.entries(before).map(([step, text]) => [step, numbersOf(text)]));
    this.pools = Object.fromEntries(
      Object.entries(pools).map(([step, pool]) => [step, { ...pool, values: numbersOf(pool.values) }]),
    );
  }
  get eventSteps() {
    return [...new Set(this.events.map(({ step }) => step))].sort((x, y) => x - y);
  }
  /** The step at which the run ends, or is planned to. */
  get last() {
    return this.total ?? this.steps.at(-1);
  }
  /** Takes over what was recorded since: a part of a run, packed in the same way. */
  extend(more) {
    const next = new Record({ ...more, modules: this.modules });
    for (const name of ["steps", "losses", "rows", "events"]) this[name].push(...next[name]);
    Object.assign(this.before, next.before);
    Object.assign(this.pools, next.pools);
  }
  /** The place of the last recorded step that is not after `step`. */
  placeOf(step) {
    const after = this.steps.findIndex((each) => each > step);
    return after < 0 ? this.steps.length - 1 : Math.max(0, after - 1);
  }
  /** Importances (r,) of a module at a place; of ranks that are there. */
  at(place, module) {
    return this.of(this.rows[place], module);
  }
  of(values, module) {
    const own = values.subarray(module * this.ranks, (module + 1) * this.ranks);
    const end = own.findIndex(Number.isNaN);
    return end < 0 ? own : own.subarray(0, end);
  }
  eventsOf(module) {
    return this.events.filter((event) => event.module === module);
  }
  /** What all ranks weighed until the event of a step: {values: as `of` takes them, exact}. Not exact: as last recorded before it. */
  until(step) {
    if (this.before[step]) return { values: this.before[step], exact: true };
    return { values: this.rows[this.placeOf(step - 1)], exact: false };
  }
}
