// Laboratory: how many ranks AdaLoRA and IncreLoRA keep, step by step, and in which layer.

import { curves } from "./canvas.js";
import { Arena } from "./engine.js";
import { percent, shown } from "./look.js";
import { adaBudget } from "./schedules.js";

/** A run on the plane, whose net has two layers with an adapter: ranks that are alive in each, after every step. */
function runOf(given) {
  const arena = new Arena({ ...given, world: "plane", steps: 200 });
  const alive = () =>
    arena.layers.map((layer) => (layer.kept ? layer.kept.filter(Boolean).length : layer.ranks.length - 1));
  const ranks = [alive()];
  while (arena.n < 200) {
    arena.step();
    ranks.push(alive());
  }
  return { arena, ranks };
}

export const LAB = {
  title: "Budgets",
  idea: "where the ranks go",
  question:
    "AdaLoRA begins with more ranks than it may keep and drops the least sensitive; IncreLoRA begins with few and grows. The net has two layers. Will both methods give the ranks to the same layer?",
  answer: ({ method, ranks, left, others }) =>
    `${method} ends with ${ranks.at(-1).join(" and ")} ranks in the two layers, ${percent(left)} of the plane wrong. Over eight seeds layer 2 has more in ${others.more} of 8 runs, fewer in ${others.fewer}; the other method (same target, its defaults): more in ${others.other.more}, fewer in ${others.other.fewer}. Two layers, one small net: this shows how the ranks move, not which place is right.`,
  defaults: {
    method: "AdaLoRA",
    r: 8,
    target_r: 4,
    tinit: 20,
    tfinal: 80,
    deltaT: 5,
    init_warmup: 20,
    incre_interval: 10,
    top_h: 1,
    lr: 0.02,
    pattern: "corners",
    seed: 0,
  },
  controls: [
    { name: "method", kind: "chips", values: ["AdaLoRA", "IncreLoRA"], help: "From many to few, or from few to many." },
    {
      name: "r",
      label: "ranks at the start",
      values: ({ method }) => (method === "AdaLoRA" ? [4, 6, 8, 10, 12] : [1, 2, 3, 4]),
      help: "Of each layer.",
    },
    {
      name: "target_r",
      label: "target r",
      values: [1, 2, 3, 4, 5, 6, 8],
      help: "Ranks of a layer at the end, on average.",
    },
    {
      name: "tinit",
      values: [0, 10, 20, 40, 60],
      when: ({ method }) => method === "AdaLoRA",
      help: "Steps until the budget begins to fall.",
    },
    {
      name: "tfinal",
      values: [20, 40, 60, 80, 100, 120],
      when: ({ method }) => method === "AdaLoRA",
      help: "Steps at the end in which nothing changes.",
    },
    {
      name: "deltaT",
      values: [1, 2, 5, 10, 20],
      when: ({ method }) => method === "AdaLoRA",
      help: "Steps from one choice to the next.",
    },
    {
      name: "init_warmup",
      values: [5, 10, 20, 40],
      when: ({ method }) => method === "IncreLoRA",
      help: "Steps until the first growth.",
    },
    {
      name: "incre_interval",
      values: [2, 5, 10, 20, 30],
      when: ({ method }) => method === "IncreLoRA",
      help: "Steps from one growth to the next.",
    },
    {
      name: "top_h",
      values: [1, 2],
      when: ({ method }) => method === "IncreLoRA",
      help: "So many layers grow at once, those with the highest score.",
    },
    {
      name: "lr",
      label: "learning rate",
      values: [0.005, 0.01, 0.02, 0.05, 0.1],
      help: "The highest rate of the run.",
    },
    {
      name: "pattern",
      kind: "select",
      values: ["corners", "stripes", "spiral"],
      help: "What the net, which knows a circle, has to learn.",
    },
    { name: "seed", values: Array.from({ length: 9 }, (_, i) => i), help: "Another net, another start." },
  ],
  compute(settings) {
    const { method } = settings;
    const own = method === "AdaLoRA" ? ["tinit", "tfinal", "deltaT"] : ["init_warmup", "incre_interval", "top_h"];
    const r =
      method === "AdaLoRA"
        ? Math.max(settings.r, settings.target_r + 1)
        : Math.min(settings.r, settings.target_r - 1, 4);
    if (r < 1) throw new RangeError(`target_r=${settings.target_r}: allowed is at least 2, to grow to`);
    const given = {
      method,
      r,
      ...Object.fromEntries(["target_r", "lr", "pattern", "seed", ...own].map((name) => [name, settings[name]])),
    };
    const { arena, ranks } = runOf(given);
    const budget = ranks.map((_, n) =>
      method === "AdaLoRA" ? adaBudget(Math.max(1, n), 2, arena.settings) : 2 * settings.target_r,
    );
    const result = { method, given, ranks, budget, left: arena.left.at(-1), events: arena.events };
    Object.defineProperty(result, "others", { get: () => overSeeds(given) }); // only when it is asked for
    return result;
  },
  pictures: [
    {
      title: "Ranks of each layer",
      tall: 240,
      says: ({ method }) =>
        method === "AdaLoRA"
          ? "grey: the budget of both, a cubic; lines: layer 1 (full), layer 2 (dashed), both (thin)"
          : "grey: the target of both; lines: layer 1 (full), layer 2 (dashed), both (thin)",
      words: ({ method, ranks }) =>
        `${method}: ${ranks[0].join(" and ")} ranks at the start, ${ranks[100].join(" and ")} after 100 steps, ${ranks.at(-1).join(" and ")} at the end.`,
      draw(context, w, tall, { ranks, budget }, { soft, a, b, third, ink }) {
        const both = ranks.map(([one, other]) => one + other);
        const lines = [
          { values: budget, colour: third, dash: [2, 3] },
          { values: stairs(both).values, xs: stairs(both).xs, colour: ink, dash: [1, 1] },
          ...[0, 1].map((k) => ({ ...stairs(ranks.map((of) => of[k])), colour: k ? b : a, dash: k ? [6, 4] : [] })),
        ];
        curves(context, w, tall, { lines, steps: 200, top: Math.max(...both, ...budget), soft, write: shown });
      },
    },
  ],
  table: ({ ranks, budget }) => ({
    head: ["step", "layer 1", "layer 2", "both", "budget"],
    rows: [0, 40, 80, 120, 160, 200].map((n) => [n, ...ranks[n], ranks[n][0] + ranks[n][1], budget[n]]),
  }),
  state: ({ method, given, ranks, budget, left, events }) => ({ method, given, ranks, budget, left, events }),
};

/** A curve with steps instead of slopes. */
function stairs(values) {
  return {
    xs: values.flatMap((_, n) => (n ? [n, n] : [0])),
    values: values.flatMap((value, n) => (n ? [values[n - 1], value] : [value])),
  };
}

function overSeeds(given) {
  const count = (settings) => {
    const ends = Array.from({ length: 8 }, (_, seed) => runOf({ ...settings, seed }).ranks.at(-1));
    return {
      more: ends.filter(([one, other]) => other > one).length,
      fewer: ends.filter(([one, other]) => other < one).length,
    };
  };
  const { target_r, lr, pattern, method } = given;
  const other =
    method === "AdaLoRA"
      ? { method: "IncreLoRA", r: 1, target_r: Math.max(2, target_r) }
      : { method: "AdaLoRA", r: 2 * target_r, target_r };
  return { ...count(given), other: count({ lr, pattern, ...other }) };
}
