// The arena's state and what a reader can do with it. Whoever shows it (arena.js) fills in: refresh, draw, drawAsk,
// showPlaying, say(text) and focusRank(lane, slot).

import { fromFragment, toFragment } from "./address.js";
import { CONTROLS, SHARED } from "./controls.js";
import { EXPERIMENTS } from "./experiments.js";
import { Lane } from "./lane.js";
import { METHODS, complete, require } from "./settings.js";

const LOCKS = ["all", "edits", "compare", "experiments", ...CONTROLS.map(({ name }) => name)];
const YIELD = ["dead", "snapshot_lag", "target_r", "merge_every", "period", "end_step"]; // to a control that is moved

export class Session {
  constructor(settings) {
    this.begin = settings;
    this.calm = window.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;
    this.speed = 1;
    this.lag = 0; // how old a copy by hand is
    this.frames = 0;
  }

  /** Begins anew with the state of an address. */
  load(fragment) {
    const { a, b, edits, n, lock, fork, experiment } = fromFragment(fragment);
    Object.assign(this, { given: { a: { ...this.begin, ...a }, b }, edits, n, lock, fork: b ? fork : null });
    Object.assign(this, {
      a: null,
      b: null,
      tab: "a",
      module: 0,
      chosen: null,
      playing: false,
      past: [],
      experiment: EXPERIMENTS[experiment - 1] ?? null,
      guess: null,
      answered: "",
    });
    const unknown = lock.find((name) => !LOCKS.includes(name));
    const trouble = this.set({}) || (unknown ? `lock=${unknown}: allowed are ${LOCKS.join(", ")}` : "");
    this.say(trouble);
    this.drawAsk();
  }

  // --- the state: settings, edits, lanes ---

  lanes() {
    return this.b ? [this.a, this.b] : [this.a];
  }
  get steps() {
    return this.a.settings.steps;
  }
  locked(name) {
    return this.lock.includes(name) || this.lock.includes("all");
  }
  canEdit(lane) {
    return (
      lane.settings.method !== "IncreLoRA" &&
      !this.locked("edits") &&
      !(lane.key === "b" && this.fork !== null && this.n < this.fork)
    );
  }

  /** Takes settings over for a lane (the world's: for both). What can't be is returned in words, and nothing changes. */
  set(changes, lane = this.tab) {
    const before = { given: this.given, edits: this.edits };
    this.given = { a: { ...this.given.a }, b: this.given.b && { ...this.given.b } };
    for (const [name, value] of Object.entries(changes))
      this.given[SHARED.includes(name) || lane === "a" ? "a" : "b"][name] = value;
    let trouble = "";
    try {
      this.compute();
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      trouble = error.message;
      Object.assign(this, this.a ? before : { given: { a: {}, b: null }, edits: { a: [], b: [] }, fork: null });
      this.compute();
    }
    this.say(trouble);
    this.refresh();
    return trouble;
  }

  /** The lanes that belong to the settings, computed up to this step. A lane whose settings stay, stays. */
  compute() {
    const a = fitting(this.given.a);
    const { steps } = complete(a);
    const n = Math.min(this.n, steps);
    const lane = (key, given, edits) => {
      const signature = JSON.stringify([given, edits]);
      return (this[key]?.signature === signature ? this[key] : new Lane(key, given, edits)).upTo(n);
    };
    const edits = { a: possible(this.edits.a, a), b: [] };
    const first = lane("a", a, edits.a);
    let second = null;
    if (this.given.b && this.fork !== null) {
      require(this.fork < steps, "steps", steps, `more than ${this.fork}, where the fork begins`);
      complete({ ...a, ...this.given.b }); // what it refuses is refused here, before anything is replaced
      edits.b = possible(this.edits.b, a).filter(({ step }) => step >= this.fork);
      const done = edits.a.filter(({ step }) => step <= this.fork);
      second = lane("b", a, [...done, { step: this.fork, kind: "set", settings: this.given.b }, ...edits.b]);
    } else if (this.given.b) {
      const shared = Object.fromEntries(SHARED.filter((name) => name in a).map((name) => [name, a[name]]));
      const b = fitting({ ...this.given.b, ...shared });
      edits.b = possible(this.edits.b, b);
      second = lane("b", b, edits.b);
    }
    Object.assign(this, { a: first, b: second, n, edits });
    if (!second) this.tab = "a";
    this.module = Math.min(this.module, first.arena.layers.length - 1);
  }

  go(n) {
    this.n = Math.max(0, Math.min(Math.round(n), this.steps));
    for (const lane of this.lanes()) lane.upTo(this.n);
    this.draw();
  }

  state() {
    const of = (lane) => {
      const { n, settings, loss, left, sizes, events, ranks, lr } = lane.at(this.n);
      return {
        n,
        settings: { ...settings, lr },
        loss,
        left,
        sizes: sizes.at(-1).map((each) => Array.from(each)),
        events,
        effective_rank: ranks,
      };
    };
    return {
      n: this.n,
      playing: this.playing,
      fork: this.fork,
      a: of(this.a),
      b: this.b && of(this.b),
      fragment: this.fragment(),
    };
  }
  fragment() {
    const b = this.given.b && { method: this.b.settings.method, ...this.given.b };
    const experiment = EXPERIMENTS.indexOf(this.experiment) + 1;
    return toFragment({
      a: this.given.a,
      b: this.fork === null ? b : this.given.b,
      edits: this.edits,
      n: this.n,
      lock: this.lock,
      fork: this.fork,
      experiment,
    });
  }

