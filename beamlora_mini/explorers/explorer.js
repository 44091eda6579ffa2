// The rank explorer: every rank of every module of a recorded run.

import { curves, line, sharp, stepAxis } from "./canvas.js";
import { drawPool, poolInWords, poolOf } from "./event.js";
import { Grid, SORT_NAMES, ordered, shares } from "./grid.js";
import { LOOK, h, mark, onKeys, percent, tell } from "./look.js";
import { Record } from "./record.js";
import { Reading } from "./reading.js";
import { colourOf, drawRiver, inkOn, lineOf } from "./river.js";

const [TALL, AXIS] = [230, 20]; // CSS pixels

export function mount(root, { settings: data, fragment = "" }) {
  return new Explorer(root, new Record(data), fragment).api();
}

export class Explorer extends Reading {
  constructor(root, record, fragment, title = "") {
    super();
    Object.assign(this, { record, title }); // title: of one that stands in another view, which shows the loss itself
    this.grid = new Grid();
    this.calm = window.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;
    this.build(root);
    this.load(fragment);
    new ResizeObserver(() => this.draw()).observe(this.parts.main);
    window.matchMedia?.("(prefers-color-scheme: dark)").addEventListener?.("change", () => this.draw());
  }

  // --- the page ---

  build(root) {
    const { record } = this;
    const part = (this.parts = {});
    const button = (name, text, label, onclick) =>
      (part[name] = h("button", { type: "button", class: name, "aria-label": label, onclick }, text));
    const choice = (name, values) =>
      h(
        "label",
        { class: "note" },
        `${name} `,
        (part[name] = h(
          "select",
          {
            "aria-label": name,
            onchange: (event) => {
              this[name] = event.target.value;
              this.draw();
            },
          },
          values.map((value) => h("option", { value }, String(value))),
        )),
      );
    const unique = (name) => ["all", ...new Set(record.modules.map((own) => own[name]))];
    const { model, task } = record.info;
    root.replaceChildren(
      h("style", {}, LOOK),
      (part.page = h(
        "div",
        { class: "view", tabindex: "-1" },
        h(
          "header",
          {},
          this.title
            ? h("h2", {}, this.title)
            : [
                h("h1", {}, "Rank explorer"),
                h("span", { class: "promise" }, [model, task?.replaceAll("_", " ")].filter(Boolean).join(", ")),
              ],
          button("back", "◂ step", "one record back", () => this.move(-1)),
          button("play", "▶ play", "play", () => this.play()),
          button("step", "step ▸", "one record on", () => this.move(1)),
          h("div", { class: "count" }, (part.count = h("span")), h("small", {}, ` of ${this.last} steps`)),
        ),
        (part.main = h(
          this.title ? "div" : "main",
          { class: "main" },
          h(
            "section",
            { class: "card" },
            (part.time = h("input", {
              type: "range",
              min: 0,
              max: record.steps.length - 1,
              style: "width:100%",
              "aria-label": "recorded step",
              oninput: (event) => {
                this.playing = false;
                this.place = Number(event.target.value);
                this.draw();
              },
            })),
            h(
              "div",
              { class: this.title ? "off" : "" },
              h("div", { class: "head" }, h("h2", {}, "Loss"), (part.loss = h("span"))),
              (part.losses = h("canvas", { role: "img" })),
            ),
          ),
          h(
            "section",
            { class: "card" },
            h("div", { class: "head" }, h("h2", {}, "All modules"), (part.scale = h("span"))),
            h(
              "div",
              { class: "chips" },
              choice("sort", SORT_NAMES),
              choice("kind", unique("kind")),
              choice("block", unique("block")),
            ),
            (part.map = h("canvas", {
              role: "img",
              style: "margin-top:.6rem;cursor:pointer",
              onclick: (event) => this.clickMap(event),
            })),
          ),
          h(
            "section",
            { class: "card" },
            h("div", { class: "head" }, (part.title = h("h2")), (part.about = h("span"))),
            h(
              "div",
              { class: "chips" },
              h(
                "label",
                { class: "note" },
                "module ",
                (part.module = h("select", {
                  "aria-label": "module",
                  onchange: (event) => this.choose(Number(event.target.value)),
                })),
              ),
              ["river", "lines"].map(
                (shape) =>
                  (part[shape] = h(
                    "button",
                    {
                      type: "button",
                      onclick: () => {
                        this.shape = shape;
                        this.draw();
                      },
                    },
                    shape,
                  )),
              ),
            ),
            (part.one = h("canvas", { role: "img", style: "margin-top:.6rem" })),
            (part.ranks = h("div", {
              class: "ranks",
              role: "group",
              "aria-label": "ranks at this step: press one to see its line",
            })),
            (part.family = h("p", { class: "note", role: "status" })),
          ),
          h(
            "section",
            { class: "card" },
            h("h2", {}, "How the event chose"),
            (part.how = h("p", { class: "note" })),
            (part.pool = h("canvas", { role: "img" })),
          ),
          h(
            "details",
            { class: "card", ontoggle: () => this.draw() },
            h("summary", {}, "In words and numbers"),
            h(
              "div",
              { class: "scroll", tabindex: "0", role: "region", "aria-label": "numbers" },
              (part.words = h("table")),
            ),
          ),
          (part.live = h("p", { class: "hidden", "aria-live": "polite" })),
        )),
      )),
    );
    onKeys(part.page, {
      " ": () => this.play(),
      ArrowRight: () => this.move(1),
      ArrowLeft: () => this.move(-1),
      Home: () => this.move(-Infinity),
      End: () => this.move(Infinity),
      ArrowDown: () => this.neighbour(1),
      ArrowUp: () => this.neighbour(-1),
    });
  }
  clickMap(event) {
    const module = this.grid.at(event.offsetX, event.offsetY);
    if (module !== null) this.choose(module);
  }

