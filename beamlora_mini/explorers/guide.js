// The card of experiments: a question, a guess, an answer; and what every picture and number of the arena is.

import { simulate } from "./engine.js";
import { EXPERIMENTS } from "./experiments.js";
import { h, percent } from "./look.js";

/** Of a view: its experiment, the reader's guess, and the answer, in the element `card`. */
export class Guide {
  constructor(view, card) {
    Object.assign(this, { view, card });
  }
  draw() {
    const { card, view } = this;
    const button = (name, text, onclick, pressed) =>
      h("button", { type: "button", "data-name": name, "aria-pressed": pressed, onclick }, text);
    const chips = h(
      "div",
      { class: "chips" },
      EXPERIMENTS.map(({ title }, k) => {
        const chip = button(
          `experiment${k}`,
          title,
          () => this.tryExperiment(k),
          String(this.view.experiment === EXPERIMENTS[k]),
        );
        chip.disabled =
          this.view.lock.length > 0 && !this.view.lock.every((name) => name === "edits" || name === "compare");
        return chip;
      }),
    );
    if (!this.view.experiment) {
      card.replaceChildren(
        h("h2", {}, "What you see"),
        h(
          "p",
          {},
          "A frozen weight W gets an update B A: a sum of r columns times rows. Each of them is a rank. Play, change anything, or try an experiment:",
        ),
        chips,
      );
      return;
    }
    const { title, question, guesses } = this.view.experiment;
    const reveal = button("reveal", "show the answer", () => this.reveal());
    const guess = guesses.map((text, k) =>
      button(`guess${k}`, text, () => this.guessed(text), String(this.view.guess === text)),
    );
    card.replaceChildren(
      h("h2", { tabindex: "-1" }, title),
      h("p", {}, question),
      this.view.answered
        ? ""
        : h(
            "div",
            { class: "chips", role: "group", "aria-label": "your guess" },
            h("span", { class: "note" }, this.view.guess ? "Your guess:" : "Guess, and it runs:"),
            guess,
            reveal,
          ),
      h("p", { role: "status", tabindex: "-1" }, this.view.answered),
      chips,
    );
  }
  tryExperiment(k) {
    this.view.remember();
    this.view.experiment = EXPERIMENTS[k];
    const { a, b } = this.view.experiment;
    Object.assign(this.view, {
      given: { a: { ...a }, b: { ...b } },
      edits: { a: [], b: [] },
      fork: null,
      n: 0,
      tab: "a",
      guess: null,
      answered: "",
      chosen: null,
      module: 0,
      playing: false,
    });
    this.view.set({});
    this.draw();
    this.card.querySelector("h2").focus({ preventScroll: true });
    this.card.scrollIntoView({ block: "nearest" });
  }
  guessed(guess) {
    this.view.guess = guess;
    this.draw();
    this.card.querySelector("[data-name=reveal]").focus({ preventScroll: true });
    this.view.go(0);
    this.view.play(true);
  }
  reveal() {
    const { a, b, answer } = this.view.experiment;
    const moved = ["a", "b"].some(
      (lane) => JSON.stringify(this.view.given[lane]) !== JSON.stringify(this.view.experiment[lane]),
    );
    const said = this.view.guess ? `You said: ${this.view.guess}. ` : "";
    const text = answer({ a: simulate(a), b: simulate({ ...a, ...b }), run: simulate, percent, base: a, own: b });
    this.view.answered = `${said}${text}${moved ? " (That is with the experiment's own settings; you have changed some.)" : ""}`;
    this.draw();
    this.card.querySelector("[role=status]").focus({ preventScroll: true });
  }
}

/** What every picture and number is. */
export function explained() {
  const facts = [
    [
      "Rank",
      "a row a of A and a column b of B; it adds b times a, a matrix with one direction, to the update. alpha / r scales their sum. W itself never moves.",
    ],
    [
      "Still wrong",
      "in the matrix world |change - update| / |change|, of the whole matrix; on the plane the share of 24 by 24 points on the wrong side.",
    ],
    ["Loss", "of the batch of this step, before the step: mean squared error, or cross-entropy."],
    [
      "Effective rank",
      "how many directions the update uses: e to the entropy of its singular values' shares; k equal ones give k. The update of PiSSA and MiLoRA is counted from W, so it is also what their start left out.",
    ],
    [
      "Rank river",
      "a band is a rank, as wide as its share. With BeamLoRA that is its weight, made of a learned score, else the size |b| |a| of what it adds, times alpha / r and E, where there is one. Its number and colour: the first rank it descends from (the second eight are darker).",
    ],
    ["Event", "the moment at which a method removes, adds, copies or restarts ranks."],
    ["Fair comparison", "each method wants its own learning rate: compare each at its best, on several seeds."],
    [
      "The same by Python",
      "import beamlora_mini as bl; bl.arena.simulate(...) with these settings makes the same run by the package, to the last digits.",
    ],
  ];
  return h(
    "dl",
    { class: "note" },
    facts.flatMap(([name, text]) => [h("dt", {}, h("b", {}, name)), h("dd", {}, text)]),
  );
}
