// The arena: a low-rank adapter that trains in front of you. The engine computes, this listens and shows.

import { fromFragment, toFragment } from "./address.js";
import { controlsFor, helpOf, LIVE, SHARED } from "./controls.js";
import { simulate } from "./engine.js";
import { EXPERIMENTS } from "./experiments.js";
import { Lane, lastEvent } from "./lane.js";
import { LOOK, h, mark, percent, tell } from "./look.js";
import { Panels } from "./panels.js";
import { METHODS, complete } from "./settings.js";

const SPEEDS = [[0.1, "slow"], [1, "1 step a frame"], [4, "fast"]];

export function mount(root, { settings = {}, fragment = "" } = {}) {
  return new View(root, settings, fragment).api();
}

class View {
  constructor(root, settings, fragment) {
    this.begin = settings;
    this.calm = window.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;
    this.speed = 1;
    this.lag = 0; // how old a copy by hand is
    this.frames = 0;
    this.build(root);
    this.load(fragment);
    new ResizeObserver(() => this.draw()).observe(this.parts.main);
    window.matchMedia?.("(prefers-color-scheme: dark)").addEventListener?.("change", () => this.draw());
  }

  /** Begins anew with the state of an address. */
  load(fragment) {
    const { a, b, edits, n, lock, fork } = fromFragment(fragment);
    Object.assign(this, { given: { a: { ...this.begin, ...a }, b }, edits, n, lock, fork: b ? fork : null });
    Object.assign(this, { a: null, b: null, tab: "a", module: 0, chosen: null, experiment: null, answered: "", playing: false });
    this.set({});
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
    return lane.settings.method !== "IncreLoRA" && !this.locked("edits");
  }

