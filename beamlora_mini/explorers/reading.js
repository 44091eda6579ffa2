// What is looked at in a recorded run: the step, the module, the rank; and its story in words. Whoever shows it
// (explorer.js) fills in draw().

import { SORT_NAMES, shares } from "./grid.js";
import { familiesLeft, lineOf, livesOf, widthsOf } from "./river.js";

const PAUSE = 120; // milliseconds from one record to the next while it plays

export class Reading {
  // --- the state, and its address ---

  load(fragment) {
    const given = Object.fromEntries(new URLSearchParams(fragment.replace(/^#/, "")));
    const { record } = this;
    const named = record.modules.findIndex(({ name }) => name === given.module);
    const one = (value, names, otherwise) => (names.map(String).includes(value) ? value : otherwise);
    this.place = given.step === undefined ? record.steps.length - 1 : record.placeOf(Number(given.step) || 0);
    this.module = named >= 0 ? named : this.busiest();
    this.sort = one(given.sort, SORT_NAMES, "place");
    this.kind = one(
      given.kind,
      record.modules.map(({ kind }) => kind),
      "all",
    );
    this.block = one(
      given.block,
      record.modules.map(({ block }) => block),
      "all",
    );
    this.shape = one(given.shape, ["river", "lines"], "river");
    this.slot = null;
    this.playing = false;
    this.choose(this.module);
  }
  fragment() {
    const { record } = this;
    const parts = new URLSearchParams({ step: record.steps[this.place], module: record.modules[this.module].name });
    for (const [name, usual] of [
      ["sort", "place"],
      ["kind", "all"],
      ["block", "all"],
      ["shape", "river"],
    ])
      if (this[name] !== usual) parts.set(name, this[name]);
    return `#${parts}`;
  }
  busiest() {
    const counts = this.record.modules.map((_, m) => this.record.eventsOf(m).length);
    return counts.indexOf(Math.max(...counts));
  }
  get step() {
    return this.record.steps[this.place];
  }
  get last() {
    return this.record.last;
  }
  /** More was recorded: whoever looks at the end sees the new end. */
  extend(more) {
    const following = this.place === this.record.steps.length - 1;
    this.record.extend(more);
    if (following) this.place = this.record.steps.length - 1;
    this.read();
    this.draw();
  }
  state() {
    const { record, place } = this;
    return {
      step: this.step,
      playing: this.playing,
      module: record.modules[this.module].name,
      rank: this.slot,
      importance: Object.fromEntries(record.modules.map(({ name }, m) => [name, Array.from(record.at(place, m))])),
      founders: familiesLeft(this.river),
      shown: this.order.map((m) => record.modules[m].name),
      fragment: this.fragment(),
    };
  }

  // --- what the reader does ---

  go(step) {
    this.place = this.record.placeOf(step);
    this.draw();
  }
  move(by) {
    if (this.playing) this.play(false);
    this.place = Math.max(0, Math.min(this.record.steps.length - 1, this.place + by));
    this.draw();
  }
  play(on = !this.playing) {
    this.playing = on;
    if (on && this.place === this.record.steps.length - 1) this.place = 0;
    if (on) this.next(-Infinity);
    this.draw();
  }
  next(before) {
    requestAnimationFrame((time) => {
      if (!this.playing) return;
      const due = time - before >= (this.calm ? 4 * PAUSE : PAUSE);
      if (due) this.place = Math.min(this.record.steps.length - 1, this.place + (this.calm ? 4 : 1));
      if (this.place === this.record.steps.length - 1) this.playing = false;
      if (due) this.draw();
      this.next(due ? time : before);
    });
  }
  choose(module) {
    this.module = module;
    this.slot = null;
    this.read();
    this.draw();
  }
  /** The river of the module that is looked at. */
  read() {
    const { record, module } = this;
    const events = record.eventsOf(module);
    this.river = livesOf(
      record.at(0, module).length,
      events.filter(({ kind }) => kind !== "restart"),
    );
    const before = Object.fromEntries(
      Object.entries(record.before).map(([step, values]) => [step, record.of(values, module)]),
    );
    const rows = record.steps.map((x, place) => ({ x, values: record.at(place, module) }));
    this.points = widthsOf(this.river, rows, before);
  }
  pick(slot) {
    this.slot = this.slot === slot ? null : slot;
    this.draw();
  }
  neighbour(by) {
    const at = this.order.indexOf(this.module);
    this.choose(this.order[Math.max(0, Math.min(this.order.length - 1, at + by))]);
  }

  // --- in words ---

  seats(step = this.step) {
    return this.river.eras.findLast(({ from }) => from <= step).seats;
  }
  inWords() {
    const { record, step } = this;
    const of = shares(record.at(this.place, this.module));
    const [most, least] = [Math.max(...of), Math.min(...of)];
    const best = of.indexOf(most);
    const copies = record.eventsOf(this.module).filter(({ kind }) => kind === "expand");
    const done = copies.filter((event) => event.step <= step);
    const alive = new Set(
      this.seats()
        .slice(0, of.length)
        .map(({ founder }) => founder),
    ).size;
    const families = copies.length
      ? `${alive} of ${record.at(0, this.module).length} first ranks have descendants at step ${step}. `
      : "";
    const widest =
      most - least < 1e-6
        ? "All ranks are equally wide."
        : `The widest is rank ${best}, of the line of ${this.seats()[best].founder}, with ${most.toFixed(2)} times an even share.`;
    const replaced = done.length
      ? ` ${done.length} replaced so far in this module, the last at step ${done.at(-1).step}.`
      : "";
    return `${families}${widest}${replaced}`;
  }
  descent() {
    const life = this.seats()[this.slot];
    const path = [];
    for (let up = life; up; up = up.parent)
      path.unshift(up.born ? `copied into slot ${up.slot} at step ${up.born}` : `first rank ${up.slot}`);
    const line_ = lineOf(life);
    const alive = this.river.eras.at(-1).seats.filter((each) => line_.has(each)).length;
    return `Rank ${this.slot} at step ${this.step}: ${path.join(", then ")}. At the end ${alive} rank${alive === 1 ? "" : "s"} of its line ${alive === 1 ? "is" : "are"} there; ${familiesLeft(this.river)} of ${this.record.at(0, this.module).length} first ranks have descendants.`;
  }
}
