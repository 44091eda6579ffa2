// The arena: a low-rank adapter that trains in front of you. The engine computes, this shows.

import { effectiveRank, singularValues } from "./algebra.js";
import { Arena, simulate } from "./engine.js";
import { METHODS, PATTERNS, complete } from "./settings.js";
import { inside } from "./worlds.js";
import { EXPERIMENTS } from "./experiments.js";
import { FOUNDERS, drawRiver, familiesLeft, inkOn, livesOf, widthsOf } from "./river.js";

const LANE = { a: "#0072B2", b: "#D55E00" }; // of plots/style.py: a line's dash tells the lanes apart too
const SHARED = ["world", "size", "true_rank", "noise", "base", "pattern", "steps", "batch", "switches", "seed"];
const LIVE = ["lr", "temperature", "period", "p_start", "fill"]; // what a fork may change from its step on

// --- controls: {name, label, kind, values or [least, most], when, text, help} ---

const isBeam = ({ method }) => method === "BeamLoRA";
const isPlane = ({ world }) => world === "plane";
const rates = [0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5];
const whole = (least, most, step = 1) => Array.from({ length: Math.floor((most - least) / step) + 1 }, (_, i) => least + i * step);

const CONTROLS = [
  { group: "The world", name: "world", kind: "chips", values: ["matrix", "plane"], help: "A hidden change of a 16 x 16 weight, or a small net that has to learn another pattern." },
  { group: "The world", name: "true_rank", label: "true rank", values: whole(1, 12), when: (s) => !isPlane(s), help: "How many directions the hidden change has." },
  { group: "The world", name: "base", label: "learned before", kind: "select", values: PATTERNS, when: isPlane },
  { group: "The world", name: "pattern", label: "to learn now", kind: "select", values: PATTERNS, when: isPlane },
  { group: "The world", name: "noise", values: [0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8], help: "Added to every example." },
  { group: "The world", name: "steps", values: [40, 80, 120, 160, 200, 300, 400], help: "Optimizer steps of the whole run; the learning rate falls to zero along them." },
  { group: "The world", name: "seed", values: whole(0, 20), help: "Another world, another start." },
  { group: "The adapter", name: "method", kind: "chips", values: METHODS },
  { group: "The adapter", name: "r", label: "rank r", values: whole(1, 16), help: "How many ranks the adapter has (IncreLoRA: at the start)." },
  { group: "The adapter", name: "alpha", values: [1, 2, 4, 6, 8, 12, 16, 24, 32, 64], help: "The update is scaled by alpha / r." },
  { group: "The adapter", name: "lr", label: "learning rate", values: rates, help: "The highest rate; a warm-up before, a cosine after." },
  { group: "The adapter", name: "dead", label: "dead at the start", values: whole(0, 12), when: ({ method }) => method !== "IncreLoRA", help: "So many ranks start with a = b = 0, and get no gradient." },
  { group: "The method", name: "target_r", label: "target r", values: whole(1, 16), when: ({ method }) => ["AdaLoRA", "IncreLoRA"].includes(method), help: "The budget, ranks a module at the end." },
  { group: "The method", name: "deltaT", label: "choice every", values: [1, 2, 5, 10, 20], when: ({ method }) => method === "AdaLoRA" },
  { group: "The method", name: "merge_every", label: "restart every", values: [10, 20, 30, 40, 50, 60, 80, 100], when: ({ method }) => method === "ReLoRA" },
  { group: "The method", name: "period", values: [10, 16, 20, 24, 32, 40, 50, 60, 80], when: isBeam, help: "Steps between events." },
  { group: "The method", name: "temperature", values: [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2], when: isBeam, help: "How sharply scores turn into weights." },
  { group: "The method", name: "p_start", label: "share kept, p", values: [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1], when: isBeam, help: "The share of all weight that survives the first event; it rises to 1." },
  { group: "The method", name: "fill", label: "a free slot gets", kind: "chips", values: ["history", "now", "fresh"], when: isBeam, help: "A copy from history, a copy of now, or a fresh rank." },
  { group: "The method", name: "snapshot_lag", label: "copies from", values: whole(0, 40), when: (s) => isBeam(s) && s.fill === "history", help: "How many steps back the copies are taken from." },
];

/** Text of a value as the reader sees it. */
const shown = (value) => (typeof value === "number" ? String(+value.toPrecision(3)) : String(value));

// --- a run that is shown: the settings of a lane, computed as far as it is looked at ---

class Lane {
  constructor(key, settings, edits = []) {
    Object.assign(this, { key, given: settings, edits });
    this.restart();
  }
  restart() {
    this.arena = new Arena(this.given, this.edits);
  }
  at(n) {
    if (this.arena.n > n) this.restart();
    this.arena.runTo(n);
    return this.arena;
  }
  get name() {
    const { method, r, lr } = this.arena.settings;
    return `${method} r ${r}, rate ${shown(lr)}`;
  }
}

// --- state in the address ---

