// A laboratory: one idea, a few controls, pictures that follow. What it is about is in lab_*.js.

import { sharp } from "./canvas.js";
import { Controls } from "./inputs.js";
import { LOOK, h, mark, tell } from "./look.js";

/**
 * lab: {title, idea, question, answer(result), defaults, controls (see inputs.js), compute(settings, data) -> result,
 * pictures: [{title, tall, when(result), draw(context, w, tall, result, paint), words(result), drag(x, y, result, w, tall) -> changes}],
 * table(result) -> {head, rows}, slow: does the answer take a while?}. Throwing RangeError in compute refuses settings.
 */
export function mountLab(lab, root, { settings: { given = {}, data = null } = {}, fragment = "" } = {}) {
  return new Lab(lab, root, given, data, fragment).api();
}

class Lab {
  constructor(lab, root, given, data, fragment) {
    Object.assign(this, { lab, data, begin: { ...lab.defaults, ...given } });
    this.build(root);
    this.load(fragment);
    new ResizeObserver(() => this.draw()).observe(this.parts.main);
    window.matchMedia?.("(prefers-color-scheme: dark)").addEventListener?.("change", () => this.draw());
  }
  load(fragment) {
    const given = {};
    for (const [name, text] of new URLSearchParams(fragment.replace(/^#/, ""))) {
      if (name in this.lab.defaults) given[name] = typeof this.begin[name] === "number" ? Number(text) : text;
    }
    this.settings = { ...this.begin };
    this.set(given);
  }
  fragment() {
    const changed = Object.entries(this.settings).filter(([name, value]) => value !== this.begin[name]);
    return `#${new URLSearchParams(changed)}`;
  }
  set(changes) {
    const settings = { ...this.settings, ...changes };
    let trouble = "";
    try {
      this.result = this.lab.compute(settings, this.data);
      this.settings = settings;
      if (this.lab.slow) this.open = false; // an answer that takes a while is asked for again
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      trouble = error.message;
      this.result ??= this.lab.compute(this.settings, this.data);
    }
    tell(this.parts.error, trouble);
    this.refresh();
  }
  build(root) {
    const { lab } = this;
    const part = (this.parts = {});
    this.pictures = lab.pictures.map((picture) => {
      const canvas = h("canvas", { role: "img" });
      if (picture.drag) this.listen(canvas, picture);
      const note = h("span");
      const card = h(
        "section",
        { class: "card" },
        h("div", { class: "head" }, h("h2", {}, picture.title), note),
        canvas,
      );
      return { ...picture, canvas, note, card };
    });
    root.replaceChildren(
      h("style", {}, LOOK),
      (part.page = h(
        "div",
        { class: "view lab" },
        h("header", {}, h("h1", {}, lab.title), h("span", { class: "promise" }, lab.idea)),
        h(
          "div",
          { class: "body" },
          h(
            "aside",
            { "aria-label": "settings" },
            h(
              "details",
              { open: window.innerWidth > 760 },
              h("summary", {}, "Settings"),
              h(
                "div",
                { class: "chips", style: "margin:.7rem 0" },
                h(
                  "button",
                  {
                    type: "button",
                    onclick: () => {
                      this.settings = { ...this.begin };
                      this.set({});
                    },
                  },
                  "as at the start",
                ),
              ),
              (part.controls = h("div")),
            ),
          ),
          (part.main = h(
            "main",
            {},
            h(
              "section",
              { class: "card ask" },
              h("p", {}, lab.question),
              (part.answer = h("p", { role: "status" })),
              (part.reveal = h(
                "button",
                {
                  type: "button",
                  onclick: () => {
                    this.open = true;
                    this.refresh();
                  },
                },
                "I have a guess: show the answer",
              )),
              (part.error = h("p", { class: "error", role: "alert" })),
            ),
            h(
              "div",
              { class: "cards" },
              this.pictures.map(({ card }) => card),
            ),
            h(
              "section",
              { class: "card" },
              h("h2", {}, "In numbers"),
              h(
                "div",
                { class: "scroll", tabindex: "0", role: "region", "aria-label": "numbers" },
                (part.table = h("table")),
              ),
            ),
            (part.live = h("p", { class: "hidden", "aria-live": "polite" })),
          )),
        ),
      )),
    );
    this.controls = new Controls(part.controls, lab.controls, (name, value) => this.set({ [name]: value }));
  }
  /** Dragging on a picture changes settings; the sliders do the same by keyboard. */
  listen(canvas, picture) {
    const move = (event) => {
      const changes =
        event.buttons && picture.drag(event.offsetX, event.offsetY, this.result, canvas.clientWidth, picture.tall);
      if (changes) this.set(changes);
    };
    canvas.style.touchAction = "none";
    canvas.style.cursor = "ns-resize";
    canvas.addEventListener("pointerdown", (event) => (canvas.setPointerCapture(event.pointerId), move(event)));
    canvas.addEventListener("pointermove", move);
  }
  refresh() {
    const { parts, lab } = this;
    this.controls.update(this.settings, () => false);
    parts.reveal.classList.toggle("off", this.open ?? false);
    tell(parts.answer, this.open ? lab.answer(this.result) : "");
    this.draw();
  }
  draw() {
    if (!this.result) return;
    const { parts, lab, result } = this;
    const css = getComputedStyle(parts.page);
    const colour = (name) => css.getPropertyValue(`--${name}`).trim();
    const paint = {
      ink: colour("ink"),
      soft: colour("soft"),
      paper: colour("card"),
      a: colour("one"),
      b: colour("two"),
      third: colour("third"),
      line: colour("line"),
    };
    const there = this.pictures.filter(({ when }) => !when || when(result));
    for (const picture of this.pictures) picture.card.classList.toggle("off", !there.includes(picture));
    for (const { canvas, note, tall, draw, words, says } of there) {
      const [context, w] = sharp(canvas, tall);
      draw(context, w, tall, result, paint, canvas);
      tell(note, says ? says(result) : "");
      mark(canvas, "aria-label", words(result));
    }
    const { head, rows } = lab.table(result);
    parts.table.replaceChildren(
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
    tell(parts.live, there.map(({ words }) => words(result)).join(" "));
    this.onstate?.(this.fragment());
  }
  api() {
    return {
      state: () => ({ settings: this.settings, fragment: this.fragment(), ...this.lab.state(this.result) }),
      set: (changes) => this.set(changes),
      load: (fragment) => this.load(fragment),
      onstate: (listener) => {
        this.onstate = listener;
      },
    };
  }
}