  // --- what the reader does ---

  /** Remembers what is about to be changed. What has the same reason as the last change, a slider's drag, is one change. */
  remember(reason) {
    const { given, edits, fork, n, experiment } = this;
    if (reason !== "undo" && (this.past.at(-1)?.reason !== reason || !reason))
      this.past.push({ reason, given, edits, fork, n, experiment });
    if (this.past.length > 100) this.past.shift();
    this.answered = "";
  }
  undo() {
    const last = this.past.pop();
    if (!last) return;
    const { reason, ...state } = last;
    Object.assign(this, state, { chosen: null, answered: "", playing: false });
    this.set({});
    this.drawAsk();
  }
  /** A control was moved. Settings that do not go with it give way, and it is said. */
  change(name, value) {
    this.remember(`${name} ${this.tab}`);
    let trouble = this.set({ [name]: value });
    const lane = this.tab;
    for (const other of YIELD) {
      const given = this.given[lane]?.[other];
      if (!trouble || given === undefined || other === name) continue;
      if (!this.set({ [name]: value, [other]: undefined }, lane)) {
        trouble = "";
        this.say(
          `${other.replaceAll("_", " ")} ${given} does not go with ${name.replaceAll("_", " ")} ${value}: now it is ${this[lane].settings[other]}.`,
        );
      }
    }
    this.drawAsk();
  }
  play(on = !this.playing) {
    if (on && this.n >= this.steps) this.go(0);
    this.playing = on;
    this.last = -Infinity;
    if (on) requestAnimationFrame((time) => this.frame(time));
    this.showPlaying();
    this.draw();
  }
  /** A frame: some steps. With reduced motion a few pictures a second, and more steps from one to the next. */
  frame(time) {
    if (!this.playing) return;
    const wait = this.calm ? 400 : this.speed < 1 ? 1000 / (60 * this.speed) : 0;
    if (time - this.last >= wait) {
      this.last = time;
      this.frames += 1;
      this.n = Math.min(this.steps, this.n + (this.calm ? Math.ceil(20 * this.speed) : Math.max(1, this.speed)));
      if (this.n >= this.steps) this.play(false);
      this.go(this.n);
    }
    if (this.playing) requestAnimationFrame((next) => this.frame(next));
  }
  pauseAt(n) {
    if (this.playing) this.play(false);
    this.go(n);
  }
  /** The second lane: the first up to here, from here on with settings of its own. */
  forkHere() {
    this.remember();
    const on = this.fork === null;
    this.fork = on ? Math.min(this.n, this.steps - 1) : null;
    this.given = { ...this.given, b: on ? { lr: this.a.settings.lr } : null };
    this.edits = { ...this.edits, b: [] };
    this.tab = on ? "b" : "a";
    this.set({});
  }
  compare() {
    this.remember();
    const on = !this.given.b;
    this.fork = null;
    this.given = { ...this.given, b: on ? { method: this.a.settings.method === "LoRA" ? "BeamLoRA" : "LoRA" } : null };
    this.edits = { ...this.edits, b: [] };
    this.tab = on ? "b" : "a";
    this.set({});
  }
  switchNow() {
    this.remember();
    this.set({ switches: [...new Set([...this.a.settings.switches, this.n])] });
  }
  /** After this step, in this lane; what was done by hand at later steps is dropped. */
  byHand(key, kind, slot, source) {
    this.remember();
    const edit = {
      step: this.n,
      kind,
      module: this.module,
      slot,
      ...(kind === "copy" ? { source, lag: this.lag } : {}),
    };
    const earlier = this.edits[key].filter(({ step }) => step <= this.n);
    const dropped = this.edits[key].length - earlier.length;
    this.edits = { ...this.edits, [key]: [...earlier, edit] };
    this.chosen = null;
    this.set({});
    if (dropped) this.say(`${dropped} of your later changes by hand are dropped: undo brings them back.`);
    this.focusRank(key, slot);
  }
  /** A rank is pressed: it waits to be copied, or another that waits is copied onto it. */
  pick(key, slot) {
    if (!this.canEdit(this[key])) return;
    if (this.playing) this.play(false);
    if (this.chosen?.key === key && this.chosen.slot !== slot) this.byHand(key, "copy", slot, this.chosen.slot);
    else {
      this.chosen = this.chosen?.key === key ? null : { key, slot };
      this.draw();
    }
  }
  withChosen(kind) {
    if (this.chosen) this.byHand(this.chosen.key, kind, this.chosen.slot);
  }
}

/** Settings of another method are left out, so that going from one to the next keeps what they share. */
function fitting(given) {
  const known = complete({ method: given.method, world: given.world });
  return Object.fromEntries(
    Object.entries(given).filter(([name, value]) => value !== undefined && (name in known || !(name in ALL))),
  );
}
/** What was done by hand to ranks that are there. */
function possible(edits, given) {
  const { method, world, r } = complete(given);
  const layers = world === "plane" ? 2 : 1;
  return edits.filter(
    ({ module, slot, source = 0 }) => method !== "IncreLoRA" && module < layers && slot < r && source < r,
  );
}
const ALL = Object.assign({}, ...METHODS.map((method) => complete({ method })));
