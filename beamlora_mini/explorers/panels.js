// The arena's pictures: maps, rivers, what is left, singular values. Each says in words what it shows.

import { singularValues } from "./algebra.js";
import { bars, curves, heat, line, sharp, stepAxis } from "./canvas.js";
import { lastEvent } from "./lane.js";
import { h, mark, percent, shown, tell } from "./look.js";
import { colourOf, drawRiver, familiesLeft, inkOn, livesOf, widthsOf } from "./river.js";
import { inside } from "./worlds.js";

const TALL = 190; // CSS pixels
const AXIS = 20;
const GRID = 24;

export class Panels {
  constructor(view) {
    this.view = view;
    const { rivers, charts } = view.parts;
    this.rivers = ["a", "b"].map((key) => this.buildRiver(key, rivers));
    [this.curves, this.spectrum] = ["Share", "Singular values of the update"].map((title) => {
      const head = h("div", { class: "head" }, h("h2", {}, title));
      const canvas = h("canvas", { role: "img" });
      charts.append(h("section", { class: "card" }, head, canvas));
      return { head, canvas, title: head.firstChild, legend: [] };
    });
  }

  /** seen: for each lane what is to be seen at this step. */
  draw(seen) {
    const css = getComputedStyle(this.view.parts.page);
    const colour = (name) => css.getPropertyValue(`--${name}`).trim();
    this.paint = {
      soft: colour("soft"),
      paper: colour("card"),
      a: colour("one"),
      b: colour("two"),
      hidden: colour("third"),
      ink: colour("ink"),
    };
    this.drawMaps(seen);
    this.rivers.forEach((river) =>
      this.drawRiver(
        river,
        seen.find(({ lane }) => lane.key === river.key),
      ),
    );
    this.drawLeft(seen);
    this.drawSpectrum(seen);
  }

  // --- maps ---

  drawMaps(seen) {
    const maps = seen[0].settings.world === "matrix" ? this.matrixMaps(seen) : this.planeMaps(seen);
    const box = this.view.parts.maps;
    if (box.childElementCount !== maps.length) {
      box.replaceChildren(
        ...maps.map(() => h("figure", {}, h("canvas", { role: "img" }), h("figcaption", {}, h("b"), h("span")))),
      );
    }
    maps.forEach(({ matrix, reach, title, text, ...style }, k) => {
      const [canvas, caption] = box.children[k].children;
      tell(caption.firstChild, title);
      tell(caption.lastChild, text);
      mark(canvas, "aria-label", `Map: ${title}, ${text}.`);
      heat(canvas, matrix, reach, { paper: this.paint.paper, ...style });
    });
  }
  matrixMaps(seen) {
    const { settings, change, lane } = seen[0];
    const { W } = lane.arena.layers[0];
    const reach = Math.max(...change.map((row) => Math.max(...row.map(Math.abs)))) || 1;
    const maps = [
      { matrix: W, title: "W, frozen", text: `${W.length} × ${W.length}`, reach: 2.5 / Math.sqrt(W.length) },
      { matrix: change, title: "hidden change", text: `true rank ${settings.true_rank}` },
    ];
    for (const {
      lane,
      settings: { method },
      deltas: [delta],
      ranks,
      left,
    } of seen) {
      const rest = change.map((row, i) => row.map((x, j) => x - delta[i][j]));
      maps.push({
        matrix: delta,
        title:
          seen.length > 1 && alike(seen)
            ? `update of the ${lane.key === "a" ? "first" : "second"}`
            : `${method}'s update`,
        text: `effective rank ${ranks[0].toFixed(1)}`,
      });
      maps.push({
        matrix: rest,
        title:
          seen.length > 1
            ? `left by ${alike(seen) ? (lane.key === "a" ? "the first" : "the second") : method}`
            : "what is left",
        text: `${percent(left)} of the change`,
      });
    }
    return maps.map((map) => ({ reach, ...map }));
  }
  planeMaps(seen) {
    const { settings, pattern, lane, n } = seen[0];
    const square = (value) =>
      Array.from({ length: GRID }, (_, j) => Array.from({ length: GRID }, (_, i) => value(i, GRID - 1 - j)));
    const at = (k) => (k - (GRID - 1) / 2) / (GRID / 2);
    const wanted = (of) => square((i, j) => (inside(of, at(i), at(j)) ? 0.55 : -0.55));
    const { x, y } = lane.arena.world.batch(Math.max(0, n - 1));
    const dots = x.map(([u, v], k) => ({ x: u, y: v, up: y[k] === 1 }));
    const maps = [
      { matrix: wanted(settings.base), title: "learned before", text: settings.base },
      { matrix: wanted(pattern), title: "to learn now", text: `${pattern}, and the examples of this step`, dots },
    ];
    for (const {
      lane,
      settings: { method },
      surface,
      left,
    } of seen) {
      maps.push({
        matrix: square((i, j) => Math.tanh(surface[i * GRID + j] / 2)),
        title: `${alike(seen) ? (lane.key === "a" ? "the first" : "the second") : method} decides`,
        text: `${percent(left)} of the plane wrong`,
        smooth: true,
      });
    }
    return maps.map((map) => ({ reach: 1, ...map }));
  }

