// The arena: a low-rank adapter that trains in front of you. The engine computes, this shows and listens.

import { CONTROLS, LIVE } from "./controls.js";
import { simulate } from "./engine.js";
import { EXPERIMENTS } from "./experiments.js";
import { Guide, explained } from "./guide.js";
import { Controls } from "./inputs.js";
import { lastEvent, namesOf } from "./lane.js";
import { LOOK, h, mark, onKeys, percent, tell } from "./look.js";
import { Panels } from "./panels.js";
import { Session } from "./session.js";

const SPEEDS = [
  [0.1, "slow"],
  [1, "1 step a frame"],
  [4, "fast"],
];

export function mount(root, { settings = {}, fragment = "" } = {}) {
  return new View(root, settings, fragment).api();
}

class View extends Session {
  constructor(root, settings, fragment) {
    super(settings);
    this.build(root);
    this.load(fragment);
    new ResizeObserver(() => this.draw()).observe(this.parts.main);
    window.matchMedia?.("(prefers-color-scheme: dark)").addEventListener?.("change", () => this.draw());
  }
  say(text) {
    tell(this.parts.error, text);
  }
  drawAsk() {
    this.guide.draw();
  }
  focusRank(key, slot) {
    this.panels.focusRank(key, slot);
  }

  // --- the page ---

  build(root) {
    const part = (this.parts = {});
    const button = (name, text, label, onclick) =>
      (part[name] = h("button", { type: "button", class: name, "aria-label": label, title: label, onclick }, text));
    part.lanes = h("div", { class: "chips", style: "margin-top:.7rem" });
    part.controls = h("div");
    part.side = h(
      "details",
      { open: window.innerWidth > 760 },
      h("summary", {}, "Settings"),
      part.lanes,
      part.controls,
    );
    part.switching = h(
      "div",
      { class: "chips" },
      (part.switch = h(
        "button",
        { type: "button", "data-name": "switch", onclick: () => this.switchNow() },
        "switch the task now",
      )),
    );
    root.replaceChildren(
      h("style", {}, LOOK),
      (part.page = h(
        "div",
        { class: "view" },
        h(
          "header",
          {},
          h("h1", {}, "Rank arena"),
          h("span", { class: "promise" }, "train a low-rank adapter, in front of you"),
          button("reset", "⟲ start", "back to step 0; settings and start weights stay", () => this.pauseAt(0)),
          button("back", "◂ step", "one step back", () => this.pauseAt(this.n - 1)),
          button("play", "▶ play", "play", () => this.play()),
          button("step", "step ▸", "one step", () => this.pauseAt(this.n + 1)),
          button("undo", "undo", "undo the last change", () => this.undo()),
          h(
            "select",
            { "aria-label": "speed", onchange: (event) => (this.speed = Number(event.target.value)) },
            SPEEDS.map(([value, text]) => h("option", { value, selected: value === 1 }, text)),
          ),
          h("div", { class: "count" }, (part.count = h("span", {}, "0")), (part.of = h("small"))),
          (part.error = h("p", { class: "error", role: "alert" })),
        ),
        h(
          "div",
          { class: "body" },
          h("aside", { "aria-label": "settings" }, part.side),
          (part.main = h(
            "main",
            {},
            (part.ask = h("section", { class: "card ask", "aria-label": "experiments" })),
            h(
              "div",
              { class: "card" },
              (part.time = h("input", {
                type: "range",
                min: 0,
                value: 0,
                style: "width:100%",
                "aria-label": "step: rewind, or go on",
                oninput: (event) => this.pauseAt(Number(event.target.value)),
              })),
              h(
                "p",
                { class: "note" },
                "Drag to rewind. Space plays, arrow keys step. A change computes the run anew, up to this step.",
              ),
            ),
            (part.maps = h("div", { class: "maps card" })),
            (part.rivers = h("div", { class: "cards" })),
            (part.charts = h("div", { class: "cards" })),
            (part.numbers = h(
              "details",
              { class: "card", ontoggle: () => this.draw() },
              h("summary", {}, "In words and numbers: what everything is"),
              h(
                "div",
                { class: "scroll", tabindex: "0", role: "region", "aria-label": "numbers" },
                (part.words = h("table")),
              ),
              explained(),
            )),
            (part.live = h("p", { class: "hidden", "aria-live": "polite" })),
          )),
        ),
      )),
    );
    onKeys(part.page, {
      " ": () => this.play(),
      ArrowRight: () => this.pauseAt(this.n + 1),
      ArrowLeft: () => this.pauseAt(this.n - 1),
      Home: () => this.pauseAt(0),
      End: () => this.pauseAt(this.steps),
    });
    this.guide = new Guide(this, part.ask);
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
    const button = (name, text, { pressed, disabled = false, onclick }) =>
      h("button", { type: "button", "data-name": name, "aria-pressed": pressed, disabled, onclick }, text);
    const tab = (key, text) =>
      button(`tab${key}`, text, {
        pressed: String(this.tab === key),
        onclick: () => {
          this.tab = key;
          this.refresh();
        },
      });
    const locked = this.locked("compare");
    lanes.replaceChildren(
      ...[
        this.b && tab("a", "first lane"),
        this.b && tab("b", this.fork === null ? "second lane" : `fork at ${this.fork}`),
        this.fork === null &&
          button("compare", this.b ? "one lane" : "compare two", { disabled: locked, onclick: () => this.compare() }),
        !(this.b && this.fork === null) &&
          button("fork", this.fork === null ? "fork here" : "end the fork", {
            disabled: locked,
            onclick: () => this.forkHere(),
          }),
      ].filter(Boolean),
    );
    lanes.querySelector(`[data-name="${held}"]`)?.focus();
  }
  showPlaying() {
    const { play } = this.parts;
    tell(play, this.playing ? "❚❚ pause" : "▶ play");
    for (const name of ["aria-label", "title"]) mark(play, name, this.playing ? "pause" : "play");
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
    parts.switch.disabled =
      this.locked("switches") || (this.tab === "b" && this.fork !== null) || this.n < 1 || this.n >= this.steps;
    this.panels.draw(seen);
    if (parts.numbers.open) this.tabulate(seen);
    if (!this.playing) {
      const wrong = this.a.settings.world === "plane" ? "of the plane wrong" : "of the change missing";
      tell(
        parts.live,
        `Step ${this.n} of ${this.steps}. ${seen.map((each) => `${each.name}: ${percent(each.left)} ${wrong}. ${lastEvent(each)}`).join(" ")}`,
      );
      this.onstate?.(this.fragment());
    }
  }
  tabulate(seen) {
    const head = ["lane", "loss of the last batch", "still wrong", "effective rank", "ranks", "last event"];
    const rows = seen.map((each) => [
      each.name,
      each.loss?.toFixed(4) ?? "none yet",
      percent(each.left),
      each.ranks.map((r) => r.toFixed(2)).join(" and "),
      each.sizes.at(-1)[this.module].length,
      lastEvent(each),
    ]);
    this.parts.words.replaceChildren(
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          head.map((text) => h("th", { scope: "col" }, text)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.map((text) => h("td", {}, String(text))),
          ),
        ),
      ),
    );
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
