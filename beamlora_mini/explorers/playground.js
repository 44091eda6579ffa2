// The playground: the tiny model trained in the kernel, seen here while it runs. The kernel's side is playground.py.

import { curves, sharp } from "./canvas.js";
import { METHODS } from "./settings.js";
import { Explorer } from "./explorer.js";
import { Controls } from "./inputs.js";
import { LOOK, h, mark, shown, tell } from "./look.js";
import { Record } from "./record.js";

const isBeam = ({ method }) => method === "BeamLoRA";
const rates = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032];
const numbers = (least, most) => Array.from({ length: most - least + 1 }, (_, i) => least + i);

function controls(tasks) {
  return [
    { group: "Both lanes", name: "task", kind: "select", values: tasks, help: "What the model has to learn." },
    {
      group: "Both lanes",
      name: "steps",
      values: [20, 40, 60, 80, 120, 160, 240, 400],
      help: "Optimizer steps of the run.",
    },
    { group: "Both lanes", name: "batch_size", label: "batch size", values: [4, 8, 16, 32], help: "Examples a step." },
    { group: "Both lanes", name: "seed", values: numbers(0, 20), help: "Another start, other examples." },
    { group: "This lane", name: "method", kind: "chips", values: METHODS, help: "LoRA, or one of its relatives." },
    {
      group: "This lane",
      name: "r",
      label: "rank r",
      values: [2, 3, 4, 6, 8, 12, 16],
      help: "Ranks of each of the 28 layers (IncreLoRA: at the start).",
    },
    { group: "This lane", name: "lr", label: "learning rate", values: rates, help: "The highest rate of the run." },
    {
      group: "This lane",
      name: "period",
      values: [5, 10, 16, 20, 30, 40, 60],
      when: isBeam,
      help: "Steps from one event to the next.",
    },
    {
      group: "This lane",
      name: "p_start",
      label: "share kept, p",
      values: [0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1],
      when: isBeam,
      help: "The share of all weight that survives the first event.",
    },
    {
      group: "This lane",
      name: "temperature",
      values: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
      when: isBeam,
      help: "How sharply scores turn into weights.",
    },
    {
      group: "This lane",
      name: "snapshot_lag",
      label: "copies from",
      values: ({ period }) => numbers(0, Math.min(40, period - 1)),
      when: isBeam,
      help: "So many steps back lies the state that is copied.",
    },
  ];
}

class Playground {
  constructor(model, root) {
    Object.assign(this, { model, tab: "a", explorers: {}, losses: {} });
    this.build(root);
    this.listener = (message) => this.hear(message);
    this.onsettings = () => this.refresh();
    this.onstatus = () => this.showStatus();
    model.on("msg:custom", this.listener);
    model.on("change:settings", this.onsettings);
    model.on("change:status", this.onstatus);
    this.beat = setInterval(() => this.status.running && model.send({ do: "alive" }), 5000);
    model.send({ do: "hello" });
    this.refresh();
    this.showStatus();
  }
  close() {
    clearInterval(this.beat);
    this.model.off("msg:custom", this.listener);
    this.model.off("change:settings", this.onsettings);
    this.model.off("change:status", this.onstatus);
    this.model.send({ do: "pause" });
  }
  get settings() {
    return this.model.get("settings");
  }
  get status() {
    return this.model.get("status");
  }
  lanes() {
    return this.settings.b ? ["a", "b"] : ["a"];
  }

  /** From the kernel: {lane, record} begins a lane's record anew, {lane, more} goes on with it, {clear} ends it. */
  hear({ lane, record, more, clear }) {
    if (clear) {
      this.explorers = {};
      this.losses = {};
      this.parts.views.replaceChildren();
    } else if (record) {
      const box = h("section", { "aria-label": lane === "a" ? "first lane" : "second lane" });
      const before = this.explorers[lane]?.box;
      if (before) before.replaceWith(box);
      else this.parts.views.append(box);
      const method = this.settings[lane]?.method ?? ""; // as it is now: settings may change
      this.explorers[lane] = {
        box,
        method,
        view: new Explorer(box, new Record(record), "", `${lane === "a" ? "First" : "Second"} lane: ${method}`),
      };
    } else if (more && this.explorers[lane]) {
      this.explorers[lane].view.extend(more);
    }
    this.draw();
  }
  change(name, value) {
    const { a, b, ...both } = this.settings;
    const next =
      name in both
        ? { ...this.settings, [name]: value }
        : { ...this.settings, [this.tab]: { ...this.settings[this.tab], [name]: value } };
    this.model.set("settings", next);
    this.model.save_changes();
  }
  compare() {
    const { a, b } = this.settings;
    this.model.set("settings", {
      ...this.settings,
      b: b ? null : { ...a, method: a.method === "LoRA" ? "BeamLoRA" : "LoRA" },
    });
    this.model.save_changes();
    this.tab = b ? "a" : "b";
    this.refresh();
  }

