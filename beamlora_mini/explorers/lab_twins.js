// Laboratory: a rank is copied onto another. Do the two part, and what does the copy cost?

import { dot } from "./algebra.js";
import { curves } from "./canvas.js";
import { Arena } from "./engine.js";
import { percent, shown } from "./look.js";
import { require } from "./settings.js";

const AT = 60; // the step of the copy
const norm = (x) => Math.sqrt(dot(x, x));
const cosine = (x, y) => dot(x, y) / (norm(x) * norm(y) || 1);
const alike = (one, other) => cosine(one.a.value, other.a.value) * cosine(one.b.value, other.b.value); // of b a^T
const WAYS = ["now", "then"].flatMap((vectors) => ["now", "then", "zero"].map((moments) => ({ vectors, moments })));

/** A run of LoRA in whose layer the rank `source` is copied onto the rank `slot`. */
function runOf(given, { slot, source, lag, noise }, way) {
  const arena = new Arena(given, [{ step: AT, kind: "copy", module: 0, slot, source, lag, noise, ...way }]);
  const cosines = [];
  arena.runTo(AT - 1);
  const wrong = arena.left.at(-1);
  while (arena.n < given.steps) {
    arena.step();
    const { ranks } = arena.layers[0];
    cosines.push(alike(ranks[slot], ranks[source]));
  }
  return { ...way, slot, source, cosines, curve: arena.left, jump: arena.left[AT] - wrong, end: arena.left.at(-1) };
}

/** The six ways of one seed. */
function runsOf(settings) {
  const { seed, r, true_rank, lr } = settings;
  const given = { method: "LoRA", seed, r, true_rank, lr, steps: 160, alpha: r };
  const sizes = new Arena(given).runTo(AT).layers[0].sizes();
  const pair = { slot: sizes.indexOf(Math.min(...sizes)), source: sizes.indexOf(Math.max(...sizes)) }; // weakest, strongest
  return WAYS.map((way) => runOf(given, { ...settings, ...pair }, way));
}

const SEEDS = 6;
const averaged = new Map();
/** {vectors, moments, mean of the cosines at the end} of each way. */
function overSeeds(settings) {
  const key = JSON.stringify({ ...settings, seed: null, vectors: null, moments: null });
  if (!averaged.has(key)) {
    const runs = Array.from({ length: SEEDS }, (_, seed) => runsOf({ ...settings, seed }));
    const mean = (k) => runs.reduce((sum, of) => sum + of[k].cosines.at(-1) / SEEDS, 0);
    averaged.set(
      key,
      WAYS.map((way, k) => ({ ...way, mean: mean(k) })),
    );
  }
  return averaged.get(key);
}