function parsed(text) {
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

/** {settings, b, edits, n, lock} from "#method=LoRA&b.method=BeamLoRA&n=40&lock=r,lr". What is unknown is left out. */
export function fromFragment(fragment) {
  const state = { a: {}, b: null, edits: { a: [], b: [] }, n: 0, lock: [], fork: null };
  for (const [key, value] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    const lane = key.startsWith("b.") ? "b" : "a";
    const name = key.replace(/^b\./, "");
    if (name === "n") state.n = Math.max(0, Math.floor(Number(value)) || 0);
    else if (name === "lock") state.lock = value.split(",");
    else if (name === "fork") state.fork = Math.max(0, Math.floor(Number(value)) || 0);
    else if (name === "edits") state.edits[lane] = value.split(",").map(editFrom).filter(Boolean);
    else if (name === "switches") state.a.switches = value.split(",").map(Number).filter(Number.isInteger);
    else if (lane === "b") state.b = { ...state.b, [name]: parsed(value) };
    else state.a[name] = parsed(value);
  }
  return state;
}

/** "40p0.3": after step 40 rank 3 of module 0 is pruned; "80c0.2.1": rank 1 is copied into slot 2. */
function editFrom(text) {
  const [, step, kind, module, slot, source] = text.match(/^(\d+)([pc])(\d+)\.(\d+)(?:\.(\d+))?$/) ?? [];
  if (!kind) return null;
  const edit = { step: +step, kind: kind === "p" ? "prune" : "copy", module: +module, slot: +slot };
  return kind === "p" ? edit : { ...edit, source: +source };
}
const editText = ({ step, kind, module, slot, source }) =>
  kind === "prune" ? `${step}p${module}.${slot}` : `${step}c${module}.${slot}.${source}`;

// --- the page ---

const STYLE = /* css */ `
.arena { --ink:#1c2431; --soft:#5c6675; --line:#dfe3ea; --card:#ffffff; --page:#f7f8fa; --mark:#fff6e0; --markline:#e5c877;
  --plus:#d9480f; --minus:#2563eb; color:var(--ink); background:var(--page); font:15px/1.45 system-ui, sans-serif; min-height:100vh; }
@media (prefers-color-scheme: dark) { .arena { --ink:#e8ebf0; --soft:#a4adbb; --line:#343c49; --card:#1c222c; --page:#12161d; --mark:#2d2716; --markline:#6b5a24; } }
.arena * { box-sizing:border-box; }
.arena header { display:flex; flex-wrap:wrap; gap:.6rem 1rem; align-items:center; padding:.8rem 1.2rem; background:var(--card); border-bottom:1px solid var(--line); }
.arena h1 { font-size:1.25rem; margin:0; } .arena h2 { font-size:.95rem; margin:0; } .arena h3 { font-size:.72rem; letter-spacing:.06em; text-transform:uppercase; color:var(--soft); margin:1rem 0 .3rem; }
.arena .promise { color:var(--soft); flex:1 1 12rem; }
.arena button, .arena select { font:inherit; color:var(--ink); background:var(--card); border:1px solid var(--line); border-radius:999px; padding:.3rem .75rem; min-height:2.1rem; cursor:pointer; }
.arena button[aria-pressed=true] { background:var(--ink); color:var(--card); border-color:var(--ink); }
.arena button:disabled, .arena input:disabled, .arena select:disabled { opacity:.45; cursor:not-allowed; }
.arena .play { background:var(--ink); color:var(--card); min-width:5.2rem; }
.arena :focus-visible { outline:3px solid #56B4E9; outline-offset:2px; }
.arena .count { font-weight:700; font-size:1.35rem; font-variant-numeric:tabular-nums; } .arena .count small { font-weight:400; font-size:.8rem; color:var(--soft); }
.arena .body { display:grid; grid-template-columns:16rem minmax(0,1fr); }
.arena aside { padding:.4rem 1.2rem 2rem; background:var(--card); border-right:1px solid var(--line); }
.arena main { padding:1rem 1.2rem 2rem; display:grid; gap:1rem; align-content:start; max-width:120rem; }
.arena .card { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:.8rem 1rem; }
.arena .cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr)); gap:1rem; }
.arena .chips { display:flex; flex-wrap:wrap; gap:.35rem; } .arena .chips button { border-radius:7px; padding:.2rem .55rem; font-size:.87rem; }
.arena label.slider { display:grid; grid-template-columns:1fr auto; margin:.45rem 0; font-size:.9rem; } .arena label.slider b { font-variant-numeric:tabular-nums; }
.arena label.slider input { grid-column:1/-1; width:100%; accent-color:var(--ink); height:1.5rem; }
.arena .help, .arena .note { color:var(--soft); font-size:.82rem; margin:.2rem 0; }
.arena canvas { display:block; width:100%; } .arena figure { margin:0; } .arena figcaption { font-size:.85rem; text-align:center; color:var(--soft); } .arena figcaption b { color:var(--ink); }
.arena .maps { display:grid; grid-template-columns:repeat(auto-fit,minmax(8rem,1fr)); gap:1rem; } .arena .maps canvas { aspect-ratio:1; border-radius:6px; image-rendering:pixelated; }
.arena .head { display:flex; flex-wrap:wrap; gap:.2rem .8rem; align-items:baseline; margin-bottom:.4rem; } .arena .head span { color:var(--soft); font-size:.85rem; }
.arena .ranks { display:flex; flex-wrap:wrap; gap:.35rem; margin-top:.6rem; } .arena .ranks button { min-width:2.6rem; border-radius:8px; touch-action:none; }
.arena .ask { background:var(--mark); border-color:var(--markline); } .arena .ask p { margin:.4rem 0; }
.arena table { border-collapse:collapse; font-size:.87rem; } .arena td, .arena th { padding:.15rem .8rem .15rem 0; text-align:left; font-variant-numeric:tabular-nums; }
.arena .hidden { position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%); }
.arena .off { display:none; } .arena .error { color:#b42318; }
@media (prefers-color-scheme: dark) { .arena .error { color:#ff9c8f; } }
@media (max-width: 760px) { .arena .body { grid-template-columns:minmax(0,1fr); } .arena aside { order:2; border:0; } .arena .maps { grid-template-columns:repeat(2,1fr); } .arena .promise { display:none; } }
`;

/** An element with attributes and children; on* are listeners. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A canvas that is as sharp as the screen: its context, and its width and height in CSS pixels. */
function sharp(canvas, height) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 300;
  const tall = height ?? width;
  const [w, t] = [Math.round(width * scale), Math.round(tall * scale)];
  if (canvas.width !== w || canvas.height !== t) Object.assign(canvas, { width: w, height: t });
  if (height) canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, tall);
  return [context, width, tall];
}

