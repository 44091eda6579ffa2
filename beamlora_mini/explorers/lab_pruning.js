// Laboratory: scores become weights, weights a running sum, and the sum says who falls.

import { drawPool } from "./event.js";
import { softWeights } from "./layer.js";
import { percent } from "./look.js";
import { outside } from "./schedules.js";

const [MODULES, RANKS] = [2, 6];
const START = [0.3, -0.2, 0.1, 0.5, -0.5, 0, 0.2, 0.15, 0.1, 0.25, 0.05, -0.1];
const name = (k) => `score${Math.floor(k / RANKS)}${k % RANKS}`;
const each = Array.from({ length: MODULES * RANKS }, (_, k) => k);
const scale = Array.from({ length: 41 }, (_, i) => +(-1 + i * 0.05).toFixed(2));

export const LAB = {
  title: "Pruning",
  idea: "from a score to who falls",
  question:
    "Twelve ranks in two layers, each with a learned score. All ranks outside the share p of the weight fall, but of no layer more than a cap allows. Lower the temperature: do more fall, or fewer? And does it matter whether layers choose alone or together?",
  answer: ({ fallen, sharper, alone, together }) =>
    `Now ${fallen} fall. At half the temperature it would be ${sharper}: sharper weights leave less to the weak ones, so without a cap at least as many of them fit into the same small share. Layer by layer ${alone.join(" and ")} fall, pooled ${together.join(" and ")}.`,
  defaults: {
    temperature: 0.3,
    p: 0.9,
    scope: "global",
    max_prune_fraction: 0.5,
    ...Object.fromEntries(each.map((k) => [name(k), START[k]])),
  },
  controls: [
    {
      name: "temperature",
      values: [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2, 2],
      help: "Scores are divided by it before the softmax: the lower, the sharper.",
    },
    {
      name: "p",
      label: "share kept, p",
      values: [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1],
      help: "The heaviest ranks whose running sum stays within this share survive.",
    },
    {
      name: "scope",
      kind: "chips",
      values: ["global", "module"],
      help: "Global: all ranks in one pool. Module: each layer for itself.",
    },
    {
      name: "max_prune_fraction",
      label: "at most, of a layer",
      values: [0.17, 0.34, 0.5, 0.67, 0.84, 1],
      help: "A cap: no layer loses a larger share of its ranks in one event.",
    },
    ...each.map((k) => ({
      name: name(k),
      label: `layer ${Math.floor(k / RANKS) + 1}, score of rank ${k % RANKS}`,
      values: scale,
      help: "A learned number. Drag the bar in the picture, or this slider.",
    })),
  ],
  compute(settings) {
    const { temperature, p, scope } = settings;
    if (!(temperature > 0)) throw new RangeError(`temperature=${temperature}: allowed is a number above 0`);
    if (!(p > 0 && p <= 1)) throw new RangeError(`p=${p}: allowed is a number in (0, 1]`);
    const scores = Array.from({ length: MODULES }, (_, m) =>
      each.slice(0, RANKS).map((i) => settings[name(m * RANKS + i)]),
    );
    const masks = (changes) => {
      const own = { ...settings, ...changes };
      return outside(
        scores.map((of) => softWeights(of, own.temperature)),
        p,
        own,
      );
    };
    const count = (of) => of.map((mask) => mask.filter(Boolean).length);
    const weights = scores.map((of) => softWeights(of, temperature));
    const mask = masks({});
    return {
      ...settings,
      scores,
      weights,
      mask,
      fallen: count(mask).reduce((sum, k) => sum + k, 0),
      sharper: count(masks({ temperature: temperature / 2 })).reduce((sum, k) => sum + k, 0),
      alone: count(masks({ scope: "module" })),
      together: count(masks({ scope: "global" })),
      pools: poolsOf(weights, mask, scope),
    };
  },
  pictures: [
    {
      title: "Scores, and the weights they make",
      tall: 280,
      says: () => "line: score, drag it; bar: weight; ring: falls",
      words: ({ weights, mask }) =>
        weights
          .map(
            (of, m) =>
              `Layer ${m + 1}: weights ${of.map((w, i) => `${w.toFixed(2)}${mask[m][i] ? " (falls)" : ""}`).join(", ")}.`,
          )
          .join(" "),
      draw: drawScores,
      drag(x, y, _, w, tall) {
        const k = Math.min(MODULES * RANKS - 1, Math.max(0, Math.floor((x / w) * MODULES * RANKS)));
        return { [name(k)]: +Math.max(-1, Math.min(1, 1 - (2 * (y - 10)) / (tall - 40))).toFixed(2) };
      },
    },
    ...Array.from({ length: MODULES }, (_, m) => ({
      title: m === 0 ? "The running sum" : "The running sum of layer 2",
      tall: 180,
      when: ({ pools }) => m < pools.length,
      words: ({ pools, p }) =>
        `Running sum of ${pools[m].values.length} ranks: ${pools[m].fell.filter(Boolean).length} fall; the others lie within ${percent(p)}, or a cap spares them.`,
      draw: (context, w, tall, { pools, p }, paint) => drawPool(context, w, tall, { ...pools[m], p }, paint),
    })),
  ],
  table: ({ scores, weights, mask }) => ({
    head: ["layer", "rank", "score", "weight", "falls"],
    rows: scores.flatMap((of, m) =>
      of.map((score, i) => [m + 1, i, score.toFixed(2), weights[m][i].toFixed(3), mask[m][i] ? "yes" : "no"]),
    ),
  }),
  state: ({ weights, mask, scores }) => ({ weights, mask, scores }),
};

function poolsOf(weights, mask, scope) {
  const pool = (pairs) => {
    const sorted = pairs.slice().sort((x, y) => y[0] - x[0]);
    return { values: sorted.map(([w]) => w), fell: sorted.map(([, gone]) => gone) };
  };
  const pairs = weights.map((of, m) => of.map((w, i) => [w, mask[m][i]]));
  return scope === "global" ? [pool(pairs.flat())] : pairs.map(pool);
}

function drawScores(context, w, tall, { scores, weights, mask }, paint) {
  const slot = w / (MODULES * RANKS);
  const middle = 10 + (tall - 40) / 2;
  const top = Math.max(...weights.flat());
  scores.forEach((of, m) =>
    of.forEach((score, i) => {
      const x = (m * RANKS + i + 0.5) * slot;
      const high = (weights[m][i] / top) * (tall - 60);
      context.globalAlpha = 0.35;
      context.fillStyle = mask[m][i] ? paint.b : paint.a;
      context.fillRect(x - slot * 0.32, tall - 30 - high, slot * 0.64, high);
      context.globalAlpha = 1;
      if (mask[m][i]) {
        context.strokeStyle = paint.b;
        context.lineWidth = 2;
        context.beginPath();
        context.arc(x, tall - 30 - high, 5, 0, 2 * Math.PI);
        context.stroke();
      }
      context.fillStyle = paint.ink;
      context.fillRect(x - slot * 0.4, middle - (score * (tall - 40)) / 2 - 2, slot * 0.8, 4);
      context.fillStyle = paint.soft;
      context.textAlign = "center";
      context.fillText(`${m + 1}.${i}`, x, tall - 12);
    }),
  );
  context.strokeStyle = paint.line;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(w / 2, 0);
  context.lineTo(w / 2, tall - 26);
  context.stroke();
}
