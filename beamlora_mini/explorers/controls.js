// The arena's controls: which there are, when they are of use, and what they do.

import { METHODS, PATTERNS } from "./settings.js";

/** What both lanes share: the second one never has its own. */
export const SHARED = ["world", "size", "true_rank", "noise", "base", "pattern", "steps", "batch", "switches", "seed"];
/** What a fork may change from its step on. */
export const LIVE = ["lr", "temperature", "period", "p_start", "fill"];

const isBeam = ({ method }) => method === "BeamLoRA";
const isPlane = ({ world }) => world === "plane";
const is =
  (...methods) =>
  ({ method }) =>
    methods.includes(method);
const rates = [0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5];
const whole = (least, most) => Array.from({ length: most - least + 1 }, (_, i) => least + i);
const upTo = (values, most) => values.filter((value) => value <= most);

const EACH_METHOD = {
  LoRA: "LoRA: the update is B A, a sum of r ranks, each a column b times a row a. A starts by chance, B at zero.",
  PiSSA: "PiSSA: as LoRA, but A and B start as the r strongest directions of W, which is frozen without them.",
  MiLoRA: "MiLoRA: as PiSSA, with the r weakest directions of W.",
  DoRA: "DoRA: LoRA turns the rows of the weight; how long they are is learned apart.",
  ReLoRA: "ReLoRA: every now and then the update is added to W, and a new one starts.",
  AdaLoRA:
    "AdaLoRA: begins with more ranks than its budget and drops the least sensitive ones. Each rank has a number E.",
  IncreLoRA: "IncreLoRA: begins with few ranks and grows where it pays. Each rank has a number E.",
  BeamLoRA:
    "BeamLoRA: each rank has a learned weight. At events weak ranks fall, and their places go to copies of strong ones.",
};

/** {group, name, label, kind, values (or values(settings)), when, help (or help(value))}: see inputs.js. */
export const CONTROLS = [
  {
    group: "The world",
    name: "world",
    kind: "chips",
    values: ["matrix", "plane"],
    help: "Matrix: a hidden change of a frozen weight is to be found. Plane: a small frozen net knows one pattern and has to learn another.",
  },
  { group: "The world", name: "size", values: [12, 16, 20, 24, 32], help: "The frozen weight is so wide and so high." },
  {
    group: "The world",
    name: "true_rank",
    label: "true rank",
    values: whole(1, 12),
    when: (s) => !isPlane(s),
    help: "How many directions the hidden change has. Their singular values fall in a line from 2.",
  },
  {
    group: "The world",
    name: "base",
    label: "learned before",
    kind: "select",
    values: PATTERNS,
    when: isPlane,
    help: "The pattern that the frozen net was trained on.",
  },
  {
    group: "The world",
    name: "pattern",
    label: "to learn now",
    kind: "select",
    values: PATTERNS,
    when: isPlane,
    help: "The pattern that the adapter has to teach it. After a switch it is the one learned before, and so to and fro.",
  },
  { group: "The world", name: "noise", values: [0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8], help: "Added to every example." },
  {
    group: "The world",
    name: "steps",
    values: [40, 80, 120, 160, 200, 300, 400],
    help: "Optimizer steps of the whole run. The learning rate falls to zero along them.",
  },
  {
    group: "The world",
    name: "seed",
    values: whole(0, 20),
    help: "Another seed is another world, another start and other examples.",
  },
  {
    group: "The adapter",
    name: "method",
    kind: "chips",
    values: METHODS,
    help: (method) => EACH_METHOD[method] ?? "LoRA, or one of its relatives. Settings that they share stay.",
  },
  {
    group: "The adapter",
    name: "r",
    label: "rank r",
    values: ({ method }) => whole(method === "AdaLoRA" ? 2 : 1, 16),
    help: "How many ranks the adapter has. IncreLoRA begins with so many.",
  },
  {
    group: "The adapter",
    name: "alpha",
    values: [1, 2, 4, 6, 8, 12, 16, 24, 32, 64],
    help: "The update is scaled by alpha / r. As long as you leave it alone, alpha is r.",
  },
  {
    group: "The adapter",
    name: "lr",
    label: "learning rate",
    values: rates,
    help: "The highest rate of the run: a short warm-up leads to it, a cosine away from it.",
  },
  {
    group: "The adapter",
    name: "dead",
    label: "dead at the start",
    values: ({ r }) => whole(0, Math.min(12, r)),
    when: ({ method }) => method !== "IncreLoRA",
    help: "So many ranks begin with a = b = 0. They get no gradient, ever.",
  },
  {
    group: "The method",
    name: "target_r",
    label: "target r",
    values: ({ method, r }) =>
      method === "AdaLoRA" ? whole(1, Math.max(1, r - 1)) : whole(r + 1, Math.max(16, 2 * r)),
    when: is("AdaLoRA", "IncreLoRA"),
    help: "The budget: ranks of a layer at the end, on average.",
  },
  {
    group: "The method",
    name: "deltaT",
    label: "choice every",
    values: [1, 2, 5, 10, 20],
    when: is("AdaLoRA"),
    help: "Steps between two choices of the ranks that stay.",
  },
  {
    group: "The method",
    name: "merge_every",
    label: "restart every",
    values: [10, 20, 30, 40, 50, 60, 80, 100],
    when: is("ReLoRA"),
    help: "Steps until the adapter is merged into the weight and starts anew.",
  },
  {
    group: "The method",
    name: "period",
    values: ({ steps }) => upTo([10, 16, 20, 24, 32, 40, 50, 60, 80], Math.max(10, steps / 2)),
    when: isBeam,
    help: "Steps from one event to the next.",
  },
  {
    group: "The method",
    name: "temperature",
    values: [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2],
    when: isBeam,
    help: "How sharply learned scores turn into weights: the lower, the sharper.",
  },
  {
    group: "The method",
    name: "p_start",
    label: "share kept, p",
    values: [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1],
    when: isBeam,
    help: "The share of all weight that survives the first event. It rises to 1 by and by.",
  },
  {
    group: "The method",
    name: "fill",
    label: "a free slot gets",
    kind: "chips",
    values: ["history", "now", "fresh"],
    when: isBeam,
    help: "The place of a pruned rank goes to a copy of a strong one as it was, to a copy as it is, or to a fresh rank.",
  },
  {
    group: "The method",
    name: "snapshot_lag",
    label: "copies from",
    values: ({ period }) => whole(0, Math.min(60, period - 1)),
    when: (s) => isBeam(s) && s.fill === "history",
    help: "So many steps back lies the state that is copied.",
  },
];