/** Blue for less, orange for more, paper for nothing; reach: the value of the full colour. */
function colour(value, reach, paper) {
  const share = Math.max(-1, Math.min(1, reach > 0 ? value / reach : 0));
  const full = share > 0 ? [217, 72, 15] : [37, 99, 235];
  return paper.map((p, i) => Math.round(p + (full[i] - p) * Math.abs(share)));
}

export function mount(root, { settings = {}, fragment = "" } = {}) {
  const view = new View(root, { ...settings }, fragment);
  return view.api();
}

class View {
  constructor(root, settings, fragment) {
    const state = fromFragment(fragment);
    this.given = { a: { ...settings, ...state.a }, b: state.b };
    this.edits = state.edits;
    this.fork = state.b ? state.fork : null;
    this.lock = state.lock;
    this.n = state.n;
    this.tab = "a";
    this.module = 0;
    this.speed = 1;
    this.playing = false;
    this.chosen = null; // a rank that waits to be copied
    this.experiment = null;
    this.calm = window.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;
    this.build(root);
    this.set({});
    window.addEventListener("resize", () => this.draw());
    window.matchMedia?.("(prefers-color-scheme: dark)").addEventListener?.("change", () => this.draw());
  }

  // --- what is shown, as numbers ---

  lanes() {
    return this.b ? [this.a, this.b] : [this.a];
  }
  get steps() {
    return this.a.arena.settings.steps;
  }

  /** Takes settings over for the lane of the tab (the world's: for both); what can't be is said and left. */
  set(changes, lane = this.tab) {
    const before = { given: { ...this.given }, edits: { ...this.edits } };
    for (const [name, value] of Object.entries(changes)) {
      const both = SHARED.includes(name) || lane === "a";
      const to = both ? "a" : "b";
      this.given[to] = { ...this.given[to], [name]: value };
    }
    try {
      this.compute();
      this.say("");
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      Object.assign(this, before);
      if (this.a) this.compute();
      else this.fallBack();
      this.say(error.message);
    }
    this.n = Math.min(this.n, this.steps);
    this.refresh();
  }
  fallBack() {
    this.given = { a: {}, b: null };
    this.edits = { a: [], b: [] };
    this.compute();
  }
  compute() {
    const a = fitting(this.given.a);
    const shared = Object.fromEntries(SHARED.filter((name) => name in a).map((name) => [name, a[name]]));
    const lane = new Lane("a", a, this.edits.a);
    let b = null;
    if (this.given.b && this.fork !== null) {
      const kept = this.edits.a.filter(({ step }) => step <= this.fork);
      const change = { step: this.fork, kind: "set", settings: this.given.b };
      complete({ ...a, ...this.given.b }); // what it refuses is refused here, before anything is replaced
      b = new Lane("b", a, [...kept, change, ...this.edits.b]);
    } else if (this.given.b) {
      b = new Lane("b", fitting({ ...this.given.b, ...shared }), this.edits.b);
    }
    for (const each of [lane, b]) each?.at(this.n);
    Object.assign(this, { a: lane, b });
    this.module = Math.min(this.module, lane.arena.layers.length - 1);
  }

  go(n) {
    this.n = Math.max(0, Math.min(Math.round(n), this.steps));
    for (const lane of this.lanes()) lane.at(this.n);
    this.draw();
  }

  state() {
    const of = (lane) => lane && {
      settings: lane.arena.settings, n: lane.arena.n, loss: lane.arena.losses.at(-1) ?? null, left: lane.arena.left.at(-1),
      sizes: lane.arena.sizes.at(-1).map((of) => Array.from(of)), events: lane.arena.events,
      effective_rank: lane.arena.layers.map((_, k) => effectiveRank(singularValues(lane.arena.delta(k)))),
    };
    return { n: this.n, playing: this.playing, fork: this.fork, a: of(this.a), b: of(this.b), fragment: this.fragment() };
  }

  fragment() {
    const parts = new URLSearchParams();
    for (const [name, value] of Object.entries(this.given.a)) if (value !== null && value !== undefined) parts.set(name, value);
    for (const [name, value] of Object.entries(this.given.b ?? {})) if (value !== null && value !== undefined) parts.set(`b.${name}`, value);
    if (this.given.b && !Object.keys(this.given.b).length) parts.set("b.method", this.b.arena.settings.method);
    if (this.edits.a.length) parts.set("edits", this.edits.a.map(editText));
    if (this.edits.b.length) parts.set("b.edits", this.edits.b.map(editText));
    if (this.fork !== null) parts.set("fork", this.fork);
    if (this.n) parts.set("n", this.n);
    if (this.lock.length) parts.set("lock", this.lock);
    return `#${parts}`.replaceAll("%2C", ",");
  }

  // --- what the reader does ---

