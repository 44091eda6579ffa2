// Laboratory: how many ranks AdaLoRA and IncreLoRA keep, step by step, and in which layer.

import { curves } from "./canvas.js";
import { Arena } from "./engine.js";
import { percent, shown } from "./look.js";
import { adaBudget } from "./schedules.js";
import { require } from "./settings.js";

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
  slow: true,
  answer({ method, ranks, left, settings }) {
    const [own, other] = [method, method === "AdaLoRA" ? "IncreLoRA" : "AdaLoRA"].map((name) =>
      overSeeds({ ...settings, method: name }),
    );
    const say = ({ name, more, fewer }) => `${name}: more in ${more} of ${SEEDS}, fewer in ${fewer}`;
    return (
      `${method} ends with ${ranks.at(-1).join(" and ")} ranks in the two layers, ${percent(left)} of the plane wrong. Does layer 2 get more than layer 1, over ${SEEDS} seeds? ` +
      `${say(own)}; ${say(other)}. IncreLoRA has few ranks to give, so few ends are possible; and this is one small net: it shows how ranks move, not which place is right.`
    );
  },
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
      values: ({ target_r }) => [4, 5, 6, 8, 10, 12].filter((r) => r > target_r),
      when: ({ method }) => method === "AdaLoRA",
      help: "Of each layer. IncreLoRA begins with one.",
    },
    {
      name: "target_r",
      label: "target r",
      values: [2, 3, 4, 5, 6, 8],
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
    const given = givenOf(settings);
    const { method, target_r } = given;
    const { arena, ranks } = runOf(given);
    const budget = ranks.map((_, n) =>
      method === "AdaLoRA" ? adaBudget(Math.max(1, n), 2, arena.settings) : 2 * target_r,
    );
    return { method, settings, given, ranks, budget, left: arena.left.at(-1), events: arena.events };
  },
  pictures: [
    {
      title: "Ranks of each layer",
      tall: 240,
      says: ({ method }) =>
        method === "AdaLoRA"
          ? "grey: the budget of both, a cubic, which is met at the next choice; lines: layer 1 (full), layer 2 (dashed), both (thin)"
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

/** What a run is given: the settings of its method. */
function givenOf(settings) {
  const { method, target_r } = settings;
  const ada = method === "AdaLoRA";
  const own = ada ? ["tinit", "tfinal", "deltaT"] : ["init_warmup", "incre_interval", "top_h"];
  const names = ["target_r", "lr", "pattern", "seed", ...own];
  require(!ada || settings.r > target_r, "r", settings.r, `more than target_r = ${target_r}`);
  return { method, r: ada ? settings.r : 1, ...Object.fromEntries(names.map((name) => [name, settings[name]])) };
}

const SEEDS = 6;
const counted = new Map();
/** In how many seeds the second layer ends with more ranks than the first, and with fewer. */
function overSeeds(settings) {
  const key = JSON.stringify({ ...givenOf(settings), seed: null });
  if (!counted.has(key)) {
    const ends = Array.from({ length: SEEDS }, (_, seed) => runOf(givenOf({ ...settings, seed })).ranks.at(-1));
    const more = ends.filter(([one, other]) => other > one).length;
    counted.set(key, { name: settings.method, more, fewer: ends.filter(([one, other]) => other < one).length });
  }
  return counted.get(key);
}
