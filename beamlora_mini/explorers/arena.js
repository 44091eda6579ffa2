// The arena: a low-rank adapter that trains in front of you. The engine computes, this listens and shows.

import { fromFragment, toFragment } from "./address.js";
import { CONTROLS, LIVE, SHARED } from "./controls.js";
import { simulate } from "./engine.js";
import { EXPERIMENTS } from "./experiments.js";
import { Controls } from "./inputs.js";
import { Lane, lastEvent } from "./lane.js";
import { LOOK, h, mark, percent, tell } from "./look.js";
import { Panels } from "./panels.js";
import { METHODS, complete, require } from "./settings.js";

const SPEEDS = [[0.1, "slow"], [1, "1 step a frame"], [4, "fast"]];
const LOCKS = ["all", "edits", "compare", "experiments", ...CONTROLS.map(({ name }) => name)];
const YIELD = ["dead", "snapshot_lag", "target_r", "merge_every", "period", "end_step"]; // gives way to a control that is moved

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
    const { a, b, edits, n, lock, fork, experiment } = fromFragment(fragment);
    Object.assign(this, { given: { a: { ...this.begin, ...a }, b }, edits, n, lock, fork: b ? fork : null });
    Object.assign(this, { a: null, b: null, tab: "a", module: 0, chosen: null, playing: false, past: [], experiment: EXPERIMENTS[experiment - 1] ?? null, guess: null, answered: "" });
    const unknown = lock.find((name) => !LOCKS.includes(name));
    const trouble = this.set({}) || (unknown ? `lock=${unknown}: allowed are ${LOCKS.join(", ")}` : "");
    tell(this.parts.error, trouble);
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
    return lane.settings.method !== "IncreLoRA" && !this.locked("edits") && !(lane.key === "b" && this.fork !== null && this.n < this.fork);
  }

  /** Takes settings over for a lane (the world's: for both). What can't be is returned in words, and nothing changes. */
  set(changes, lane = this.tab) {
    const before = { given: this.given, edits: this.edits };
    this.given = { a: { ...this.given.a }, b: this.given.b && { ...this.given.b } };
    for (const [name, value] of Object.entries(changes)) this.given[SHARED.includes(name) || lane === "a" ? "a" : "b"][name] = value;
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
      return { n, settings: { ...settings, lr }, loss, left, sizes: sizes.at(-1).map((each) => Array.from(each)), events, effective_rank: ranks };
    };
    return { n: this.n, playing: this.playing, fork: this.fork, a: of(this.a), b: this.b && of(this.b), fragment: this.fragment() };
  }
  fragment() {
    const b = this.given.b && { method: this.b.settings.method, ...this.given.b };
    const experiment = EXPERIMENTS.indexOf(this.experiment) + 1;
    return toFragment({ a: this.given.a, b: this.fork === null ? b : this.given.b, edits: this.edits, n: this.n, lock: this.lock, fork: this.fork, experiment });
  }

  // --- what the reader does ---

  /** Remembers what is about to be changed. What has the same reason as the last change, a slider's drag, is one change. */
  remember(reason) {
    const { given, edits, fork, n, experiment } = this;
    if (reason !== "undo" && (this.past.at(-1)?.reason !== reason || !reason)) this.past.push({ reason, given, edits, fork, n, experiment });
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
        tell(this.parts.error, `${other.replaceAll("_", " ")} ${given} does not go with ${name.replaceAll("_", " ")} ${value}: now it is ${this[lane].settings[other]}.`);
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
    const edit = { step: this.n, kind, module: this.module, slot, ...(kind === "copy" ? { source, lag: this.lag } : {}) };
    const earlier = this.edits[key].filter(({ step }) => step <= this.n);
    const dropped = this.edits[key].length - earlier.length;
    this.edits = { ...this.edits, [key]: [...earlier, edit] };
    this.chosen = null;
    this.set({});
    if (dropped) tell(this.parts.error, `${dropped} of your later changes by hand are dropped: undo brings them back.`);
    this.panels.focusRank(key, slot);
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
  tryExperiment(k) {
    this.remember();
    this.experiment = EXPERIMENTS[k];
    const { a, b } = this.experiment;
    Object.assign(this, { given: { a: { ...a }, b: { ...b } }, edits: { a: [], b: [] }, fork: null, n: 0, tab: "a", guess: null, answered: "", chosen: null, module: 0, playing: false });
    this.set({});
    this.drawAsk();
    this.parts.ask.querySelector("h2").focus({ preventScroll: true });
    this.parts.ask.scrollIntoView({ block: "nearest" });
  }
  guessed(guess) {
    this.guess = guess;
    this.drawAsk();
    this.parts.ask.querySelector("[data-name=reveal]").focus({ preventScroll: true });
    this.go(0);
    this.play(true);
  }
  reveal() {
    const { a, b, answer } = this.experiment;
    const moved = ["a", "b"].some((lane) => JSON.stringify(this.given[lane]) !== JSON.stringify(this.experiment[lane]));
    const said = this.guess ? `You said: ${this.guess}. ` : "";
    const text = answer({ a: simulate(a), b: simulate({ ...a, ...b }), run: simulate, percent, base: a, own: b });
    this.answered = `${said}${text}${moved ? " (That is with the experiment's own settings; you have changed some.)" : ""}`;
    this.drawAsk();
    this.parts.ask.querySelector("[role=status]").focus({ preventScroll: true });
  }
  key(event) {
    const { tagName } = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.target === document.body || this.parts.page.contains(event.target))) return;
    if (["INPUT", "SELECT"].includes(tagName) || (event.key === " " && ["BUTTON", "SUMMARY"].includes(tagName))) return;
    const actions = { " ": () => this.play(), ArrowRight: () => this.pauseAt(this.n + 1), ArrowLeft: () => this.pauseAt(this.n - 1), Home: () => this.pauseAt(0), End: () => this.pauseAt(this.steps) };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  }

  // --- the page ---

  build(root) {
    const part = (this.parts = {});
    const button = (name, text, label, onclick) => (part[name] = h("button", { type: "button", class: name, "aria-label": label, title: label, onclick }, text));
    part.lanes = h("div", { class: "chips", style: "margin-top:.7rem" });
    part.controls = h("div");
    part.side = h("details", { open: window.innerWidth > 760 }, h("summary", {}, "Settings"), part.lanes, part.controls);
    part.switching = h("div", { class: "chips" }, (part.switch = h("button", { type: "button", "data-name": "switch", onclick: () => this.switchNow() }, "switch the task now")));
    root.replaceChildren(h("style", {}, LOOK), (part.page = h("div", { class: "view" },
      h("header", {},
        h("h1", {}, "Rank arena"), h("span", { class: "promise" }, "train a low-rank adapter, in front of you"),
        button("reset", "⟲ start", "back to step 0; settings and start weights stay", () => this.pauseAt(0)),
        button("back", "◂ step", "one step back", () => this.pauseAt(this.n - 1)),
        button("play", "▶ play", "play", () => this.play()),
        button("step", "step ▸", "one step", () => this.pauseAt(this.n + 1)),
        button("undo", "undo", "undo the last change", () => this.undo()),
        h("select", { "aria-label": "speed", onchange: (event) => (this.speed = Number(event.target.value)) },
          SPEEDS.map(([value, text]) => h("option", { value, selected: value === 1 }, text))),
        h("div", { class: "count" }, (part.count = h("span", {}, "0")), (part.of = h("small"))),
        (part.error = h("p", { class: "error", role: "alert" }))),
      h("div", { class: "body" },
        h("aside", { "aria-label": "settings" }, part.side),
        (part.main = h("main", {},
          (part.ask = h("section", { class: "card ask", "aria-label": "experiments" })),
          h("div", { class: "card" },
            (part.time = h("input", { type: "range", min: 0, value: 0, style: "width:100%", "aria-label": "step: rewind, or go on", oninput: (event) => this.pauseAt(Number(event.target.value)) })),
            h("p", { class: "note" }, "Drag to rewind. Space plays, arrow keys step. A change computes the run anew, up to this step.")),
          (part.maps = h("div", { class: "maps card" })),
          (part.rivers = h("div", { class: "cards" })),
          (part.charts = h("div", { class: "cards" })),
          (part.numbers = h("details", { class: "card", ontoggle: () => this.draw() }, h("summary", {}, "In words and numbers: what everything is"),
            h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "numbers" }, (part.words = h("table"))), explained())),
          (part.live = h("p", { class: "hidden", "aria-live": "polite" }))))))));
    document.addEventListener("keydown", (event) => this.key(event));
    this.controls = new Controls(part.controls, CONTROLS, (name, value) => this.change(name, value));
    this.panels = new Panels(this);
  }

  /** Brings the controls up to date, in place. */
  refresh() {
    const { parts } = this;
    const forked = this.tab === "b" && this.fork !== null;
    const shown = { ...this[this.tab].settings, ...(forked ? this.given.b : {}) };
    const fixed = (name) => this.locked(name) || (forked && !LIVE.includes(name));
    this.controls.update(shown, fixed, { seed: parts.switching });
    parts.switch.disabled = fixed("switches");
    parts.undo.disabled = !this.past.length;
    mark(parts.time, "max", this.steps);
    this.drawLaneTabs();
    this.showPlaying();
    this.draw();
  }
  drawLaneTabs() {
    const { lanes } = this.parts;
    const held = document.activeElement?.dataset?.name;
    const button = (name, text, { pressed, disabled = false, onclick }) => h("button", { type: "button", "data-name": name, "aria-pressed": pressed, disabled, onclick }, text);
    const tab = (key, text) => button(`tab${key}`, text, { pressed: String(this.tab === key), onclick: () => { this.tab = key; this.refresh(); } });
    const locked = this.locked("compare");
    lanes.replaceChildren(...[
      this.b && tab("a", "first lane"), this.b && tab("b", this.fork === null ? "second lane" : `fork at ${this.fork}`),
      this.fork === null && button("compare", this.b ? "one lane" : "compare two", { disabled: locked, onclick: () => this.compare() }),
      !(this.b && this.fork === null) && button("fork", this.fork === null ? "fork here" : "end the fork", { disabled: locked, onclick: () => this.forkHere() }),
    ].filter(Boolean));
    lanes.querySelector(`[data-name="${held}"]`)?.focus();
  }
  showPlaying() {
    const { play } = this.parts;
    tell(play, this.playing ? "❚❚ pause" : "▶ play");
    for (const name of ["aria-label", "title"]) mark(play, name, this.playing ? "pause" : "play");
  }

  drawAsk() {
    const { ask } = this.parts;
    const button = (name, text, onclick, pressed) => h("button", { type: "button", "data-name": name, "aria-pressed": pressed, onclick }, text);
    const chips = h("div", { class: "chips" }, EXPERIMENTS.map(({ title }, k) => {
      const chip = button(`experiment${k}`, title, () => this.tryExperiment(k), String(this.experiment === EXPERIMENTS[k]));
      chip.disabled = this.lock.length > 0 && !this.lock.every((name) => name === "edits" || name === "compare");
      return chip;
    }));
    if (!this.experiment) {
      ask.replaceChildren(h("h2", {}, "What you see"), h("p", {}, "A frozen weight W gets an update B A: a sum of r columns times rows. Each of them is a rank. Play, change anything, or try an experiment:"), chips);
      return;
    }
    const { title, question, guesses } = this.experiment;
    const reveal = button("reveal", "show the answer", () => this.reveal());
    const guess = guesses.map((text, k) => button(`guess${k}`, text, () => this.guessed(text), String(this.guess === text)));
    ask.replaceChildren(h("h2", { tabindex: "-1" }, title), h("p", {}, question),
      this.answered ? "" : h("div", { class: "chips", role: "group", "aria-label": "your guess" }, h("span", { class: "note" }, this.guess ? "Your guess:" : "Guess, and it runs:"), guess, reveal),
      h("p", { role: "status", tabindex: "-1" }, this.answered), chips);
  }

  draw() {
    const { parts } = this;
    if (!this.a) return;
    const names = namesOf(this.lanes());
    const seen = this.lanes().map((lane, k) => ({ lane, name: names[k], ...lane.at(this.n) }));
    tell(parts.count, String(this.n));
    tell(parts.of, ` of ${this.steps} steps`);
    parts.time.value = this.n;
    mark(parts.time, "aria-valuetext", `step ${this.n} of ${this.steps}`);
    parts.switch.disabled = this.locked("switches") || (this.tab === "b" && this.fork !== null) || this.n < 1 || this.n >= this.steps;
    this.panels.draw(seen);
    if (parts.numbers.open) this.tabulate(seen);
    if (!this.playing) {
      const wrong = this.a.settings.world === "plane" ? "of the plane wrong" : "of the change missing";
      tell(parts.live, `Step ${this.n} of ${this.steps}. ${seen.map((each) => `${each.name}: ${percent(each.left)} ${wrong}. ${lastEvent(each)}`).join(" ")}`);
      this.onstate?.(this.fragment());
    }
  }
  tabulate(seen) {
    const head = ["lane", "loss of the last batch", "still wrong", "effective rank", "ranks", "last event"];
    const rows = seen.map((each) => [each.name, each.loss?.toFixed(4) ?? "none yet", percent(each.left), each.ranks.map((r) => r.toFixed(2)).join(" and "), each.sizes.at(-1)[this.module].length, lastEvent(each)]);
    this.parts.words.replaceChildren(h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((text) => h("td", {}, String(text)))))));
  }

  /** What a page and its tests may call. */
  api() {
    return {
      simulate: (settings, edits) => simulate(settings, edits),
      state: () => this.state(),
      set: (changes, lane) => this.set(changes, lane),
      undo: () => this.undo(),
      given: (lane) => ({ ...this.given.a, ...(lane === "b" ? this.given.b : {}) }),
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
/** What was done by hand to ranks that are there. */
function possible(edits, given) {
  const { method, world, r } = complete(given);
  const layers = world === "plane" ? 2 : 1;
  return edits.filter(({ module, slot, source = 0 }) => method !== "IncreLoRA" && module < layers && slot < r && source < r);
}

/** How lanes are called: by method, and by what else they differ in. */
function namesOf(lanes) {
  if (lanes.length < 2) return [lanes[0].name];
  const [a, b] = lanes.map(({ settings }) => settings);
  const names = ["r", "lr", "alpha", "fill", "dead", "period", "temperature", "p_start", "snapshot_lag", "target_r"];
  const differ = names.filter((name) => name in a && name in b && a[name] !== b[name] && !(name === "alpha" && a.alpha / a.r === b.alpha / b.r) && !(name === "snapshot_lag" && a.fill !== b.fill)).slice(0, 3);
  return lanes.map(({ settings, key }) => {
    const own = differ.map((name) => `${{ lr: "rate", p_start: "p", fill: "copies:", snapshot_lag: "lag", target_r: "target" }[name] ?? name} ${settings[name]}`);
    return [settings.method, ...own].join(", ") + (differ.length || a.method !== b.method ? "" : key === "a" ? " (first)" : " (second)");
  });
}
const ALL = Object.assign({}, ...METHODS.map((method) => complete({ method })));

/** What every picture and number is. */
function explained() {
  const facts = [
    ["Rank", "a row a of A and a column b of B; it adds b times a, a matrix with one direction, to the update. alpha / r scales their sum. W itself never moves."],
    ["Still wrong", "in the matrix world |change - update| / |change|, of the whole matrix; on the plane the share of 24 by 24 points on the wrong side."],
    ["Loss", "of the batch of this step, before the step: mean squared error, or cross-entropy."],
    ["Effective rank", "how many directions the update uses: e to the entropy of its singular values' shares; k equal ones give k. The update of PiSSA and MiLoRA is counted from W, so it is also what their start left out."],
    ["Rank river", "a band is a rank, as wide as its share. With BeamLoRA that is its weight, made of a learned score, else the size |b| |a| of what it adds, times alpha / r and E, where there is one. Its number and colour: the first rank it descends from (the second eight are darker)."],
    ["Event", "the moment at which a method removes, adds, copies or restarts ranks."],
    ["Fair comparison", "each method wants its own learning rate: compare each at its best, on several seeds."],
    ["The same by Python", "import beamlora_mini as bl; bl.arena.simulate(...) with these settings makes the same run by the package, to the last digits."],
  ];
  return h("dl", { class: "note" }, facts.flatMap(([name, text]) => [h("dt", {}, h("b", {}, name)), h("dd", {}, text)]));
}