  /** Takes settings over for a lane (the world's: for both). What can't be is said, and nothing changes. */
  set(changes, lane = this.tab) {
    const before = { given: { ...this.given }, edits: { ...this.edits } };
    for (const [name, value] of Object.entries(changes)) {
      const to = SHARED.includes(name) || lane === "a" ? "a" : "b";
      this.given[to] = { ...this.given[to], [name]: value };
    }
    let trouble = "";
    try {
      this.compute();
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      trouble = error.message;
      Object.assign(this, this.a ? before : { given: { a: {}, b: null }, edits: { a: [], b: [] }, fork: null });
      this.compute();
    }
    tell(this.parts.error, trouble);
    this.refresh();
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
    const first = lane("a", a, this.edits.a);
    let second = null;
    if (this.given.b && this.fork !== null) {
      complete({ ...a, ...this.given.b }); // what it refuses is refused here, before anything is replaced
      const done = this.edits.a.filter(({ step }) => step <= this.fork);
      second = lane("b", a, [...done, { step: this.fork, kind: "set", settings: this.given.b }, ...this.edits.b]);
    } else if (this.given.b) {
      const shared = Object.fromEntries(SHARED.filter((name) => name in a).map((name) => [name, a[name]]));
      second = lane("b", fitting({ ...this.given.b, ...shared }), this.edits.b);
    }
    Object.assign(this, { a: first, b: second, n });
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
      return { n, settings: { ...settings, lr }, loss, left, sizes: sizes.at(-1).map((each) => Array.from(each)), events, effective_rank: ranks };
    };
    return { n: this.n, playing: this.playing, fork: this.fork, a: of(this.a), b: this.b && of(this.b), fragment: this.fragment() };
  }
  fragment() {
    const b = this.given.b && { method: this.b.settings.method, ...this.given.b };
    return toFragment({ a: this.given.a, b: this.fork === null ? b : this.given.b, edits: this.edits, n: this.n, lock: this.lock, fork: this.fork });
  }

  // --- what the reader does ---

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
  /** Back to step 0: settings and start weights stay. */
  reset() {
    this.playing = false;
    this.edits = { a: [], b: [] };
    if (this.fork !== null) this.endFork();
    this.n = 0;
    this.set({ switches: [] });
  }
  endFork() {
    this.fork = null;
    this.given.b = null;
    this.tab = "a";
  }
  /** The second lane: the first up to here, from here on with settings of its own. */
  forkHere() {
    if (this.fork !== null) this.endFork();
    else {
      this.fork = this.n;
      this.given.b = { lr: this.a.settings.lr };
      this.edits = { ...this.edits, b: [] };
      this.tab = "b";
    }
    this.set({});
  }
  compare() {
    const on = !this.given.b;
    this.fork = null;
    this.given.b = on ? { method: this.a.settings.method === "LoRA" ? "BeamLoRA" : "LoRA" } : null;
    this.edits = { ...this.edits, b: [] };
    this.tab = on ? "b" : "a";
    this.set({});
  }
  switchNow() {
    const { switches } = this.a.settings;
    this.set({ switches: [...new Set([...switches, Math.max(1, this.n)])] });
  }
  /** After this step, in this lane; what was done by hand at later steps is dropped. */
  byHand(key, kind, slot, source) {
    const edit = { step: this.n, kind, module: this.module, slot, ...(kind === "copy" ? { source, lag: this.lag } : {}) };
    this.edits = { ...this.edits, [key]: [...this.edits[key].filter(({ step }) => step <= this.n), edit] };
    this.chosen = null;
    this.set({});
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
  change(name, value) {
    if (name === "method") this.edits = { ...this.edits, [this.tab]: [] };
    this.set({ [name]: value }, this.tab);
  }
  tryExperiment(k) {
    this.playing = false;
    this.experiment = EXPERIMENTS[k];
    const { a, b } = this.experiment;
    Object.assign(this, { given: { a: { ...a }, b: { ...b } }, edits: { a: [], b: [] }, fork: null, n: 0, tab: "a", answered: "", chosen: null, module: 0 });
    this.set({});
    this.drawAsk();
    this.parts.ask.querySelector("h2").focus({ preventScroll: true });
    this.play(true);
  }
  reveal() {
    const { a, b, answer } = this.experiment;
    this.answered = answer({ a: simulate(a), b: simulate({ ...a, ...b }), run: simulate, percent, base: a });
    this.drawAsk();
  }
  key(event) {
    if (["INPUT", "SELECT", "BUTTON", "SUMMARY"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = { " ": () => this.play(), ArrowRight: () => this.pauseAt(this.n + 1), ArrowLeft: () => this.pauseAt(this.n - 1), Home: () => this.pauseAt(0), End: () => this.pauseAt(this.steps) };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  }

  // --- the page ---

  build(root) {
    const part = (this.parts = {});
    const button = (name, text, label, onclick) => (part[name] = h("button", { type: "button", class: name, "aria-label": label, onclick }, text));
    root.replaceChildren(h("style", {}, LOOK), (part.page = h("div", { class: "view", tabindex: "-1" },
      h("header", {},
        h("h1", {}, "Rank arena"), h("span", { class: "promise" }, "train a low-rank adapter, in front of you"),
        button("reset", "⟲", "reset: back to step 0, settings and start weights stay", () => this.reset()),
        button("back", "◂ step", "one step back", () => this.pauseAt(this.n - 1)),
        button("play", "▶ play", "play", () => this.play()),
        button("step", "step ▸", "one step", () => this.pauseAt(this.n + 1)),
        h("select", { "aria-label": "speed", onchange: (event) => (this.speed = Number(event.target.value)) },
          SPEEDS.map(([value, text]) => h("option", { value, selected: value === 1 }, text))),
        h("div", { class: "count" }, (part.count = h("span", {}, "0")), (part.of = h("small")))),
      h("div", { class: "body" },
        (part.side = h("aside", { "aria-label": "settings" })),
        (part.main = h("main", {},
          h("div", { class: "card" },
            (part.time = h("input", { type: "range", min: 0, value: 0, style: "width:100%", "aria-label": "step: rewind, or go on", oninput: (event) => this.pauseAt(Number(event.target.value)) })),
            h("p", { class: "note" }, "Drag to rewind. Space plays, arrow keys step. A change computes the run anew, up to this step."),
            (part.error = h("p", { class: "error", role: "alert" }))),
          (part.maps = h("div", { class: "maps card" })),
          (part.rivers = h("div", { class: "cards" })),
          (part.charts = h("div", { class: "cards" })),
          (part.ask = h("section", { class: "card ask", "aria-label": "experiments" })),
          (part.numbers = h("details", { class: "card", ontoggle: () => this.draw() }, h("summary", {}, "In words and numbers"),
            h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "numbers" }, (part.words = h("table"))), explained())),
          (part.live = h("p", { class: "hidden", "aria-live": "polite" }))))))));
    part.page.addEventListener("keydown", (event) => this.key(event));
    for (const kind of ["pointerover", "focusin"]) part.side.addEventListener(kind, (event) => this.help(event.target.closest("[data-help]")));
    this.panels = new Panels(this);
  }
  help(control) {
    if (control) tell(this.parts.help, helpOf(control.dataset.help));
  }

  /** Builds the controls anew; the focus stays where it was. */
  refresh() {
    const { parts } = this;
    const held = document.activeElement?.dataset?.name;
    const lane = this[this.tab];
    const shown = { ...lane.settings, lr: lane.at(this.n).lr };
    const forked = this.tab === "b" && this.fork !== null;
    const fixed = (name) => this.locked(name) || (forked && !LIVE.includes(name));
    const controls = controlsFor(shown, { fixed, change: (name, value) => this.change(name, value) });
    const switching = h("div", { class: "chips" }, h("button", { type: "button", "data-name": "switch", disabled: fixed("switches"), onclick: () => this.switchNow() }, "switch the task now"));
    controls.splice(controls.findIndex((element) => element.textContent === "The adapter"), 0, switching);
    parts.help = h("p", { class: "help", "aria-hidden": "true" }, "Point at a control, or go to it by keyboard: here it says what it does.");
    parts.side.replaceChildren(this.laneTabs(), ...controls, parts.help);
    parts.side.querySelector(`[data-name="${held}"]`)?.focus();
    mark(parts.time, "max", this.steps);
    this.showPlaying();
    this.drawAsk();
    this.draw();
  }
  laneTabs() {
    const button = (name, text, { pressed, disabled = false, onclick }) => h("button", { type: "button", "data-name": name, "aria-pressed": pressed, disabled, onclick }, text);
    const tab = (key, text) => button(`tab${key}`, text, { pressed: String(this.tab === key), onclick: () => { this.tab = key; this.refresh(); } });
    const locked = this.locked("compare");
    return h("div", { class: "chips", style: "margin-top:.7rem" },
      this.b ? [tab("a", "first lane"), tab("b", this.fork === null ? "second lane" : `fork at ${this.fork}`)] : [],
      this.fork === null ? button("compare", this.b ? "one lane" : "compare two", { disabled: locked, onclick: () => this.compare() }) : null,
      this.b && this.fork === null ? null : button("fork", this.fork === null ? "fork here" : "end the fork", { disabled: locked, onclick: () => this.forkHere() }));
  }
  showPlaying() {
    tell(this.parts.play, this.playing ? "❚❚ pause" : "▶ play");
    mark(this.parts.play, "aria-label", this.playing ? "pause" : "play");
  }

  drawAsk() {
    const { ask } = this.parts;
    const others = (text) => [h("p", {}, text), h("div", { class: "chips" }, EXPERIMENTS.map(({ title }, k) =>
      h("button", { type: "button", "data-name": `experiment${k}`, disabled: this.locked("experiments"), "aria-pressed": String(this.experiment === EXPERIMENTS[k]), onclick: () => this.tryExperiment(k) }, title)))];
    if (!this.experiment) {
      ask.replaceChildren(h("h2", {}, "Six experiments"), ...others("One click, one question, one answer. Or change anything in the settings and watch."));
      return;
    }
    const { title, question } = this.experiment;
    const reveal = h("button", { type: "button", "data-name": "reveal", onclick: () => this.reveal() }, "I have a guess: show the answer");
    ask.replaceChildren(h("h2", { tabindex: "-1" }, title), h("p", {}, question), h("p", { role: "status" }, this.answered || reveal), ...others("Another one:"));
  }

  draw() {
    const { parts } = this;
    if (!this.a) return;
    const seen = this.lanes().map((lane) => ({ lane, ...lane.at(this.n) }));
    tell(parts.count, String(this.n));
    tell(parts.of, ` of ${this.steps} steps`);
    parts.time.value = this.n;
    mark(parts.time, "aria-valuetext", `step ${this.n} of ${this.steps}`);
    this.panels.draw(seen);
    if (parts.numbers.open) this.tabulate(seen);
    if (!this.playing) {
      tell(parts.live, `Step ${this.n} of ${this.steps}. ${seen.map((each) => `${each.lane.name}: ${percent(each.left)} missing. ${lastEvent(each)}`).join(" ")}`);
      this.onstate?.(this.fragment());
    }
  }
  tabulate(seen) {
    const head = ["lane", "loss of the last batch", "still wrong", "effective rank", "ranks", "last event"];
    const rows = seen.map((each) => [each.lane.name, each.loss?.toFixed(4) ?? "none yet", percent(each.left), each.ranks.map((r) => r.toFixed(2)).join(" and "), each.sizes.at(-1)[this.module].length, lastEvent(each)]);
    this.parts.words.replaceChildren(h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((text) => h("td", {}, String(text)))))));
  }

  /** What a page and its tests may call. */
  api() {
    return {
      simulate: (settings, edits) => simulate(settings, edits),
      state: () => this.state(),
      set: (changes, lane) => this.set(changes, lane),
      go: (n) => this.pauseAt(n),
      play: (on) => this.play(on),
      load: (fragment) => this.load(fragment),
      experiments: EXPERIMENTS.map(({ title }) => title),
      frames: () => this.frames,
      onstate: (listener) => {
        this.onstate = listener;
      },
    };
  }
}

/** Settings of another method are left out, so that going from one to the next keeps what they share. */
function fitting(given) {
  const known = complete({ method: given.method, world: given.world });
  return Object.fromEntries(Object.entries(given).filter(([name, value]) => value !== undefined && (name in known || !(name in ALL))));
}
const ALL = Object.assign({}, ...METHODS.map((method) => complete({ method })));

/** What every picture and number is. */
function explained() {
  const facts = [
    ["Still wrong", "in the matrix world |change - update| / |change|, of the whole matrix; on the plane the share of 24 by 24 points on the wrong side."],
    ["Loss", "of the batch of this step, before the step: mean squared error, or cross-entropy."],
    ["Effective rank", "how many directions the update uses: e to the entropy of its singular values' shares. k equal ones give k."],
    ["Rank river", "a band is a rank, as wide as its share. With BeamLoRA that is its learned weight, else the size |b| |a| of what it adds, times alpha / r and E, where there is one."],
    ["The same by Python", "bl.arena.simulate(...) with these settings makes the same run by the package, to the last digits."],
  ];
  return h("dl", { class: "note" }, facts.flatMap(([name, text]) => [h("dt", {}, h("b", {}, name)), h("dd", {}, text)]));
}