  play(on = !this.playing) {
    this.playing = on;
    if (on && this.n >= this.steps) this.go(0);
    this.last = 0;
    if (on) requestAnimationFrame((time) => this.frame(time));
    this.refresh();
  }
  frame(time) {
    if (!this.playing) return;
    const wait = this.speed < 1 ? 1000 * (1 / (60 * this.speed)) : this.calm ? 250 : 0;
    if (time - this.last >= wait) {
      this.last = time;
      this.go(this.n + Math.max(1, Math.round(this.calm ? 10 * this.speed : this.speed)));
      this.frames = (this.frames ?? 0) + 1;
    }
    if (this.n >= this.steps) this.play(false);
    else requestAnimationFrame((next) => this.frame(next));
  }
  reset() {
    this.edits = { a: [], b: [] };
    this.unfork();
    this.n = 0;
    this.playing = false;
    this.set({ switches: [] });
  }
  unfork() {
    if (this.fork === null) return;
    this.fork = null;
    this.given.b = null;
    this.tab = "a";
  }
  /** The second lane: the first up to here, from here on with settings of its own. */
  forkHere() {
    if (this.fork !== null) this.unfork();
    else {
      this.fork = this.n;
      this.given.b = { lr: this.a.arena.settings.lr };
      this.edits.b = [];
      this.tab = "b";
    }
    this.set({});
  }
  compare(on) {
    this.unfork();
    this.given.b = on ? { method: this.a.arena.settings.method === "LoRA" ? "BeamLoRA" : "LoRA" } : null;
    this.edits.b = [];
    this.tab = on ? "b" : "a";
    this.set({});
  }
  switchNow() {
    const { switches } = this.a.arena.settings;
    this.set({ switches: [...switches.filter((step) => step !== this.n), Math.max(1, this.n)] });
  }
  /** Edits what lies ahead anew: what was done by hand later is dropped. */
  byHand(kind, slot, source = null) {
    const lane = this.tab;
    const earlier = this.edits[lane].filter(({ step }) => step <= this.n);
    const edit = { step: this.n, kind, module: this.module, slot };
    this.edits = { ...this.edits, [lane]: [...earlier, source === null ? edit : { ...edit, source }] };
    this.chosen = null;
    this.set({});
  }
  tryExperiment(k) {
    this.playing = false;
    this.experiment = EXPERIMENTS[k];
    const { a, b = null } = this.experiment;
    Object.assign(this, { given: { a: { ...a }, b: b && { ...b } }, edits: { a: [], b: [] }, fork: null, n: 0, tab: "a", answered: false });
    this.set({});
    this.play(true);
    this.parts.ask.scrollIntoView?.({ block: "nearest" });
  }

  // --- building ---

  build(root) {
    const part = (this.parts = {});
    const button = (name, text, action, label = text) => (part[name] = h("button", { type: "button", "aria-label": label, onclick: action }, text));
    root.replaceChildren(h("style", {}, STYLE), (part.page = h("div", { class: "arena" },
      h("header", {},
        h("h1", {}, "Rank arena"), h("span", { class: "promise" }, "train a low-rank adapter, in front of you"),
        button("reset", "⟲", () => this.reset(), "reset: back to step 0, settings and start weights stay"),
        button("back", "◂ step", () => this.go(this.n - 1), "one step back"),
        button("play", "▶ play", () => this.play()),
        button("step", "step ▸", () => this.go(this.n + 1), "one step"),
        (part.speed = h("select", { "aria-label": "speed", onchange: (event) => (this.speed = Number(event.target.value)) },
          [[0.1, "slow"], [1, "1 step a frame"], [3, "fast"]].map(([v, text]) => h("option", { value: v, selected: v === 1 }, text)))),
        (part.count = h("div", { class: "count" })),
      ),
      h("div", { class: "body" },
        (part.side = h("aside", { "aria-label": "settings" })),
        h("main", {},
          h("div", { class: "card" }, (part.time = h("input", { type: "range", min: 0, value: 0, style: "width:100%", "aria-label": "step: rewind, or go on", oninput: (event) => this.pauseAt(Number(event.target.value)) })),
            h("p", { class: "note" }, "Drag to rewind to any step. Space plays, arrow keys step. Whatever you change, the run is computed anew up to this step."),
            (part.error = h("p", { class: "error", role: "alert" }))),
          (part.maps = h("div", { class: "maps card" })),
          (part.rivers = h("div", { class: "cards" })),
          h("div", { class: "cards" },
            h("div", { class: "card" }, (part.leftHead = h("div", { class: "head" })), (part.left = h("canvas", { role: "img" }))),
            h("div", { class: "card" }, (part.spectrumHead = h("div", { class: "head" })), (part.spectrum = h("canvas", { role: "img" })))),
          (part.ask = h("div", { class: "card ask" })),
          h("details", { class: "card" }, h("summary", {}, "In words and numbers"), (part.words = h("div"))),
          (part.live = h("p", { class: "hidden", "aria-live": "polite" })),
        )))));
    part.page.addEventListener("keydown", (event) => this.key(event));
    this.buildRivers();
  }
  pauseAt(n) {
    if (this.playing) this.play(false);
    this.go(n);
  }
  key(event) {
    if (["INPUT", "SELECT", "BUTTON", "SUMMARY"].includes(event.target.tagName) && event.key !== "Escape") return;
    const actions = { " ": () => this.play(), ArrowRight: () => this.pauseAt(this.n + 1), ArrowLeft: () => this.pauseAt(this.n - 1), Home: () => this.pauseAt(0), End: () => this.pauseAt(this.steps) };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  }