  // --- rivers, and their ranks by hand ---

  buildRiver(key, rivers) {
    const parts = { key, title: h("h2"), note: h("span"), layers: h("div", { class: "chips" }), slots: [] };
    parts.canvas = h("canvas", { role: "img", onclick: (event) => this.clickRiver(parts, event) });
    const act = (kind, text) => h("button", { type: "button", onclick: () => this.view.withChosen(kind) }, text);
    parts.acts = [act("prune", "prune it"), act("fresh", "make it fresh")];
    parts.age = h(
      "select",
      {
        "aria-label": "a copy by hand is",
        onchange: (event) => {
          this.view.lag = Number(event.target.value);
          this.view.draw();
        },
      },
      [0, 10, 20, 40].map((lag) => h("option", { value: lag }, lag ? `copies: as ${lag} steps ago` : "copies: as now")),
    );
    parts.say = h("span", { class: "note" });
    parts.ranks = h(
      "div",
      { class: "ranks", role: "group", "aria-label": "ranks of this lane" },
      parts.acts,
      parts.age,
      parts.say,
    );
    parts.card = h(
      "section",
      { class: "card" },
      h("div", { class: "head" }, parts.title, parts.note, parts.layers),
      parts.canvas,
      parts.ranks,
    );
    rivers.append(parts.card);
    return parts;
  }
  drawRiver(parts, seen) {
    parts.card.classList.toggle("off", !seen);
    if (!seen) return;
    const { module, steps } = this.view;
    const { lane, name, settings, n } = seen;
    const events = seen.events.filter((event) => event.module === module && event.kind !== "restart");
    const river = livesOf(seen.sizes[0][module].length, events);
    const before = Object.fromEntries(Object.entries(seen.before).map(([step, of]) => [step, of[module]]));
    const points = widthsOf(
      river,
      seen.sizes.map((of, x) => ({ x, values: of[module] })),
      before,
    );
    Object.assign(parts, { river, points });
    const [context, w] = sharp(parts.canvas, TALL);
    const axis = TALL - AXIS;
    drawRiver(context, w, axis, river, points, { steps, paper: this.paint.paper, ink: this.paint.ink });
    context.strokeStyle = this.paint.soft;
    context.setLineDash([2, 3]);
    for (const step of new Set(seen.events.map((event) => event.step)))
      line(context, (step / steps) * w, 0, (step / steps) * w, axis);
    context.setLineDash([]);
    this.markSwitches(context, seen, (step) => (step / steps) * w, axis);
    context.textBaseline = "alphabetic";
    context.font = "11px system-ui, sans-serif";
    stepAxis(context, { left: 0, right: w, y: TALL - 5, steps, soft: this.paint.soft });
    const seats = river.eras.at(-1).seats;
    const living = seats.filter(({ died }) => died === null).length;
    const alive = `${living} ranks alive, of ${familiesLeft(river)} families`;
    tell(parts.title, `Rank river · ${name}`);
    tell(
      parts.note,
      `${settings.method === "BeamLoRA" ? "width: weight" : "width: size of what a rank adds"}. ${events.length ? "Number and colour: the first rank of its family; a fork: a copy; pale: falls. " : ""}${alive}. ${eventless(settings)}`,
    );
    mark(parts.canvas, "aria-label", `Rank river of ${name} at step ${n}. ${alive}. ${lastEvent(seen)}`);
    this.drawLayers(parts, lane.arena.layers.length);
    this.drawRanks(parts, seen, seats);
  }
  /** Where the task changed: a line with a word. */
  markSwitches(context, { switches }, x, tall) {
    context.strokeStyle = context.fillStyle = this.paint.ink;
    context.lineWidth = 1.5;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "alphabetic";
    for (const step of switches) {
      line(context, x(step), 0, x(step), tall);
      context.textAlign = x(step) > 80 ? "right" : "left";
      context.fillText("new task", x(step) + (x(step) > 80 ? -4 : 4), 11);
    }
  }
  drawLayers({ layers }, count) {
    if (layers.childElementCount !== (count > 1 ? count : 0)) {
      layers.replaceChildren(
        ...Array.from({ length: count > 1 ? count : 0 }, (_, k) =>
          h(
            "button",
            {
              type: "button",
              onclick: () => {
                this.view.module = k;
                this.view.chosen = null;
                this.view.draw();
              },
            },
            `layer ${k + 1}`,
          ),
        ),
      );
    }
    [...layers.children].forEach((button, k) => mark(button, "aria-pressed", k === this.view.module));
  }
  /** A button for each rank: press one and then another to copy the first onto the second; Delete prunes. */
  drawRanks(parts, { lane, sizes }, seats) {
    const { view } = this;
    const now = sizes.at(-1)[view.module];
    const total = now.reduce((sum, x) => sum + x, 0);
    const share = (slot) => (total > 0 ? now[slot] / total : 1 / now.length);
    const can = view.canEdit(lane);
    const chosen = view.chosen?.key === lane.key ? view.chosen.slot : null;
    while (parts.slots.length > seats.length) parts.slots.pop().remove();
    while (parts.slots.length < seats.length) {
      const button = this.rankButton(parts.key, parts.slots.length);
      parts.slots.push(button);
      parts.ranks.insertBefore(button, parts.acts[0]);
    }
    seats.forEach(({ founder, died }, slot) => {
      const button = parts.slots[slot];
      button.classList.toggle("gone", died !== null || share(slot) === 0);
      tell(button, founder === slot ? String(slot) : `${slot} ← ${founder}`);
      const style = `background:${colourOf(founder)};color:${inkOn(founder)};${slot === chosen ? "outline:3px solid var(--ink)" : ""}`;
      mark(button, "style", style);
      mark(button, "aria-label", `rank ${slot}: ${percent(share(slot))} of the whole, family of ${founder}`);
      mark(button, "aria-pressed", slot === chosen);
      button.disabled = !can;
    });
    for (const act of parts.acts) act.disabled = !can || chosen === null;
    parts.age.disabled = !can;
    parts.age.value = view.lag;
    tell(
      parts.say,
      !can
        ? ""
        : chosen === null
          ? "By hand: press a rank, or drag it onto another to copy it there."
          : `Rank ${chosen} is chosen: press another to put a copy of it there, or say what becomes of it.`,
    );
  }
  focusRank(key, slot) {
    this.rivers.find((river) => river.key === key).slots[slot]?.focus();
  }
  rankButton(key, slot) {
    const { view } = this;
    return h(
      "button",
      {
        type: "button",
        draggable: "true",
        onclick: () => view.pick(key, slot),
        onkeydown: (event) => {
          if (["Delete", "Backspace"].includes(event.key) && view.canEdit(view[key])) view.byHand(key, "prune", slot);
        },
        ondragstart: (event) => {
          view.chosen = { key, slot };
          event.dataTransfer?.setData("text/plain", String(slot));
        },
        ondragover: (event) => event.preventDefault(),
        ondrop: (event) => {
          event.preventDefault();
          view.pick(key, slot);
        },
      },
      String(slot),
    );
  }
  clickRiver({ key, points, river }, event) {
    const share = event.offsetY / (TALL - AXIS);
    let sum = 0;
    const k = Array.from(points.at(-1).widths).findIndex((width) => (sum += width) > share);
    const slot = river.eras.at(-1).seats.indexOf(river.lives[k]);
    if (slot >= 0) this.view.pick(key, slot);
  }

