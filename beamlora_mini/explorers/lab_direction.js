// Laboratory: how far a row of the weight turns and how much longer it gets, with LoRA and with DoRA.

import { dot } from "./algebra.js";
import { line } from "./canvas.js";
import { Lane } from "./lane.js";

const METHODS_SHOWN = ["LoRA", "DoRA"];
const norm = (x) => Math.sqrt(dot(x, x));

/** Of each row of W + delta against W: the turn in degrees and the change of length in per cent. */
function turns(W, delta) {
  return W.map((row, i) => {
    const now = row.map((x, j) => x + delta[i][j]);
    const cosine = Math.max(-1, Math.min(1, dot(row, now) / (norm(row) * norm(now))));
    return { turn: (180 / Math.PI) * Math.acos(cosine), longer: 100 * (norm(now) / norm(row) - 1) };
  });
}
/** Correlation of the turns with how much the lengths changed, either way. */
function tie(rows) {
  const [x, y] = [rows.map(({ turn }) => turn), rows.map(({ longer }) => Math.abs(longer))];
  const mean = (of) => of.reduce((sum, v) => sum + v, 0) / of.length;
  const off = (of) => of.map((v) => v - mean(of));
  const [dx, dy] = [off(x), off(y)];
  return dot(dx, dy) / (norm(dx) * norm(dy) || 1);
}

export const LAB = {
  title: "Direction and length",
  idea: "what LoRA and DoRA do to the rows of a weight",
  question:
    "A row of the weight can turn, and it can get longer or shorter. DoRA learns the lengths apart from the directions. With the same change to be learned, will its rows turn less than LoRA's?",
  slow: true,
  answer({ step, lanes }) {
    const means = lanes.map(({ method, given }) => overSeeds(method, given, step));
    const told = means.map(
      ({ method, turn, size, left }) =>
        `${method} turns its rows by ${turn.toFixed(1)} degrees and changes their lengths by ${size.toFixed(1)} per cent, with ${(100 * left).toFixed(0)} % of the change missing`,
    );
    return (
      `At step ${step}, mean of ${SEEDS} seeds: ${told.join("; ")}. Read turn and length beside what is missing: who is behind has moved less. If both arrive at the same weight, they have turned and ` +
      "stretched alike; before that they need not have. (How the two are tied in a language model is another question: notebook 03.)"
    );
  },
  defaults: { step: 40, row: 3, r: 4, lr: 0.01, true_rank: 5, seed: 0 },
  controls: [
    { name: "step", values: Array.from({ length: 41 }, (_, i) => 5 * i), help: "Optimizer step." },
    { name: "row", values: Array.from({ length: 16 }, (_, i) => i), help: "Which row of the weight is drawn." },
    { name: "r", label: "rank r", values: [1, 2, 3, 4, 5, 6, 8], help: "Ranks of both adapters." },
    {
      name: "lr",
      label: "learning rate",
      values: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1],
      help: "The highest rate of both runs.",
    },
    { name: "true_rank", label: "true rank", values: [1, 2, 3, 5, 8, 12], help: "Directions of the hidden change." },
    { name: "seed", values: Array.from({ length: 21 }, (_, i) => i), help: "Another world, another start." },
  ],
  compute({ step, row, r, lr, true_rank, seed }) {
    const lanes = METHODS_SHOWN.map((method) => {
      const given = { method, r, lr, true_rank, seed };
      const lane = keep(given).upTo(step);
      const { W } = lane.arena.layers[0];
      const path = lane.kept.slice(0, step + 1).map(({ deltas: [delta] }) => W[row].map((x, j) => x + delta[row][j]));
      const rows = turns(W, lane.kept[step].deltas[0]).map((each) => ({ ...each, size: Math.abs(each.longer) }));
      return {
        method,
        given,
        rows,
        share: tie(rows),
        left: lane.at(step).left,
        path,
        start: W[row],
        goal: W[row].map((x, j) => x + lane.kept[0].change[row][j]),
      };
    });
    return { step, row, lanes };
  },
  pictures: [
    {
      title: "All rows",
      tall: 260,
      says: () => "a mark is a row; full: LoRA, ring: DoRA",
      words: ({ lanes }) =>
        lanes
          .map(
            ({ method, rows }) =>
              `${method}: rows turn by ${mean(rows, "turn").toFixed(1)} degrees on average, lengths change by ${mean(rows, "size").toFixed(1)} per cent.`,
          )
          .join(" "),
      draw: drawRows,
    },
    {
      title: "One row, on its way",
      tall: 260,
      says: ({ row }) => `row ${row}, in the plane of where it starts (grey) and where it should go (dark)`,
      words: ({ row, lanes }) =>
        `Row ${row} after this step: ${lanes.map(({ method, rows }) => `${method} turned it by ${rows[row].turn.toFixed(1)} degrees, ${longerBy(rows[row].longer)}`).join("; ")}.`,
      draw: drawPath,
    },
  ],
  table: ({ row, lanes }) => ({
    head: [
      "method",
      "turn of the row, degrees",
      "change of its length, per cent",
      "mean turn",
      "mean change of length, either way",
      "correlation over the rows",
    ],
    rows: lanes.map(({ method, rows, share }) => [
      method,
      rows[row].turn.toFixed(1),
      rows[row].longer.toFixed(1),
      mean(rows, "turn").toFixed(1),
      mean(rows, "size").toFixed(1),
      tied(share),
    ]),
  }),
  state: ({ step, row, lanes }) => ({
    step,
    row,
    lanes: lanes.map(({ method, rows, share, left, given }) => ({ method, rows, tie: share, left, given })),
  }),
};