  buildRivers() {
    this.rivers = ["a", "b"].map((key) => {
      const head = h("div", { class: "head" });
      const canvas = h("canvas", { role: "img", onclick: (event) => this.clickRiver(key, event) });
      const ranks = h("div", { class: "ranks", role: "group", "aria-label": "the ranks of this lane" });
      const card = h("section", { class: "card" }, head, canvas, ranks);
      this.parts.rivers.append(card);
      return { key, card, head, canvas, ranks };
    });
  }

  /** Rebuilds the controls; keeps the focus where it was. */
  refresh() {
    const held = document.activeElement?.dataset?.name;
    const lane = this.tab === "b" && this.b ? this.b : this.a;
    const settings = lane.arena.settings;
    const side = [this.laneTabs()];
    let group = null;
    for (const control of CONTROLS) {
      if (!(control.name in settings) || (control.when && !control.when(settings))) continue;
      if (control.group !== group) side.push(h("h3", {}, (group = control.group)));
      side.push(this.control(control, settings));
      if (control.name === "seed") {
        side.push(h("div", { class: "chips" }, h("button", { type: "button", "data-name": "switch", disabled: this.locked("switches"), onclick: () => this.switchNow() }, "switch the task now")));
      }
    }
    side.push(h("h3", {}, "Experiments"), h("div", { class: "chips" }, EXPERIMENTS.map(({ title }, k) =>
      h("button", { type: "button", "data-name": `experiment${k}`, onclick: () => this.tryExperiment(k) }, title))));
    this.parts.side.replaceChildren(...side);
    this.parts.side.querySelector(`[data-name="${held}"]`)?.focus();
    this.parts.play.textContent = this.playing ? "❚❚ pause" : "▶ play";
    this.parts.play.setAttribute("aria-label", this.playing ? "pause" : "play");
    this.parts.time.max = this.steps;
    this.drawAsk();
    this.draw();
  }
  laneTabs() {
    const tab = (key, text) => h("button", { type: "button", "data-name": `tab${key}`, "aria-pressed": String(this.tab === key), onclick: () => { this.tab = key; this.refresh(); } }, text);
    const second = this.given.b
      ? [tab("a", "first lane"), tab("b", this.fork === null ? "second lane" : `fork at ${this.fork}`)]
      : [];
    const one = h("button", { type: "button", "data-name": "compare", disabled: this.locked("compare"), onclick: () => this.compare(!this.given.b) }, this.given.b ? "one lane" : "compare two");
    const fork = h("button", { type: "button", "data-name": "fork", disabled: this.locked("compare") || (this.given.b !== null && this.fork === null), onclick: () => this.forkHere() }, this.fork === null ? "fork here" : "end the fork");
    return h("div", { class: "chips", style: "margin-top:.7rem" }, second, one, fork);
  }
  locked(name) {
    return this.lock.includes(name) || this.lock.includes("all");
  }
  control({ name, label = name, kind = "slider", values, help }, settings) {
    const fixed = this.locked(name) || (this.tab === "b" && this.fork !== null && !LIVE.includes(name));
    const value = settings[name];
    const about = help ? h("span", { class: "hidden", id: `about-${name}` }, help) : null;
    const describe = help ? { "aria-describedby": `about-${name}`, title: help } : {};
    if (kind === "chips") {
      return h("div", { class: "chips", role: "group", "aria-label": label, style: "margin:.4rem 0", ...describe },
        label !== name ? h("span", { class: "note", style: "flex-basis:100%" }, label) : null,
        values.map((each) => h("button", { type: "button", "data-name": `${name}-${each}`, disabled: fixed, "aria-pressed": String(each === value), onclick: () => this.choose(name, each) }, each)), about);
    }
    if (kind === "select") {
      return h("label", { class: "slider", ...describe }, label,
        h("select", { "data-name": name, disabled: fixed, onchange: (event) => this.set({ [name]: event.target.value }) }, values.map((each) => h("option", { selected: each === value }, each))), about);
    }
    const near = values.reduce((best, each, i) => (Math.abs(each - value) < Math.abs(values[best] - value) ? i : best), 0);
    return h("label", { class: "slider", ...describe }, label, h("b", {}, shown(value)),
      h("input", { type: "range", "data-name": name, min: 0, max: values.length - 1, value: near, disabled: fixed, "aria-valuetext": shown(value), oninput: (event) => this.set({ [name]: values[event.target.value] }) }), about);
  }
  /** Another method or world: what belonged to the one before goes. */
  choose(name, value) {
    if (name !== "method") return this.set({ [name]: value });
    const lane = this.tab === "b" && this.given.b ? "b" : "a";
    this.edits = { ...this.edits, [lane]: [] };
    return this.set({ method: value }, lane);
  }
  say(text) {
    this.parts.error.textContent = text;
  }

  // --- drawing ---

  draw() {
    const { parts } = this;
    const css = getComputedStyle(parts.page);
    this.ink = css.getPropertyValue("--ink").trim();
    this.soft = css.getPropertyValue("--soft").trim();
    this.paper = css.getPropertyValue("--card").trim();
    this.paperRgb = [1, 3, 5].map((i) => parseInt(this.paper.slice(i, i + 2), 16));
    parts.count.replaceChildren(String(this.n), h("small", {}, ` of ${this.steps} steps`));
    parts.time.value = this.n;
    parts.time.setAttribute("aria-valuetext", `step ${this.n} of ${this.steps}`);
    this.drawMaps();
    this.rivers.forEach((river) => this.drawRiver(river));
    this.drawLeft();
    this.drawSpectrum();
    this.words();
    if (!this.playing && this.onstate) this.onstate(this.fragment());
  }