  // --- charts ---

  legend(chart, entries) {
    const { head, legend } = chart;
    while (legend.length > entries.length) legend.pop().remove();
    while (legend.length < entries.length) {
      const entry = h("span", {}, h("i", { "aria-hidden": "true" }), h("span"));
      legend.push(entry);
      head.append(entry);
    }
    entries.forEach(({ text, colour, dash }, k) => {
      const [swatch, words] = legend[k].children;
      const line_ = dash
        ? `height:0;width:1.5em;border-top:3px ${dash.length ? "dashed" : "solid"} ${colour};vertical-align:middle`
        : `height:.7em;width:.7em;background:${colour}`;
      mark(swatch, "style", `display:inline-block;margin-right:.35em;${line_}`);
      tell(words, text);
    });
  }
  drawLeft(seen) {
    const plane = seen[0].settings.world === "plane";
    const title = plane ? "Share of the plane on the wrong side" : "Share of the change that is missing";
    const lines = seen.map(({ lane, name, curve, left, loss }) => ({
      values: curve,
      colour: this.paint[lane.key],
      dash: lane.key === "a" ? [] : [6, 4],
      text: `${seen.length > 1 ? name : lane.settings.method} ${percent(left)}${loss === null ? "" : `, loss ${shown(loss)}`}`,
    }));
    const [context, w] = sharp(this.curves.canvas, TALL);
    const top = Math.min(
      3,
      Math.max(plane ? 0.5 : 1, ...lines.flatMap(({ values }) => values.filter(Number.isFinite))),
    );
    curves(context, w, TALL, { lines, steps: this.view.steps, top, soft: this.paint.soft, write: percent });
    this.markSwitches(context, seen[0], (step) => 40 + (step / this.view.steps) * (w - 46), TALL - 20);
    tell(this.curves.title, title);
    this.legend(this.curves, lines);
    mark(
      this.curves.canvas,
      "aria-label",
      `${title}, over ${seen[0].n} steps. Now: ${lines.map(({ text }) => text).join("; ")}.`,
    );
  }
  drawSpectrum(seen) {
    const { module } = this.view;
    const sets = seen.map(({ lane, name, values }) => ({
      colour: this.paint[lane.key],
      text: seen.length > 1 ? name : lane.settings.method,
      values: values[module],
    }));
    if (seen[0].settings.world === "matrix")
      sets.unshift({ colour: this.paint.hidden, text: "hidden change", values: this.hiddenValues(seen[0].change) });
    const [context, w] = sharp(this.spectrum.canvas, TALL);
    const count = Math.min(12, Math.max(...sets.map(({ values }) => values.length)));
    bars(context, w, TALL, { sets, count, least: 2, soft: this.paint.soft });
    this.legend(this.spectrum, sets);
    const words = sets
      .map(
        ({ text, values }) =>
          `${text} ${Array.from(values)
            .slice(0, 6)
            .map((s) => s.toFixed(2))
            .join(", ")}`,
      )
      .join("; ");
    mark(this.spectrum.canvas, "aria-label", `Singular values, the largest first: ${words}.`);
  }
  hiddenValues(change) {
    if (this.hidden?.change !== change) this.hidden = { change, values: singularValues(change) };
    return this.hidden.values;
  }
}

const alike = (seen) => seen.length > 1 && seen[0].settings.method === seen[1].settings.method;

/** A word where BeamLoRA's settings allow no event. */
function eventless({ method, period, steps }) {
  return method === "BeamLoRA" && 2 * period > steps
    ? `No event comes: the period is ${period}, of ${steps} steps.`
    : "";
}
