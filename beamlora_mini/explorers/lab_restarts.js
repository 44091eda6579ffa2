// Laboratory: ReLoRA's rounds: the learning rates, and the rank of the sum of all rounds.

import { svd } from "./algebra.js";
import { curves } from "./canvas.js";
import { complete } from "./settings.js";
import { Lane } from "./lane.js";
import { percent, shown } from "./look.js";

const STEPS = 200;
const SHOWN = 16; // singular values, all

export const LAB = {
  title: "Restarts",
  idea: "a sum of small ranks",
  question:
    "An adapter of low rank can't hold a change with more directions than it has ranks. ReLoRA adds it to the weight, starts a new one, and so on. How many rounds does it take, and what is the price?",
  answer: ({ relora, plain, wide, floors, r, rounds, true_rank }) =>
    `With ${rounds} round${rounds > 1 ? "s" : ""} of rank ${r} it misses ${percent(relora.left)} of a change of rank ${true_rank}; one LoRA of rank ${r} misses ${percent(plain.left)}, and no matrix of rank ${r} can miss less than ${percent(floors[0])}. ` +
    `${Math.ceil(true_rank / r)} would be enough if each found its directions. The price shows beside a LoRA that has the ranks of all rounds from the start (r = ${wide.given.r}): it misses ${percent(wide.left)}. Restarts save memory, not steps. One seed: move it.`,
  defaults: { r: 2, true_rank: 6, merge_every: 50, restart_warmup: 5, lr: 0.1, seed: 0 },
  controls: [
    {
      name: "merge_every",
      label: "restart every",
      values: [10, 20, 25, 40, 50, 66, 100, 199],
      help: "Steps of a round.",
    },
    {
      name: "restart_warmup",
      label: "steps of warm-up",
      values: [0, 2, 5, 8, 15, 30],
      help: "After a restart the rate climbs from zero in so many steps.",
    },
    { name: "r", label: "rank r", values: [1, 2, 3, 4, 6, 8], help: "Ranks of one round, and of the LoRA beside it." },
    {
      name: "true_rank",
      label: "true rank",
      values: [1, 2, 4, 6, 8, 10, 12],
      help: "Directions of the hidden change.",
    },
    {
      name: "lr",
      label: "learning rate",
      values: [0.01, 0.02, 0.05, 0.1, 0.2, 0.3],
      help: "The highest rate of both runs.",
    },
    { name: "seed", values: Array.from({ length: 21 }, (_, i) => i), help: "Another world, another start." },
  ],
  compute(settings) {
    const { r, true_rank, merge_every, lr, seed } = settings;
    const restart_warmup = Math.min(settings.restart_warmup, merge_every - 1);
    const common = { r, true_rank, lr, seed, steps: STEPS };
    const of = (given) => {
      const lane = new Lane("a", given).upTo(STEPS);
      const values = lane.kept.map(({ deltas: [delta] }, n) => (n % 2 ? null : svd(delta).S));
      const { arena } = lane;
      return {
        given,
        left: arena.left.at(-1),
        curve: arena.left,
        values,
        rates: arena.left.map((_, n) => lr * arena.factor(n)),
        rank: lane.at(STEPS).ranks[0],
      };
    };
    const hidden = Array.from({ length: true_rank }, (_, i) => (2 * (true_rank - i)) / true_rank);
    const length = (some) => Math.sqrt(some.reduce((sum, s) => sum + s * s, 0));
    const rounds = Math.ceil(STEPS / merge_every);
    const floors = Array.from({ length: rounds }, (_, k) => length(hidden.slice((k + 1) * r)) / length(hidden));
    complete({ method: "ReLoRA", ...common, merge_every, restart_warmup });
    return {
      r,
      true_rank,
      rounds,
      merge_every,
      hidden,
      floors,
      relora: of({ method: "ReLoRA", ...common, merge_every, restart_warmup }),
      plain: of({ method: "LoRA", ...common }),
      wide: of({ method: "LoRA", ...common, r: Math.min(16, r * rounds) }),
    };
  },
  pictures: [
    {
      title: "Learning rate",
      tall: 150,
      says: () => "ReLoRA's, with a warm-up after each restart; dashed: LoRA's",
      words: ({ relora, merge_every, rounds }) =>
        `The rate falls along a cosine from ${shown(Math.max(...relora.rates))}, and climbs anew after each restart, every ${merge_every} steps.`,
      draw: (context, w, tall, { relora, plain }, { soft, a, b }) =>
        curves(context, w, tall, {
          lines: [
            { values: plain.rates, colour: b, dash: [6, 4] },
            { values: relora.rates, colour: a, dash: [] },
          ],
          steps: STEPS,
          top: Math.max(...relora.rates, ...plain.rates),
          soft,
          write: shown,
        }),
    },
    {
      title: "What is missing of the change",
      tall: 230,
      says: ({ relora, plain }) =>
        `ReLoRA ${percent(relora.left)}; dashed: LoRA ${percent(plain.left)}; grey: the least with one round's rank, two rounds', ...`,
      words: ({ relora, plain, floors }) =>
        `ReLoRA misses ${percent(relora.left)} at the end, LoRA of the same rank ${percent(plain.left)}; the least that the ranks of the rounds allow: ${floors.map(percent).join(", ")}.`,
      draw(context, w, tall, { relora, plain, floors }, { soft, a, b, third }) {
        const level = floors.map((value) => ({ values: [value, value], xs: [0, STEPS], colour: third, dash: [2, 3] }));
        curves(context, w, tall, {
          lines: [
            ...level,
            { values: plain.curve, colour: b, dash: [6, 4] },
            { values: relora.curve, colour: a, dash: [] },
          ],
          steps: STEPS,
          top: 1,
          soft,
          write: percent,
        });
      },
    },
    {
      title: "Singular values of the sum",
      tall: 230,
      says: ({ relora, hidden }) =>
        `effective rank ${relora.rank.toFixed(1)} at the end; grey: the hidden change's ${hidden.length}`,
      words: ({ relora, plain }) =>
        `Singular values of the sum of all rounds at the end: ${relora.values
          .at(-1)
          .slice(0, SHOWN)
          .map((s) => s.toFixed(2))
          .join(", ")}; of LoRA: ${plain.values
          .at(-1)
          .slice(0, SHOWN)
          .map((s) => s.toFixed(2))
          .join(", ")}.`,
      draw(context, w, tall, { relora, hidden }, { soft, a, third }) {
        const level = hidden.map((value) => ({ values: [value, value], xs: [0, STEPS], colour: third, dash: [2, 3] }));
        const places = relora.values.map((_, n) => n).filter((n) => relora.values[n]);
        const lines = Array.from({ length: SHOWN }, (_, k) => ({
          values: places.map((n) => relora.values[n][k]),
          xs: places,
          colour: a,
          dash: [],
        }));
        curves(context, w, tall, {
          lines: [...level, ...lines],
          steps: STEPS,
          top: Math.max(2.2, ...lines.flatMap(({ values }) => values)),
          soft,
          write: shown,
        });
      },
    },
  ],
  table: ({ relora, plain, floors, rounds }) => ({
    head: ["after round", "ReLoRA misses", "LoRA misses", "the least with so many ranks"],
    rows: Array.from({ length: rounds }, (_, k) => {
      const n = Math.min(STEPS, (k + 1) * relora.given.merge_every);
      return [k + 1, percent(relora.curve[n]), percent(plain.curve[n]), percent(floors[k])];
    }),
  }),
  state: ({ relora, plain, floors, rounds }) => ({
    rounds,
    floors,
    relora: {
      given: relora.given,
      left: relora.left,
      rates: relora.rates,
      values: relora.values.at(-1),
      rank: relora.rank,
    },
    plain: { left: plain.left, given: plain.given },
  }),
};