  /** Canvases of the maps row, made anew only when their number changes. */
  mapCanvases(captions) {
    const { maps } = this.parts;
    if (maps.childElementCount !== captions.length) {
      maps.replaceChildren(...captions.map(() => h("figure", {}, h("canvas", { role: "img" }), h("figcaption"))));
    }
    return captions.map(([title, text, alt], k) => {
      const figure = maps.children[k];
      figure.children[1].replaceChildren(h("b", {}, title), h("br"), text);
      figure.children[0].setAttribute("aria-label", alt);
      return figure.children[0];
    });
  }
  drawMaps() {
    const { world } = this.a.arena.settings;
    (world === "matrix" ? this.matrixMaps() : this.planeMaps());
  }
  matrixMaps() {
    const { change, layers: [{ W }] } = this.a.arena.world;
    const found = this.lanes().map((lane) => lane.arena.delta());
    const leftOf = (delta) => change.map((row, i) => row.map((x, j) => x - delta[i][j]));
    const missing = (lane) => `${percent(lane.arena.left.at(-1))} of the change`;
    const maps = [[W, "W, frozen", `${W.length} × ${W.length}`], [change, "hidden change", `true rank ${this.a.arena.settings.true_rank}`]];
    this.lanes().forEach((lane, k) => {
      const { method } = lane.arena.settings;
      const rank = effectiveRank(singularValues(found[k]));
      maps.push([found[k], `${method}'s update`, `effective rank ${rank.toFixed(1)}`], [leftOf(found[k]), "what is left", missing(lane)]);
    });
    const reach = Math.max(...change.map((row) => Math.max(...row.map(Math.abs)))) || 1;
    const canvases = this.mapCanvases(maps.map(([, title, text]) => [title, text, `Heat map: ${title}, ${text}.`]));
    maps.forEach(([matrix], k) => this.heat(canvases[k], matrix, reach));
  }
  heat(canvas, matrix, reach) {
    const [rows, columns] = [matrix.length, matrix[0].length];
    const context = canvas.getContext("2d");
    if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
    const image = context.createImageData(columns, rows);
    matrix.forEach((row, i) => row.forEach((value, j) => image.data.set([...colour(value, reach, this.paperRgb), 255], 4 * (i * columns + j))));
    context.putImageData(image, 0, 0);
  }
  planeMaps() {
    const { arena } = this.a;
    const grid = 24;
    const wanted = (pattern) => Array.from({ length: grid }, (_, j) => Array.from({ length: grid }, (_, i) => (inside(pattern, (i - 11.5) / 12, (11.5 - j) / 12) ? 0.55 : -0.55)));
    const surface = (lane) => Array.from({ length: grid }, (_, j) => Array.from({ length: grid }, (_, i) => lane.arena.world.surface[i * grid + (grid - 1 - j)]));
    const maps = [[wanted(arena.settings.base), "learned before", arena.settings.base], [wanted(arena.world.pattern), "to learn now", arena.world.pattern]];
    for (const lane of this.lanes()) {
      maps.push([surface(lane).map((row) => row.map((z) => Math.tanh(z / 2))), `${lane.arena.settings.method} decides`, `${percent(lane.arena.left.at(-1))} of the plane wrong`]);
    }
    const canvases = this.mapCanvases(maps.map(([, title, text]) => [title, text, `Map of the plane: ${title}, ${text}.`]));
    maps.forEach(([matrix], k) => this.heat(canvases[k], matrix, 1));
  }

