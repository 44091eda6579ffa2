// Guided experiments of the arena: one click, one question, one answer that is computed when it is asked for.

export const EXPERIMENTS = [
  {
    title: "Fewer ranks than needed",
    a: { method: "LoRA", true_rank: 5, r: 2 },
    b: { method: "LoRA", r: 6 },
    question: "The hidden change has five directions. One LoRA has two ranks, the other six. How much of the change will the first one miss in the end?",
    answer: ({ a, b, percent }) => {
      const values = [2, 1.6, 1.2, 0.8, 0.4];
      const length = (of) => Math.sqrt(of.reduce((sum, s) => sum + s * s, 0));
      const least = length(values.slice(2)) / length(values);
      return `It misses ${percent(a.left.at(-1))}, the other one ${percent(b.left.at(-1))}. No matrix of rank 2 can miss less than ${percent(least)}: ` +
        "the two largest directions are what it should find, and about what it finds.";
    },
  },
  {
    title: "A rate too high",
    a: { method: "LoRA", world: "plane", steps: 120, lr: 0.02 },
    b: { method: "LoRA", lr: 0.3 },
    question: "A small net knows a circle and has to learn corners. The second LoRA takes steps fifteen times as large. Is it there first?",
    answer: ({ a, b, run, base, percent }) => {
      const best = [0.002, 0.005, 0.02, 0.05, 0.12, 0.3].map((lr) => [lr, run({ ...base, lr }).left.at(-1)]);
      return `In the end it has ${percent(b.left.at(-1))} of the plane wrong, the first ${percent(a.left.at(-1))}. From rate to rate: ` +
        `${best.map(([lr, left]) => `${lr}: ${percent(left)}`).join(", ")}. Whoever compares methods at one rate compares rates.`;
    },
  },
  {
    title: "Dead ranks",
    a: { method: "BeamLoRA", r: 8, dead: 4, period: 20, scope: "module", fill: "now" },
    b: { method: "BeamLoRA", r: 8, dead: 4, period: 20, scope: "module", fill: "fresh" },
    question: "Four of eight ranks are dead: a = b = 0, no gradient, ever. Both lanes prune them. One fills the slots with copies of now, the other with fresh ranks. Which finds more of the five directions?",
    answer: ({ a, b, run, base, percent }) => {
      const old = run({ ...base, fill: "history" });
      const none = run({ ...base, p_start: 1 });
      const say = (of) => `${percent(of.left.at(-1))} missing, effective rank ${of.effective_rank[0].toFixed(1)}`;
      return `Copies of now: ${say(a)}. Fresh ranks: ${say(b)}. Copies from history: ${say(old)}. No event at all: ${say(none)}. ` +
        "A copy of now has its source's gradient and stays its twin: no new direction. A fresh rank finds one of its own. A copy from history may part from its twin, where the task pulls at the difference.";
    },
  },
  {
    title: "Twins",
    a: { method: "BeamLoRA", r: 8, true_rank: 8, period: 40, fill: "now" },
    b: { method: "BeamLoRA", r: 8, true_rank: 8, period: 40, fill: "history" },
    question: "At every event a weak rank makes room for a copy. One lane copies what a rank is now, the other what it was half a period ago. Whose update has more directions at the end?",
    answer: ({ a, b, percent }) =>
      `Copies of now: effective rank ${a.effective_rank[0].toFixed(2)}, ${percent(a.left.at(-1))} missing. From history: ${b.effective_rank[0].toFixed(2)}, ${percent(b.left.at(-1))} missing. ` +
      "Equal twins get equal gradients and never part; a twin from history comes with other moments, and goes its own way.",
  },
  {
    title: "A win that is a rate",
    a: { method: "LoRA", lr: 0.002, true_rank: 3 },
    b: { method: "BeamLoRA", lr: 0.008, true_rank: 3 },
    question: "BeamLoRA is far ahead of LoRA here. Is it the better method?",
    answer: ({ a, b, run, base, percent }) => {
      const fair = [0.002, 0.008, 0.02, 0.05].map((lr) => [lr, run({ ...base, lr }).left.at(-1), run({ ...base, lr, method: "BeamLoRA" }).left.at(-1)]);
      return `LoRA misses ${percent(a.left.at(-1))}, BeamLoRA ${percent(b.left.at(-1))}: but BeamLoRA's rate was four times as high. At equal rates (LoRA, BeamLoRA): ` +
        `${fair.map(([lr, one, other]) => `${lr}: ${percent(one)}, ${percent(other)}`).join("; ")}. Compare the best with the best.`;
    },
  },
  {
    title: "The task changes",
    a: { method: "LoRA", switches: [100], steps: 200 },
    b: { method: "BeamLoRA", period: 20 },
    question: "At step 100 the hidden change becomes another one. Does a method that replaces weak ranks find the new one sooner?",
    answer: ({ a, b, run, base, percent }) => {
      const once = (method) => run({ ...base, method, switches: [] }).left.at(-1);
      return `At the end LoRA misses ${percent(a.left.at(-1))} of the new change, BeamLoRA ${percent(b.left.at(-1))}. Without the switch: ${percent(once("LoRA"))} and ${percent(once("BeamLoRA"))}. ` +
        "One seed and one rate: move the sliders before you believe it.";
    },
  },
];
