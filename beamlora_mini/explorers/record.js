// A recorded run as the explorer reads it: explore.py packs a RankHistory so.

import { numbersOf } from "./numbers.js";

/** {steps, losses, modules: [{name, label, block, kind}], ranks, importance, before, events, info} unpacked. */
export class Record {
  constructor({ importance, before, pools, ...facts }) {
    Object.assign(this, facts);
    this.size = this.modules.length * this.ranks;
    this.values = numbersOf(importance);
    this.before = Object.fromEntries(Object.entries(before).map(([step, text]) => [step, numbersOf(text)]));
    this.pools = Object.fromEntries(Object.entries(pools).map(([step, pool]) => [step, { ...pool, values: numbersOf(pool.values) }]));
    this.eventSteps = [...new Set(this.events.map(({ step }) => step))].sort((x, y) => x - y);
  }
  /** The place of the last recorded step that is not after `step`. */
  placeOf(step) {
    const after = this.steps.findIndex((each) => each > step);
    return after < 0 ? this.steps.length - 1 : Math.max(0, after - 1);
  }
  /** Importances (r,) of a module at a place; of ranks that are there. */
  at(place, module) {
    return this.of(this.values.subarray(place * this.size, (place + 1) * this.size), module);
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
    const place = this.placeOf(step - 1);
    return { values: this.values.subarray(place * this.size, (place + 1) * this.size), exact: false };
  }
}