  drawRiver({ key, card, head, canvas, ranks }) {
    const lane = this[key];
    card.classList.toggle("off", !lane);
    if (!lane) return;
    const { arena } = lane;
    const events = arena.events.filter(({ module, kind }) => module === this.module && kind !== "restart");
    const river = livesOf(arena.sizes[0][this.module].length, events);
    const before = Object.fromEntries(Object.entries(arena.before).map(([n, of]) => [n, of[this.module]]));
    const points = widthsOf(river, arena.sizes.map((of) => of[this.module]), before);
    lane.river = { river, points };
    const [context, w, tall] = sharp(canvas, 190);
    const axis = tall - 20;
    drawRiver(context, w, axis, river, points, { steps: this.steps, paper: this.paper });
    context.strokeStyle = context.fillStyle = this.soft;
    context.font = "11px system-ui, sans-serif";
    context.setLineDash([2, 3]);
    for (const step of new Set(arena.events.map((event) => event.step))) line(context, (step / this.steps) * w, 0, (step / this.steps) * w, axis);
    context.setLineDash([]);
    for (let k = 0; k <= 4; k++) {
      context.textAlign = k === 0 ? "left" : k === 4 ? "right" : "center";
      context.fillText(Math.round((k / 4) * this.steps), (k / 4) * w, tall - 5);
    }
    const width = arena.settings.method === "BeamLoRA" ? "width: weight" : "width: size of what a rank adds";
    const alive = `${river.eras.at(-1).seats.length} ranks, ${familiesLeft(river)} families`;
    head.replaceChildren(h("h2", {}, `Rank river · ${lane.name}`), h("span", {}, `${width}; colour, number: first rank; fork: copy; pale: pruned. ${alive}`), ...this.moduleTabs(arena));
    canvas.setAttribute("aria-label", `Rank river of ${lane.name}. ${alive}. ${lastEvent(arena)}`);
    this.drawRanks(lane, ranks, river.eras.at(-1).seats);
  }
  moduleTabs(arena) {
    if (arena.layers.length < 2) return [];
    return arena.layers.map((_, k) => h("button", { type: "button", "aria-pressed": String(k === this.module), onclick: () => { this.module = k; this.draw(); } }, `layer ${k + 1}`));
  }
  /** A button for each rank: press one and then another to copy the first onto the second; Delete prunes. */
  drawRanks(lane, box, seats) {
    const can = lane.arena.settings.method !== "IncreLoRA" && !this.locked("edits");
    const focused = [...box.children].indexOf(document.activeElement);
    const sizes = lane.arena.sizes.at(-1)[this.module];
    const total = sizes.reduce((sum, x) => sum + x, 0);
    if (box.childElementCount !== seats.length + 2) {
      const buttons = seats.map((_, slot) => h("button", {
        type: "button", draggable: "true", onclick: () => this.pick(lane.key, slot),
        onkeydown: (event) => { if (["Delete", "Backspace"].includes(event.key)) this.onLane(lane.key, () => this.byHand("prune", slot)); },
        ondragstart: (event) => { this.chosen = { key: lane.key, slot }; event.dataTransfer?.setData("text/plain", String(slot)); },
        ondragover: (event) => event.preventDefault(),
        ondrop: (event) => { event.preventDefault(); this.pick(lane.key, slot); },
      }));
      const prune = h("button", { type: "button", onclick: () => this.onLane(lane.key, () => this.chosen && this.byHand("prune", this.chosen.slot)) }, "prune it");
      box.replaceChildren(...buttons, prune, h("span", { class: "note" }));
    }
    seats.forEach(({ founder }, slot) => {
      const button = box.children[slot];
      const share = total > 0 ? sizes[slot] / total : 0;
      const on = this.chosen?.key === lane.key && this.chosen.slot === slot;
      button.textContent = String(slot);
      button.style.cssText = `background:${FOUNDERS[founder % FOUNDERS.length]};color:${inkOn(founder)};outline:${on ? "3px solid var(--ink)" : ""}`;
      button.setAttribute("aria-label", `rank ${slot}, ${percent(share)} of the weight, descends from ${founder}${on ? ", chosen" : ""}`);
      button.setAttribute("aria-pressed", String(on));
      button.disabled = !can;
    });
    const [prune, note] = [box.children[seats.length], box.children[seats.length + 1]];
    prune.disabled = !can || this.chosen?.key !== lane.key;
    note.textContent = !can ? "" : this.chosen?.key === lane.key
      ? `Rank ${this.chosen.slot} is chosen: press another to put a copy of it there, or prune it.`
      : "By hand: press a rank to prune it, or drag it onto another to copy it there.";
    if (focused >= 0) box.children[Math.min(focused, box.childElementCount - 2)]?.focus();
  }
  onLane(key, action) {
    this.tab = key;
    action();
  }
  pick(key, slot) {
    if (this.playing) this.play(false);
    if (this.chosen?.key === key && this.chosen.slot !== slot) return this.onLane(key, () => this.byHand("copy", slot, this.chosen.slot));
    this.chosen = this.chosen?.key === key ? null : { key, slot };
    return this.draw();
  }
  clickRiver(key, event) {
    const { points, river } = this[key].river;
    const share = event.offsetY / 170;
    let sum = 0;
    const k = Array.from(points.at(-1).widths).findIndex((width) => (sum += width) > share);
    const slot = river.eras.at(-1).seats.indexOf(river.lives[k]);
    if (slot >= 0 && this[key].arena.settings.method !== "IncreLoRA" && !this.locked("edits")) this.pick(key, slot);
  }

  drawLeft() {
    const plane = this.a.arena.settings.world === "plane";
    const title = plane ? "Share of the plane on the wrong side" : "Share of the change that is missing";
    const values = this.lanes().map((lane) => `${lane.key === "a" ? "—" : "- -"} ${lane.arena.settings.method} ${percent(lane.arena.left.at(-1))}, loss ${shown(lane.arena.losses.at(-1) ?? NaN)}`);
    this.parts.leftHead.replaceChildren(h("h2", {}, title), ...values.map((text, k) => h("span", { style: `color:${this.b ? LANE["ab"[k]] : ""}` }, text)));
    const [context, w, tall] = sharp(this.parts.left, 190);
    const [left, bottom] = [38, tall - 20];
    const top = Math.max(plane ? 0.5 : 1, ...this.lanes().flatMap((lane) => lane.arena.left));
    const x = (n) => left + (n / this.steps) * (w - left - 6);
    const y = (value) => bottom - (value / top) * (bottom - 8);
    this.axes(context, w, left, bottom, top, y);
    for (const lane of this.lanes()) {
      context.strokeStyle = LANE[lane.key];
      context.lineWidth = 2.2;
      context.setLineDash(lane.key === "a" ? [] : [6, 4]);
      context.beginPath();
      lane.arena.left.forEach((value, n) => context.lineTo(x(n), y(value)));
      context.stroke();
      context.setLineDash([]);
    }
    this.parts.left.setAttribute("aria-label", `${title}, over ${this.n} steps. Now: ${values.join("; ")}.`);
  }
  axes(context, w, left, bottom, top, y) {
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = this.soft;
    context.textAlign = "right";
    for (const value of [0, top / 2, top]) {
      context.strokeStyle = this.soft;
      context.globalAlpha = 0.25;
      line(context, left, y(value), w - 6, y(value));
      context.globalAlpha = 1;
      context.fillText(percent(value), left - 5, y(value) + 4);
    }
    context.textAlign = "center";
    for (let k = 0; k <= 4; k++) context.fillText(Math.round((k / 4) * this.steps), left + (k / 4) * (w - left - 16) + 4, bottom + 14);
  }