export const LAB = {
  title: "Twins",
  idea: "a copy has to become something of its own",
  question:
    "After sixty steps the strongest rank of a layer is copied onto the weakest: its vectors a and b as they are or as they were, and with them what Adam remembers. Which makes the two part: old vectors, old moments, or both?",
  slow: true,
  answer({ settings }) {
    const means = overSeeds(settings);
    const told = means.map(({ vectors, moments, mean }) => `${vectors}/${moments} ${mean.toFixed(2)}`).join(", ");
    const most = means.reduce((least, each) => (each.mean < least.mean ? each : least));
    return (
      `Cosine of the twins at the end, by vectors and moments, mean of ${SEEDS} seeds: ${told}. Copied as it is, moments and all, a twin gets the gradients of its source for ever. Here they part most with vectors ${most.vectors} and moments ${most.moments}. ` +
      "It is not mere distance: noise that moves a copy as far parts it less on most seeds (try vectors now, moments now, noise 0.1)."
    );
  },
  defaults: { vectors: "then", moments: "then", lag: 20, noise: 0, r: 6, true_rank: 8, lr: 0.02, seed: 0 },
  controls: [
    {
      name: "vectors",
      label: "a and b",
      kind: "chips",
      values: ["now", "then"],
      help: "Of the source as it is, or as it was `lag` steps ago.",
    },
    {
      name: "moments",
      label: "Adam's moments",
      kind: "chips",
      values: ["now", "then", "zero"],
      help: "What Adam remembers of the copy: of the source now, of the source then, or nothing.",
    },
    { name: "lag", values: [0, 1, 2, 5, 10, 20, 30, 40, 50], help: "How many steps back `then` is; with 0 it is now." },
    {
      name: "noise",
      values: [0, 0.001, 0.01, 0.03, 0.1, 0.3, 1],
      help: "Added to the copy's vectors, as a share of their root mean square.",
    },
    { name: "r", label: "rank r", values: [2, 3, 4, 5, 6, 7, 8, 10, 12], help: "Ranks of the adapter." },
    { name: "true_rank", label: "true rank", values: [2, 4, 6, 8, 10, 12], help: "Directions of the hidden change." },
    {
      name: "lr",
      label: "learning rate",
      values: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1],
      help: "The highest rate of the run.",
    },
    { name: "seed", values: Array.from({ length: 21 }, (_, i) => i), help: "Another world, another start." },
  ],
  compute(settings) {
    const all = runsOf(settings);
    const own = all.find((run) => run.vectors === settings.vectors && run.moments === settings.moments);
    require(own, "vectors, moments", [settings.vectors, settings.moments], "now or then; now, then or zero");
    return { ...own, all, settings };
  },
  pictures: [
    {
      title: "How alike the twins are",
      tall: 230,
      says: ({ vectors, moments }) =>
        `cosine of b a; strong: vectors ${vectors}, moments ${moments}; faint: the other five ways`,
      words: ({ cosines, all }) =>
        `Cosine of source and copy from step ${AT} on: ${cosines[0].toFixed(3)} at first, ${cosines.at(-1).toFixed(3)} at the end; the other ways end at ${all.map((run) => run.cosines.at(-1).toFixed(2)).join(", ")}.`,
      draw(context, w, tall, { cosines, all }, { soft, a, third }) {
        const xs = cosines.map((_, k) => AT + k);
        const lines = all.map((run) => ({ values: run.cosines, xs, colour: third, dash: [3, 3] }));
        curves(context, w, tall, {
          lines: [...lines, { values: cosines, xs, colour: a, dash: [] }],
          steps: 160,
          top: 1,
          soft,
          write: shown,
        });
      },
    },
    {
      title: "What is missing of the change",
      tall: 230,
      says: ({ jump, end }) => `the copy adds ${(100 * jump).toFixed(0)} points at once; ${percent(end)} at the end`,
      words: ({ curve, jump, end }) =>
        `Missing: ${percent(curve[AT - 1])} before the copy, ${percent(jump)} more just after it, ${percent(end)} at the end.`,
      draw(context, w, tall, { curve, all }, { soft, a, third }) {
        const lines = all.map((run) => ({ values: run.curve, colour: third, dash: [3, 3] }));
        curves(context, w, tall, {
          lines: [...lines, { values: curve, colour: a, dash: [] }],
          steps: 160,
          top: 1,
          soft,
          write: percent,
        });
      },
    },
  ],
  table: ({ all }) => ({
    head: ["a and b", "moments", "cosine just after", "cosine at the end", "jump", "missing at the end"],
    rows: all.map(({ vectors, moments, cosines, jump, end }) => [
      vectors,
      moments,
      cosines[0].toFixed(3),
      cosines.at(-1).toFixed(3),
      percent(jump),
      percent(end),
    ]),
  }),
  state: ({ slot, source, cosines, curve, jump, end, all }) => ({
    slot,
    source,
    cosines,
    curve,
    jump,
    end,
    all: all.map(({ vectors, moments, cosines: of, jump: leap }) => ({
      vectors,
      moments,
      cosine: of.at(-1),
      jump: leap,
    })),
  }),
};
