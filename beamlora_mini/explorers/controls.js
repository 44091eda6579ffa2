// The arena's controls: which there are, when they are of use, and the elements they are made of.

import { METHODS, PATTERNS } from "./settings.js";
import { h, shown } from "./look.js";

/** What both lanes share: the second one never has its own. */
export const SHARED = ["world", "size", "true_rank", "noise", "base", "pattern", "steps", "batch", "switches", "seed"];
/** What a fork may change from its step on. */
export const LIVE = ["lr", "temperature", "period", "p_start", "fill"];

const isBeam = ({ method }) => method === "BeamLoRA";
const isPlane = ({ world }) => world === "plane";
const is = (...methods) => ({ method }) => methods.includes(method);
const rates = [0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5];
const whole = (least, most) => Array.from({ length: most - least + 1 }, (_, i) => least + i);
const upTo = (values, most) => values.filter((value) => value <= most);

/** {group, name, label, kind, values (or values(settings)), when, help}. */
const CONTROLS = [
  { group: "The world", name: "world", kind: "chips", values: ["matrix", "plane"], help: "Matrix: a hidden change of a frozen weight is to be found. Plane: a small frozen net knows one pattern and has to learn another." },
  { group: "The world", name: "size", values: [12, 16, 20, 24, 32], help: "The frozen weight is so wide and so high." },
  { group: "The world", name: "true_rank", label: "true rank", values: whole(1, 12), when: (s) => !isPlane(s), help: "How many directions the hidden change has. Their singular values fall in a line from 2." },
  { group: "The world", name: "base", label: "learned before", kind: "select", values: PATTERNS, when: isPlane, help: "The pattern that the frozen net was trained on." },
  { group: "The world", name: "pattern", label: "to learn now", kind: "select", values: PATTERNS, when: isPlane, help: "The pattern that the adapter has to teach it." },
  { group: "The world", name: "noise", values: [0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8], help: "Added to every example." },
  { group: "The world", name: "steps", values: [40, 80, 120, 160, 200, 300, 400], help: "Optimizer steps of the whole run. The learning rate falls to zero along them." },
  { group: "The world", name: "seed", values: whole(0, 20), help: "Another seed is another world, another start and other examples." },
  { group: "The adapter", name: "method", kind: "chips", values: METHODS, help: "LoRA, or one of its relatives. Settings that they share stay." },
  { group: "The adapter", name: "r", label: "rank r", values: whole(1, 16), help: "How many ranks the adapter has. IncreLoRA begins with so many." },
  { group: "The adapter", name: "alpha", values: [1, 2, 4, 6, 8, 12, 16, 24, 32, 64], help: "The update is scaled by alpha / r. As long as you leave it alone, alpha is r." },
  { group: "The adapter", name: "lr", label: "learning rate", values: rates, help: "The highest rate of the run: a short warm-up leads to it, a cosine away from it." },
  { group: "The adapter", name: "dead", label: "dead at the start", values: ({ r }) => whole(0, Math.min(12, r)), when: ({ method }) => method !== "IncreLoRA", help: "So many ranks begin with a = b = 0. They get no gradient, ever." },
  { group: "The method", name: "target_r", label: "target r", values: ({ method, r }) => (method === "AdaLoRA" ? whole(1, Math.max(1, r - 1)) : whole(r + 1, 16)), when: is("AdaLoRA", "IncreLoRA"), help: "The budget: ranks of a layer at the end, on average." },
  { group: "The method", name: "deltaT", label: "choice every", values: [1, 2, 5, 10, 20], when: is("AdaLoRA"), help: "Steps between two choices of the ranks that stay." },
  { group: "The method", name: "merge_every", label: "restart every", values: [10, 20, 30, 40, 50, 60, 80, 100], when: is("ReLoRA"), help: "Steps until the adapter is merged into the weight and starts anew." },
  { group: "The method", name: "period", values: ({ steps }) => upTo([10, 16, 20, 24, 32, 40, 50, 60, 80], Math.max(10, steps / 2)), when: isBeam, help: "Steps from one event to the next." },
  { group: "The method", name: "temperature", values: [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2], when: isBeam, help: "How sharply learned scores turn into weights: the lower, the sharper." },
  { group: "The method", name: "p_start", label: "share kept, p", values: [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1], when: isBeam, help: "The share of all weight that survives the first event. It rises to 1 by and by." },
  { group: "The method", name: "fill", label: "a free slot gets", kind: "chips", values: ["history", "now", "fresh"], when: isBeam, help: "The place of a pruned rank goes to a copy of a strong one as it was, to a copy as it is, or to a fresh rank." },
  { group: "The method", name: "snapshot_lag", label: "copies from", values: ({ period }) => whole(0, Math.min(60, period - 1)), when: (s) => isBeam(s) && s.fill === "history", help: "So many steps back lies the state that is copied." },
];
export const helpOf = (name) => CONTROLS.find((control) => control.name === name)?.help ?? "";

/**
 * The elements of all controls that are of use with these settings, under their headings.
 * fixed(name): is it locked? change(name, value): what the reader wants.
 */
export function controlsFor(settings, { fixed, change }) {
  const elements = [];
  let group = null;
  for (const control of CONTROLS) {
    if (!(control.name in settings) || (control.when && !control.when(settings))) continue;
    if (control.group !== group) elements.push(h("h2", { class: "group" }, (group = control.group)));
    elements.push(element(control, settings, fixed(control.name), (value) => change(control.name, value)));
  }
  return elements;
}

function element({ name, label = name, kind = "slider", values, help }, settings, fixed, change) {
  const value = settings[name];
  const about = h("span", { class: "hidden", id: `about-${name}` }, help);
  const box = { "data-help": name, "aria-describedby": `about-${name}` };
  if (kind === "chips") {
    return h("div", { class: "chips", role: "group", "aria-label": label, style: "margin:.4rem 0", ...box },
      label !== name ? h("span", { class: "note", style: "flex-basis:100%", "aria-hidden": "true" }, label) : null,
      values.map((each) => h("button", { type: "button", "data-name": `${name}-${each}`, disabled: fixed, "aria-pressed": String(each === value), onclick: () => change(each) }, each)), about);
  }
  if (kind === "select") {
    return h("label", { class: "slider", "data-help": name }, label,
      h("select", { "data-name": name, "aria-describedby": `about-${name}`, disabled: fixed, onchange: (event) => change(event.target.value) },
        values.map((each) => h("option", { selected: each === value }, each))), about);
  }
  const all = typeof values === "function" ? values(settings) : values;
  const near = all.reduce((best, each, i) => (Math.abs(each - value) < Math.abs(all[best] - value) ? i : best), 0);
  return h("label", { class: "slider", "data-help": name }, label, h("b", {}, shown(value)),
    h("input", { type: "range", "data-name": name, "aria-label": label, "aria-describedby": `about-${name}`, min: 0, max: all.length - 1, value: near, disabled: fixed, "aria-valuetext": shown(value),
      oninput: (event) => change(all[event.target.value]) }), about);
}
