// Guided experiments of the arena: one click, one question, a guess, and an answer that is computed when it is asked for.

const byRate = (values, run) => values.map((lr) => [lr, run({ lr }).left.at(-1)]);
const best = (found) => found.reduce((least, each) => (each[1] < least[1] ? each : least));
/** The first step at which no more than this share is left; "no" step if there is none. */
const reached = (curve, share, from = 0) => {
  const n = curve.findIndex((left, k) => k >= from && left <= share);
  return n < 0 ? "never" : `at step ${n}`;
};

export const EXPERIMENTS = [
  {
    title: "Fewer ranks than needed",
    a: { method: "LoRA", true_rank: 5, r: 2 },
    b: { method: "LoRA", r: 6 },
    question:
      "The hidden change has five directions. One LoRA has two ranks, the other six. How much of the change will the first one miss in the end?",
    guesses: ["about a tenth", "about half", "three fifths"],
    answer: ({ a, b, percent }) => {
      const k = a.settings.true_rank;
      const values = Array.from({ length: k }, (_, i) => (2 * (k - i)) / k);
      const length = (of) => Math.sqrt(of.reduce((sum, s) => sum + s * s, 0));
      const least = length(values.slice(a.settings.r)) / length(values);
      return (
        `It misses ${percent(a.left.at(-1))}, the other one ${percent(b.left.at(-1))} (of the norm of the change, which is not the number of directions). No matrix of rank ${a.settings.r} can miss ` +
        `less than ${percent(least)}: the largest directions are what it should find, and about what it finds.`
      );
    },
  },
  {
    title: "A rate too high",
    a: { method: "LoRA", world: "plane", steps: 120, lr: 0.02 },
    b: { method: "LoRA", lr: 0.3 },
    question:
      "A small net knows a circle and has to learn corners. The second LoRA takes steps fifteen times as large. Is it there first?",
    guesses: ["yes", "first at the start, not at the end", "no, never"],
    answer: ({ a, b, run, base, percent }) => {
      const found = byRate([0.005, 0.02, 0.05, 0.12, 0.3], (change) => run({ ...base, ...change }));
      return (
        `To two fifths wrong: the small steps ${reached(a.left, 0.4)}, the large ones ${reached(b.left, 0.4)}; to a tenth: ${reached(a.left, 0.1)} and ${reached(b.left, 0.1)}. ` +
        `In the end ${percent(a.left.at(-1))} and ${percent(b.left.at(-1))} of the plane are wrong. From rate to rate: ${found.map(([lr, left]) => `${lr}: ${percent(left)}`).join(", ")}. ` +
        "Large steps come near at once and then jump about. (In the matrix world such a rate does little harm: try it.)"
      );
    },
  },
  {
    title: "Dead ranks",
    a: { method: "BeamLoRA", r: 8, dead: 4, period: 20, fill: "now" },
    b: { method: "BeamLoRA", r: 8, dead: 4, period: 20, fill: "fresh" },
    question:
      "Four of eight ranks are dead: a = b = 0, no gradient, ever. Both lanes prune them. One fills the places with copies of now, the other with fresh ranks. Which finds more of the five directions?",
    guesses: ["copies", "fresh ranks", "both the same"],
    answer: ({ a, b, run, base, percent }) => {
      const say = (of) => `${percent(of.left.at(-1))} missing, effective rank ${of.effective_rank[0].toFixed(1)}`;
      const none = run({ ...base, p_start: 1 });
      const once = run({ ...base, end_step: base.period });
      return (
        `Copies of now: ${say(a)}. Fresh ranks: ${say(b)}. Copies from history: ${say(run({ ...base, fill: "history" }))}. No event at all: ${say(none)}; one event with copies of now: ${say(once)}. ` +
        "A copy of now has its source's gradient and stays its twin: it adds no direction. One such event changes next to nothing, and the later ones prune ranks that live. A fresh rank finds a direction of its own. " +
        "A copy from history may, if it has time until the next event: try a longer period."
      );
    },
  },
  {
    title: "Twins",
    a: { method: "BeamLoRA", r: 8, true_rank: 8, period: 40, fill: "now" },
    b: { method: "BeamLoRA", r: 8, true_rank: 8, period: 40, fill: "history" },
    question:
      "At every event weak ranks make room for copies. One lane copies what a rank is now, the other what it was half a period ago. Whose update has more directions at the end?",
    guesses: ["copies of now", "copies from history", "both the same"],
    answer: ({ a, b, run, base, percent }) => {
      const say = (of) => `effective rank ${of.effective_rank[0].toFixed(2)}, ${percent(of.left.at(-1))} missing`;
      return (
        `Copies of now: ${say(a)}. From history: ${say(b)}. No event: ${say(run({ ...base, p_start: 1 }))}. Fresh ranks: ${say(run({ ...base, fill: "fresh" }))}. ` +
        "Equal twins get equal gradients and never part. A twin from history has other values and other moments, and may go its own way. But here no rank is spare, the change has as many directions as there are ranks: " +
        "what an event takes away has to be found again. With more ranks (try r 12) the difference shrinks."
      );
    },
  },
  {
    title: "A win that is a rate",
    a: { method: "LoRA", lr: 0.002, true_rank: 3 },
    b: { method: "BeamLoRA", lr: 0.008, true_rank: 3 },
    question: "BeamLoRA is far ahead of LoRA here. Is it the better method?",
    guesses: ["yes", "no", "this can't tell"],
    answer: ({ a, b, run, base, percent }) => {
      const grid = [0.002, 0.008, 0.02, 0.05, 0.12];
      const of = (method) => byRate(grid, (change) => run({ ...base, ...change, method }));
      const [plain, beam] = [of("LoRA"), of("BeamLoRA")];
      const [one, other] = [best(plain), best(beam)];
      return (
        `LoRA misses ${percent(a.left.at(-1))}, BeamLoRA ${percent(b.left.at(-1))}: but BeamLoRA's rate was four times as high. At equal rates (LoRA, BeamLoRA): ` +
        `${plain.map(([lr, left], k) => `${lr}: ${percent(left)}, ${percent(beam[k][1])}`).join("; ")}. Each at its best rate: ${percent(one[1])} at ${one[0]} and ${percent(other[1])} at ${other[0]}. Compare the best with the best, on several seeds.`
      );
    },
  },
  {
    title: "The task changes",
    a: { method: "LoRA", switches: [100], steps: 200 },
    b: { method: "BeamLoRA", period: 20 },
    question:
      "At step 100 the hidden change becomes another one. Does a method that replaces weak ranks find the new one sooner?",
    guesses: ["yes", "no", "about the same"],
    answer: ({ a, b, run, base, own, percent }) => {
      const beam = { ...base, ...own };
      const end = (of) => percent(of.left.at(-1));
      const longer = { steps: 400 };
      return (
        `Half of the new change is found by LoRA ${reached(a.left, 0.5, 101)}, by BeamLoRA ${reached(b.left, 0.5, 101)}; at the end they miss ${end(a)} and ${end(b)}. BeamLoRA without events: ${end(run({ ...beam, p_start: 1 }))}, ` +
        `with fresh ranks in the places: ${end(run({ ...beam, fill: "fresh" }))}. Without the switch: LoRA ${end(run({ ...base, switches: [] }))}, BeamLoRA ${end(run({ ...beam, switches: [] }))}. ` +
        `And half of the learning rate is gone by step 100: with 400 steps it is ${end(run({ ...base, ...longer }))} and ${end(run({ ...beam, ...longer }))}. One seed: move the slider before you believe it.`
      );
    },
  },
];