  build(root) {
    const part = (this.parts = {});
    const button = (name, text, onclick) =>
      (part[name] = h("button", { type: "button", class: name === "start" ? "play" : name, onclick }, text));
    part.controls = h("div");
    root.replaceChildren(
      h("style", {}, LOOK),
      (part.page = h(
        "div",
        { class: "view playground" },
        h(
          "header",
          {},
          h("h1", {}, "Playground"),
          h("span", { class: "promise" }, "the tiny model, trained in the kernel"),
          button("start", "▶ start", () => this.model.send({ do: this.status.running ? "pause" : "start" })),
          button("again", "⟲ reset", () => this.model.send({ do: "reset" })),
          button("compare", "compare two", () => this.compare()),
          h("label", { class: "note" }, "progress ", (part.progress = h("progress", { max: 1, value: 0 }))),
          h("div", { class: "count" }, (part.count = h("span", {}, "0")), (part.of = h("small"))),
          (part.error = h("p", { class: "error", role: "alert" })),
        ),
        h(
          "div",
          { class: "body" },
          h(
            "aside",
            { "aria-label": "settings" },
            h(
              "details",
              { open: true },
              h("summary", {}, "Settings"),
              (part.tabs = h("div", { class: "chips", style: "margin-top:.7rem" })),
              part.controls,
            ),
          ),
          h(
            "div",
            { class: "main" },
            h(
              "section",
              { class: "card" },
              h("div", { class: "head" }, h("h2", {}, "Loss of the batches"), (part.legend = h("span"))),
              (part.loss = h("canvas", { role: "img" })),
            ),
            (part.views = h("div", { class: "cards" })),
            (part.live = h("p", { class: "hidden", "aria-live": "polite" })),
          ),
        ),
      )),
    );
    this.panel = new Controls(part.controls, controls(this.model.get("tasks")), (name, value) =>
      this.change(name, value),
    );
    new ResizeObserver(() => this.draw()).observe(part.loss);
  }
  refresh() {
    const { a, b, ...both } = this.settings;
    if (!b) this.tab = "a";
    this.panel.update({ ...both, ...this.settings[this.tab] }, () => this.status.running);
    const tab = (key, text) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": String(this.tab === key),
          onclick: () => {
            this.tab = key;
            this.refresh();
          },
        },
        text,
      );
    this.parts.tabs.replaceChildren(...(b ? [tab("a", "first lane"), tab("b", "second lane")] : []));
    tell(this.parts.compare, b ? "one lane" : "compare two");
    this.draw();
  }
  showStatus() {
    const { parts, status } = this;
    const { steps } = this.settings;
    tell(parts.start, status.running ? "❚❚ pause" : status.step && status.step < steps ? "▶ go on" : "▶ start");
    tell(parts.count, String(status.step));
    tell(parts.of, ` of ${steps} steps`);
    parts.progress.value = steps ? status.step / steps : 0;
    parts.compare.disabled = status.running;
    tell(parts.error, status.error);
    this.panel.update({ ...this.settings, ...this.settings[this.tab] }, () => status.running);
    if (!status.running) tell(parts.live, status.error || `${status.step} of ${steps} steps are done.`);
    this.draw();
  }
  draw() {
    const { parts } = this;
    const css = getComputedStyle(parts.page);
    const colour = (name) => css.getPropertyValue(`--${name}`).trim();
    const known = this.lanes()
      .filter((lane) => this.explorers[lane])
      .map((lane) => ({ lane, record: this.explorers[lane].view.record }));
    const lines = known.map(({ lane, record }) => ({
      values: record.losses.map((x) => x ?? NaN),
      xs: record.steps,
      colour: colour(lane === "a" ? "one" : "two"),
      dash: lane === "a" ? [] : [6, 4],
    }));
    const [context, w] = sharp(parts.loss, 190);
    const all = lines.flatMap(({ values }) => values.filter(Number.isFinite));
    curves(context, w, 190, {
      lines,
      steps: this.settings.steps,
      top: Math.max(1, ...all),
      soft: colour("soft"),
      write: shown,
    });
    const said = known
      .map(
        ({ lane, record }) =>
          `${lane === "a" ? "—" : "- -"} ${this.explorers[lane].method} ${record.losses.at(-1)?.toFixed(3) ?? ""}`,
      )
      .join("  ");
    tell(parts.legend, said || "not started");
    mark(parts.loss, "aria-label", `Loss of the batches over ${this.status.step} steps. ${said}`);
  }
}

export function render({ model, el }) {
  const playground = new Playground(model, el);
  return () => playground.close();
}