  drawSpectrum() {
    const { arena } = this.a;
    const sets = this.lanes().map((lane) => ({ colour: LANE[lane.key], name: lane.arena.settings.method, values: singularValues(lane.arena.delta(Math.min(this.module, lane.arena.layers.length - 1))) }));
    if (arena.settings.world === "matrix") sets.unshift({ colour: "#8C8C8C", name: "hidden", values: singularValues(arena.world.change) });
    const [context, w, tall] = sharp(this.parts.spectrum, 190);
    const count = Math.min(12, Math.max(...sets.map(({ values }) => values.length)));
    const top = Math.max(1e-9, ...sets.map(({ values }) => values[0]));
    const slot = w / count;
    const wide = (slot * 0.72) / sets.length;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    for (let k = 0; k < count; k++) {
      sets.forEach(({ colour: fill, values }, j) => {
        const high = ((values[k] ?? 0) / top) * (tall - 26);
        context.fillStyle = fill;
        context.fillRect(k * slot + slot * 0.14 + j * wide, tall - 20 - high, Math.max(1, wide - 1.5), high);
      });
      context.fillStyle = this.soft;
      context.fillText(k + 1, (k + 0.5) * slot, tall - 5);
    }
    const legend = sets.map(({ name, colour: fill }) => h("span", {}, h("i", { style: `display:inline-block;width:.7em;height:.7em;background:${fill};margin-right:.3em` }), name));
    this.parts.spectrumHead.replaceChildren(h("h2", {}, "Singular values of the update"), ...legend);
    const words = sets.map(({ name, values }) => `${name} ${Array.from(values).slice(0, 6).map((s) => s.toFixed(2)).join(", ")}`).join("; ");
    this.parts.spectrum.setAttribute("aria-label", `Singular values, the largest first: ${words}.`);
  }

  drawAsk() {
    const { ask } = this.parts;
    if (!this.experiment) {
      ask.replaceChildren(h("h2", {}, "Six experiments"), h("p", {}, "One click, one question, one answer. Or change anything on the left and watch."),
        h("div", { class: "chips" }, EXPERIMENTS.map(({ title }, k) => h("button", { type: "button", onclick: () => this.tryExperiment(k) }, title))));
      return;
    }
    const { title, question, answer } = this.experiment;
    const reveal = h("button", { type: "button", onclick: () => this.reveal(answer) }, "I have a guess: show the answer");
    ask.replaceChildren(h("h2", {}, title), h("p", {}, question), (this.answer = h("p", { role: "status" }, this.answered || reveal)));
  }
  reveal(answer) {
    const run = (changes) => simulate(changes);
    const { a, b } = this.experiment;
    this.answered = answer({ a: run(a), b: b && run({ ...a, ...b }), run, percent, base: a });
    this.drawAsk();
  }

  words() {
    const rows = this.lanes().map((lane) => {
      const { arena } = lane;
      const ranks = arena.layers.map((_, k) => effectiveRank(singularValues(arena.delta(k))).toFixed(2));
      return h("tr", {}, [lane.name, arena.losses.at(-1)?.toFixed(4) ?? "none yet", percent(arena.left.at(-1)), ranks.join(" and "), arena.sizes.at(-1)[this.module].length, lastEvent(arena)].map((text) => h("td", {}, String(text))));
    });
    const head = h("tr", {}, ["lane", "loss of the last batch", "missing", "effective rank", "ranks", "last event"].map((text) => h("th", { scope: "col" }, text)));
    this.parts.words.replaceChildren(h("table", {}, h("thead", {}, head), h("tbody", {}, rows)));
    const spoken = `Step ${this.n} of ${this.steps}. ${this.lanes().map((lane) => `${lane.name}: ${percent(lane.arena.left.at(-1))} missing. ${lastEvent(lane.arena)}`).join(" ")}`;
    if (!this.playing || this.n % 50 === 0) this.parts.live.textContent = spoken;
  }

  /** What a page and its tests may call. */
  api() {
    return {
      simulate: (settings) => simulate(settings),
      state: () => this.state(),
      set: (changes, lane) => this.set(changes, lane),
      go: (n) => this.pauseAt(n),
      play: (on) => this.play(on),
      experiments: EXPERIMENTS.map(({ title }) => title),
      frames: () => this.frames ?? 0,
      onstate: (listener) => (this.onstate = listener),
    };
  }
}

const line = (context, x0, y0, x1, y1) => {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
};
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

/** Settings of another method are left out, so that going from one to the next keeps what they share. */
function fitting(given) {
  const known = complete({ method: given.method, world: given.world });
  return Object.fromEntries(Object.entries(given).filter(([name]) => name in known || !(name in ALL)));
}
const ALL = Object.assign({}, ...METHODS.map((method) => complete({ method })));

function lastEvent(arena) {
  const last = arena.events.at(-1);
  if (!last) return "No event yet.";
  const same = arena.events.filter(({ step, kind }) => step === last.step && kind === last.kind);
  const where = arena.layers.length > 1 ? (event) => ` of layer ${event.module + 1}` : () => "";
  const told = {
    expand: (event) => (event.source === null ? `rank ${event.slot} made room` : `rank ${event.slot}${where(event)} made room for a copy of ${event.source}`),
    prune: (event) => `rank ${event.slot}${where(event)} was pruned`,
    revive: (event) => `rank ${event.slot}${where(event)} came back`,
    grow: (event) => `rank ${event.slot}${where(event)} grew`,
    restart: () => "all ranks started anew",
  }[last.kind];
  return `At step ${last.step}: ${[...new Set(same.map(told))].join(", ")}.`;
}