const SEEDS = 6;
const averaged = new Map();
/** Means of a method's turns, changes of length and what is missing, over seeds. */
function overSeeds(method, given, step) {
  const key = JSON.stringify([given, step, null]).replace(/"seed":\d+/, "");
  if (!averaged.has(key)) {
    const runs = Array.from({ length: SEEDS }, (_, seed) => {
      const lane = new Lane("a", { ...given, seed }).upTo(step);
      const rows = turns(lane.arena.layers[0].W, lane.kept[step].deltas[0]);
      return {
        turn: mean(rows, "turn"),
        size: mean(
          rows.map(({ longer }) => ({ size: Math.abs(longer) })),
          "size",
        ),
        left: lane.at(step).left,
      };
    });
    averaged.set(key, { method, turn: mean(runs, "turn"), size: mean(runs, "size"), left: mean(runs, "left") });
  }
  return averaged.get(key);
}

const lanesKept = new Map(); // runs of the last settings: a slider of steps must not train anew
function keep(given) {
  const key = JSON.stringify(given);
  if (!lanesKept.has(key)) lanesKept.set(key, new Lane("a", given));
  if (lanesKept.size > 6) lanesKept.delete(lanesKept.keys().next().value);
  return lanesKept.get(key);
}
function mean(rows, name) {
  return rows.reduce((sum, each) => sum + each[name], 0) / rows.length;
}

function drawRows(context, w, tall, { row, lanes }, paint) {
  const all = lanes.flatMap(({ rows }) => rows);
  const [most, turn] = [Math.max(5, ...all.map(({ size }) => size)), Math.max(5, ...all.map((each) => each.turn))];
  const x = (degrees) => 46 + (degrees / turn) * (w - 60);
  const y = (longer) => (tall - 24) / 2 - (longer / most) * ((tall - 44) / 2);
  context.fillStyle = context.strokeStyle = paint.soft;
  context.textAlign = "right";
  for (const value of [-most, 0, most])
    context.fillText(`${value > 0 ? "+" : ""}${value.toFixed(0)} %`, 40, y(value) + 4);
  context.globalAlpha = 0.3;
  line(context, 46, y(0), w - 8, y(0));
  context.globalAlpha = 1;
  context.textAlign = "center";
  for (let k = 0; k <= 4; k++)
    context.fillText(`${((k / 4) * turn).toFixed(0)}°`, x((k / 4) * turn) - (k === 4 ? 8 : 0), tall - 6);
  lanes.forEach(({ rows }, k) =>
    rows.forEach(({ turn: degrees, longer }, i) => {
      context.beginPath();
      context.arc(x(degrees), y(longer), i === row ? 7 : 4, 0, 2 * Math.PI);
      context.fillStyle = context.strokeStyle = k ? paint.b : paint.a;
      context.lineWidth = 2;
      if (k) context.stroke();
      else context.fill();
    }),
  );
}

const tied = (share) => (share ? share.toFixed(2) : "–"); // nothing has moved yet
const longerBy = (x) => `${Math.abs(x).toFixed(1)} per cent ${x < 0 ? "shorter" : "longer"}`;

/** Coordinates along the start and across it, towards the goal. */
function drawPath(context, w, tall, { lanes }, paint) {
  const [{ start, goal }] = lanes;
  const size = norm(start);
  const along = start.map((v) => v / size);
  const rest = goal.map((v, j) => v - dot(goal, along) * along[j]);
  const across = rest.map((v) => v / (norm(rest) || 1));
  const flat = (v) => [dot(v, along), dot(v, across)];
  const all = [flat(start), flat(goal), [0, 0], ...lanes.flatMap(({ path }) => path.map(flat))];
  const [left, right] = [Math.min(...all.map(([u]) => u)), Math.max(...all.map(([u]) => u))];
  const [low, high] = [Math.min(...all.map(([, v]) => v)), Math.max(...all.map(([, v]) => v))];
  const scale = Math.min((w - 60) / (right - left || 1), (tall - 50) / (high - low || 1));
  const at = ([u, v]) => [30 + (u - left) * scale, tall - 25 - (v - low) * scale];
  const arrow = (to, colour, wide, dash) => {
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = wide;
    context.setLineDash(dash);
    line(context, ...at([0, 0]), ...at(to));
    context.setLineDash([]);
    context.beginPath();
    context.arc(...at(to), wide + 2, 0, 2 * Math.PI);
    context.fill();
  };
  arrow(flat(start), paint.third, 2, []);
  arrow(flat(goal), paint.ink, 2, []);
  lanes.forEach(({ path, method }, k) => {
    const colour = k ? paint.b : paint.a;
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.setLineDash([2, 2]);
    context.beginPath();
    for (const each of path) context.lineTo(...at(flat(each)));
    context.stroke();
    arrow(flat(path.at(-1)), colour, 2.5, k ? [6, 4] : []);
    const [px, py] = at(flat(path.at(-1)));
    context.textAlign = "left";
    context.fillText(method, Math.min(px + 8, w - 36), py - 6 - 10 * k);
  });
}