  draw() {
    const { parts, record, place } = this;
    if (!this.river) return;
    const css = getComputedStyle(parts.page);
    const colour = (name) => css.getPropertyValue(`--${name}`).trim();
    this.paint = {
      ink: colour("ink"),
      soft: colour("soft"),
      paper: colour("card"),
      a: colour("one"),
      b: colour("two"),
    };
    tell(parts.count, String(this.step));
    tell(parts.play, this.playing ? "❚❚ pause" : "▶ play");
    mark(parts.play, "aria-label", this.playing ? "pause" : "play");
    mark(parts.time, "max", record.steps.length - 1);
    parts.time.value = place;
    mark(parts.time, "aria-valuetext", `step ${this.step} of ${this.last}`);
    for (const name of ["sort", "kind", "block"]) parts[name].value = this[name];
    this.drawLoss();
    this.drawMap();
    this.drawOne();
    this.drawRanks();
    this.drawEvent();
    if (parts.words.closest("details").open) this.tabulate();
    if (!this.playing) {
      tell(parts.live, `Step ${this.step}. ${parts.title.textContent}: ${this.inWords()}`);
      this.onstate?.(this.fragment());
    }
  }

  // --- the pictures ---

  cursor(context, left, right, tall) {
    const at = left + (this.step / this.last) * (right - left);
    context.strokeStyle = this.paint.ink;
    context.lineWidth = 2;
    line(context, at, 0, at, tall);
  }
  dots(context, left, right, tall, steps) {
    context.strokeStyle = this.paint.soft;
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    for (const step of steps)
      line(context, left + (step / this.last) * (right - left), 0, left + (step / this.last) * (right - left), tall);
    context.setLineDash([]);
  }
  drawLoss() {
    const { record, parts, paint, place } = this;
    const known = record.losses.filter((loss) => loss !== null);
    const now = record.losses[place];
    const text = now === null || now === undefined ? "not recorded at this step" : now.toFixed(3);
    tell(parts.loss, `of the batch; dotted: events. Now: ${text}`);
    const [context, w] = sharp(parts.losses, 130);
    this.dots(context, 40, w - 6, 110, record.eventSteps);
    curves(context, w, 130, {
      lines: [{ values: record.losses.map((x) => x ?? NaN), xs: record.steps, colour: paint.a, dash: [] }],
      steps: this.last,
      top: Math.max(1e-9, ...known),
      soft: paint.soft,
      write: (x) => x.toFixed(1),
    });
    this.cursor(context, 40, w - 6, 110);
    mark(
      parts.losses,
      "aria-label",
      `Loss over ${this.last} steps, ${known.length ? `from ${known[0].toFixed(2)} to ${known.at(-1).toFixed(2)}` : "not recorded"}; events at steps ${record.eventSteps.join(", ") || "none"}.`,
    );
  }
  drawMap() {
    const { record, parts, place, grid } = this;
    const modules = (this.order = ordered(record, place, this));
    if (modules.length && !modules.includes(this.module)) {
      Object.assign(this, { module: modules[0], slot: null }); // the filter has hidden the other one
      this.read();
    }
    const table = this.sort === "place" && record.modules.every(({ block }) => block !== null);
    const earlier = place ? record.steps[place - 1] : -1;
    const fresh = new Set(
      record.events
        .filter(({ step, slot }) => step > earlier && step <= this.step && slot !== null)
        .map(({ module, slot }) => `${module} ${slot}`),
    );
    grid.draw(parts.map, record, { modules, table, place, chosen: this.module, fresh, paint: this.paint });
    tell(
      parts.scale,
      `a strip is a module, a cell a rank; orange: more than an even share, blue: less, full colour at ${percent(grid.reach)} off; dot: replaced just now`,
    );
    mark(
      parts.map,
      "aria-label",
      `Map of ${modules.length} modules with ${record.ranks} ranks each, at step ${this.step}; ${fresh.size} ranks replaced since the record before. The most uneven: ${this.unevenest(modules)}.`,
    );
    const names = modules.map((m) => record.modules[m].label).join();
    if (this.listed !== names) {
      parts.module.replaceChildren(...modules.map((m) => h("option", { value: m }, record.modules[m].label)));
      this.listed = names;
    }
    parts.module.value = this.module;
  }
  unevenest(modules) {
    const ranges = modules.map((m) => {
      const of = shares(this.record.at(this.place, m));
      return [Math.max(...of) - Math.min(...of), m];
    });
    const [range, m] = ranges.reduce((best, each) => (each[0] > best[0] ? each : best), [-1, this.module]);
    return `${this.record.modules[m].label}, shares ${range.toFixed(2)} apart`;
  }
  drawOne() {
    const { record, parts, paint, river } = this;
    const [context, w] = sharp(parts.one, TALL);
    const axis = TALL - AXIS;
    const lit = this.slot === null ? null : lineOf(this.seats()[this.slot]);
    if (this.shape === "river")
      drawRiver(context, w, axis, river, this.points, { steps: this.last, paper: paint.paper, ink: paint.ink, lit });
    else this.drawLines(context, w, lit);
    const left = this.shape === "river" ? 0 : 40;
    const right = this.shape === "river" ? w : w - 6;
    context.textBaseline = "alphabetic";
    context.font = "11px system-ui, sans-serif";
    this.dots(context, left, right, axis, new Set(record.eventsOf(this.module).map(({ step }) => step)));
    if (this.shape === "river")
      stepAxis(context, { left: 0, right: w, y: TALL - 5, steps: this.last, soft: paint.soft });
    this.cursor(context, left, right, axis);
    for (const shape of ["river", "lines"]) mark(parts[shape], "aria-pressed", shape === this.shape);
    tell(parts.title, record.modules[this.module].label);
    tell(
      parts.about,
      this.shape === "river"
        ? "a band is a rank, as wide as its share of the module's importance; number, colour: first rank; fork: copy; pale: falls later. Line: this step"
        : "a line is a rank, in times an even share; colour: first rank; dotted: falls later. Line: this step",
    );
    mark(
      parts.one,
      "aria-label",
      `${this.shape} of the ranks of ${record.modules[this.module].name}. ${this.inWords()}`,
    );
  }
  /** A line for each life, in its founder's colour. */
  drawLines(context, w, lit) {
    const { record, river, paint } = this;
    const lines = river.lives.map((life) => ({
      xs: record.steps,
      dash: life.died === null ? [] : [3, 3],
      colour: colourOf(life.founder),
      faint: lit && !lit.has(life),
      values: record.steps.map((step, place) =>
        this.seats(step)[life.slot] === life ? shares(record.at(place, this.module))[life.slot] : NaN,
      ),
    }));
    const top = Math.max(...lines.flatMap(({ values }) => values.filter(Number.isFinite)));
    curves(context, w, TALL, { lines, steps: this.last, top, soft: paint.soft, write: (x) => x.toFixed(1) });
  }
  drawRanks() {
    const { parts, record } = this;
    const of = shares(record.at(this.place, this.module));
    const seats = this.seats();
    if (parts.ranks.childElementCount !== of.length) {
      parts.ranks.replaceChildren(
        ...of.map((_, slot) => h("button", { type: "button", onclick: () => this.pick(slot) }, String(slot))),
      );
    }
    if (this.slot !== null && this.slot >= of.length) this.slot = null;
    of.forEach((share, slot) => {
      const { founder } = seats[slot];
      const button = parts.ranks.children[slot];
      mark(
        button,
        "style",
        `background:${colourOf(founder)};color:${inkOn(founder)};${slot === this.slot ? "outline:3px solid var(--ink)" : ""}`,
      );
      mark(button, "aria-label", `rank ${slot}: ${share.toFixed(2)} times an even share, line of ${founder}`);
      mark(button, "aria-pressed", slot === this.slot);
    });
    tell(
      parts.family,
      this.slot === null ? `${this.inWords()} Press a rank to see its line of descent.` : this.descent(),
    );
  }
  drawEvent() {
    const { record, parts } = this;
    const step = record.eventSteps.findLast(
      (each) => each <= this.step && record.events.some((event) => event.step === each && event.kind === "expand"),
    );
    parts.pool.closest("section").classList.toggle("off", step === undefined);
    if (step === undefined) return;
    const pool = poolOf(record, step, this.module);
    const words = poolInWords(step, pool);
    const [context, w] = sharp(parts.pool, 180);
    drawPool(context, w, 180, pool, this.paint);
    tell(parts.how, words);
    mark(
      parts.pool,
      "aria-label",
      `${words} The weights go from ${pool.values.at(-1).toFixed(2)} to ${pool.values[0].toFixed(2)}.`,
    );
  }
  tabulate() {
    const { record, parts } = this;
    const of = shares(record.at(this.place, this.module));
    const rows = of.map((share, slot) => [
      slot,
      record.at(this.place, this.module)[slot].toPrecision(4),
      share.toFixed(3),
      this.seats()[slot].founder,
      this.seats()[slot].born,
    ]);
    const head = ["rank", "importance", "times an even share", "first rank of its line", "there since step"];
    parts.words.replaceChildren(
      h("caption", {}, `${record.modules[this.module].name} at step ${this.step}`),
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
      state: () => this.state(),
      go: (step) => this.go(step),
      choose: (name) => this.choose(this.record.modules.findIndex((own) => own.name === name)),
      pick: (slot) => this.pick(slot),
      pool: (step) => ({
        ...poolOf(this.record, step, this.module),
        values: Array.from(poolOf(this.record, step, this.module).values),
      }),
      play: (on) => this.play(on),
      load: (fragment) => this.load(fragment),
      onstate: (listener) => {
        this.onstate = listener;
      },
    };
  }
}
